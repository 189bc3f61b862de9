"""Chat templates: messages laid out as segments, so that what users wrote stays data."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence

from ondevice_sdk.errors import ModelUnsupported
from ondevice_sdk.text.template_sandbox import BUDGET, MAX_SIZE, Budget, Refused, alarmed, compiled
from ondevice_sdk.types import Message, Segment


def render(
    template: str, messages: Sequence[Message], *, variables: Mapping[str, str], answer_prefix: str = ""
) -> tuple[Segment, ...]:
    """Lay out a conversation with a model's chat template.

    The template sees an unguessable word in place of every content, and the output is cut at these words: nothing that
    a user wrote can become control text, whatever it contains. A template that refuses a system message (some models
    know none) gets its content at the beginning of the first user message.

    Args:
        template: Jinja source, as model files carry it.
        messages: the turns.
        variables: texts of special tokens, such as `bos_token`.
        answer_prefix: the beginning of the answer; data, put last.

    Raises:
        ModelUnsupported: the template is not valid, refuses the messages, drops, repeats or changes a content, or does
            too much.
    """
    turns: list[tuple[str, tuple[str, ...]]] = [(message.role, (message.content,)) for message in messages]
    with alarmed():
        segments = _render_or_merge(template, turns, variables)
    if answer_prefix:
        segments.append(Segment(answer_prefix))
    return tuple(segments)


def _render_or_merge(
    template: str, turns: list[tuple[str, tuple[str, ...]]], variables: Mapping[str, str]
) -> list[Segment]:
    try:
        return _render(template, turns, variables)
    except Refused as refusal:
        if not (len(turns) > 1 and turns[0][0] == "system" and turns[1][0] == "user"):
            raise _unusable() from refusal
    merged = [("user", (turns[0][1][0], "\n\n", turns[1][1][0])), *turns[2:]]
    try:
        return _render(template, merged, variables)
    except Refused as error:
        raise _unusable() from error


def _unusable() -> ModelUnsupported:
    return ModelUnsupported("the model's chat template does not accept these messages, or is not usable")


def _render(template: str, turns: Sequence[tuple[str, tuple[str, ...]]], variables: Mapping[str, str]) -> list[Segment]:
    # Letters of both cases and no white space: trimming leaves the word alone, any other change is noticed.
    words = {f"Qz{secrets.token_hex(16)}Zq": contents for _, contents in turns}
    conversation = [{"role": role, "content": word} for (role, _), word in zip(turns, words, strict=True)]
    pieces: list[str] = []
    size = 0
    code = compiled(template)
    try:
        for piece in code.generate(
            messages=conversation,
            add_generation_prompt=True,
            tools=None,
            documents=None,
            enable_thinking=False,  # models that think aloud first: tasks want the answer, within its tokens
            **{BUDGET: Budget()},
            **variables,
        ):
            size += len(piece)
            if size > MAX_SIZE:
                raise Refused
            pieces.append(piece)
    except Refused:
        raise
    except Exception as error:  # template code is foreign code: it may raise anything
        raise _unusable() from error
    return _cut("".join(pieces), words)


def _cut(text: str, words: Mapping[str, tuple[str, ...]]) -> list[Segment]:
    segments: list[Segment] = []
    left = set(words)
    parts = re.split(f"({'|'.join(words)})", text) if words else [text]
    for part in parts:
        if part in words:
            if part not in left:
                raise ModelUnsupported("the model's chat template repeats a message")
            left.discard(part)
            segments += [Segment(content) for content in words[part] if content]
        elif part:
            segments.append(Segment(part, "control"))
    if left:
        raise ModelUnsupported("the model's chat template drops or changes a message")
    return segments
