"""Conversations that remember their turns, in blocking code."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, Self

from typing_extensions import Unpack

from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.options import GenerateOptions
from ondevice_sdk.stream import Stream
from ondevice_sdk.tasks.chat import messages_of
from ondevice_sdk.text.split import check_text
from ondevice_sdk.types import Generation, Message


class Answering(Protocol):
    """What a conversation needs of a client."""

    def generate(self, prompt: Sequence[Message], **options: Unpack[GenerateOptions]) -> Generation[str]:
        """See `Client.generate`."""

    def stream(self, prompt: Sequence[Message], **options: Unpack[GenerateOptions]) -> Stream[str]:
        """See `Client.stream`."""


class ChatHistory:
    """The turns of a conversation. None is ever dropped: a conversation that outgrows the context raises.

    A turn is remembered when its answer is there, question and answer at once. Whatever goes wrong before, the
    conversation is as it was. A second turn while one is under way is refused, because it would not know the first.
    """

    def __init__(self, instructions: str | None, messages: Sequence[Message] = ()) -> None:
        self._instructions = instructions
        self._messages = tuple(messages)  # not a list, which a copied conversation would share
        self._turn = threading.Lock()
        if self._messages:
            messages_of(self._messages)
            if self._messages[0].role == "system":
                raise ConfigurationError("the messages of a chat are its turns", hint="pass instructions= beside them")

    @property
    def messages(self) -> tuple[Message, ...]:
        """The turns so far, without the instructions."""
        return self._messages

    def undo(self) -> None:
        """Forget the last question and its answer; nothing happens when there is none."""
        with self._alone():
            self._messages = self._messages[:-2]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One turn at a time; in a task that awaits too, which is why it does not wait."""
        if not self._turn.acquire(blocking=False):
            raise ConfigurationError("this chat has a turn under way", hint="wait for its end, or clone() the chat")
        try:
            yield
        finally:
            self._turn.release()

    def _prompt(self, turn: Message) -> list[Message]:
        system = [Message("system", self._instructions)] if self._instructions else []
        return [*system, *self._messages, turn]

    def _remember(self, turn: Message, answer: Generation[Any]) -> None:
        if answer.text or answer.finish_reason != "cancelled":
            self._messages = (*self._messages, turn, Message("assistant", answer.text))


def asked(text: str | Message) -> Message:
    """What is said to the model, as a turn.

    Raises:
        ConfigurationError: nothing is, or it is the turn of somebody else.
    """
    if not isinstance(text, Message):
        check_text(text)  # the turns before must not make up for an empty one
        return Message("user", text)
    if text.role not in ("user", "tool"):
        raise ConfigurationError("only turns of the user and results of tools can be sent")
    check_text(text.content)
    return text


class Chat(ChatHistory):
    """A conversation with a client's model. One turn at a time; `clone()` it to go several ways at once."""

    def __init__(self, client: Answering, instructions: str | None = None, messages: Sequence[Message] = ()) -> None:
        super().__init__(instructions, messages)
        self._client = client

    def send(self, text: str | Message, **options: Unpack[GenerateOptions]) -> Generation[str]:
        """Ask, wait for the answer, and remember both. On an error nothing is remembered.

        Args:
            text: what is said, or the result of a tool: `chat.send(call.reply(call.run()))`.
            options: as `Client.generate`.
        """
        turn = asked(text)
        with self._alone():
            answer = self._client.generate(self._prompt(turn), **options)
            self._remember(turn, answer)
        return answer

    @contextmanager
    def stream(self, text: str | Message, **options: Unpack[GenerateOptions]) -> Iterator[Stream[str]]:
        """Ask, and read the answer as it comes; leaving the block early cancels the rest.

        What was written by then is remembered with the question; nothing is where nothing was written, or the block is
        left by an exception.
        """
        turn = asked(text)
        with self._alone(), self._client.stream(self._prompt(turn), **options) as stream:
            yield stream
            stream.cancel()  # no effect when the answer is complete
            self._remember(turn, stream.result())

    def clone(self) -> Self:
        """A second conversation with the same past: the turns that are complete."""
        other: Any = type(self)(self._client, self._instructions, self._messages)
        copy: Self = other
        return copy

    __copy__ = clone
