"""Prompts as the model's tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ondevice_sdk.backends.api import Capability, Chat, Prompt, Segment
from ondevice_sdk.errors import Unsupported
from ondevice_sdk.text.templates import render


class Tokeniser(Protocol):
    """What of a `ModelRunner` makes tokens of a prompt; an engine of another kind brings its own."""

    @property
    def begin_token(self) -> int | None:
        """See `ModelRunner.begin_token`."""

    @property
    def chat_template(self) -> str | None:
        """See `ModelRunner.chat_template`."""

    @property
    def template_variables(self) -> Mapping[str, str]:
        """See `ModelRunner.template_variables`."""

    def tokenize(self, segments: Sequence[Segment]) -> list[int]:
        """See `ModelRunner.tokenize`."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A prompt, laid out: tokens put before it, its segments, and all its tokens."""

    begin: list[int] = field(repr=False)
    segments: Sequence[Segment] = field(repr=False)
    tokens: list[int] = field(repr=False)


def lay_out(runner: Tokeniser, prompt: Prompt) -> Layout:
    """Render and tokenise a prompt.

    Raises:
        Unsupported: a chat, and the model has no chat template. ModelUnsupported: the template is not usable.
    """
    if isinstance(prompt, Chat):
        if runner.chat_template is None:
            raise Unsupported("the model has no chat template", capability=Capability.CHAT.value)
        segments: Sequence[Segment] = render(
            runner.chat_template,
            prompt.messages,
            variables=runner.template_variables,
            answer_prefix=prompt.answer_prefix,
        )
        begin: list[int] = []  # the template writes it where it belongs
    else:
        segments = prompt.segments
        begin = [] if runner.begin_token is None else [runner.begin_token]
    return Layout(begin, segments, begin + runner.tokenize(segments))
