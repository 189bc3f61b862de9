"""Conversations that remember their turns, in blocking code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, Self

from typing_extensions import Unpack

from ondevice_sdk.options import GenerateOptions
from ondevice_sdk.stream import Stream
from ondevice_sdk.text.split import check_text
from ondevice_sdk.types import Generation, Message


class Answering(Protocol):
    """What a conversation needs of a client."""

    def generate(self, prompt: Sequence[Message], **options: Unpack[GenerateOptions]) -> Generation[str]:
        """See `Client.generate`."""

    def stream(self, prompt: Sequence[Message], **options: Unpack[GenerateOptions]) -> Stream[str]:
        """See `Client.stream`."""


class ChatHistory:
    """The turns of a conversation. None is ever dropped: a conversation that outgrows the context raises."""

    def __init__(self, instructions: str | None, messages: Sequence[Message] = ()) -> None:
        self._instructions = instructions
        self._messages = tuple(messages)  # not a list, which a copied conversation would share

    @property
    def messages(self) -> tuple[Message, ...]:
        """The turns so far, without the instructions."""
        return self._messages

    def undo(self) -> None:
        """Forget the last question and its answer; nothing happens when there is none."""
        self._messages = self._messages[:-2]

    def _prompt(self, text: str) -> list[Message]:
        check_text(text)  # the turns before must not make up for an empty one
        system = [Message("system", self._instructions)] if self._instructions else []
        return [*system, *self._messages, Message("user", text)]

    def _remember(self, text: str, answer: str) -> None:
        self._messages = (*self._messages, Message("user", text), Message("assistant", answer))


class Chat(ChatHistory):
    """A conversation with a client's model. One thread at a time."""

    def __init__(self, client: Answering, instructions: str | None = None, messages: Sequence[Message] = ()) -> None:
        super().__init__(instructions, messages)
        self._client = client

    def send(self, text: str, **options: Unpack[GenerateOptions]) -> Generation[str]:
        """Ask, wait for the answer, and remember both. On an error the turn is not remembered."""
        answer = self._client.generate(self._prompt(text), **options)
        self._remember(text, answer.text)
        return answer

    @contextmanager
    def stream(self, text: str, **options: Unpack[GenerateOptions]) -> Iterator[Stream[str]]:
        """Ask and read the answer as it comes. What was written when the block is left is remembered."""
        with self._client.stream(self._prompt(text), **options) as stream:
            yield stream
            stream.cancel()  # no effect when the answer is complete
            self._remember(text, stream.result().text)

    def clone(self) -> Self:
        """A second conversation with the same past."""
        other: Any = type(self)(self._client, self._instructions, self._messages)
        copy: Self = other
        return copy
