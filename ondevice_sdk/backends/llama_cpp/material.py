"""A text for calibration as a model would meet it: pieces of plain text, and conversations in its own chat template.

A line that holds nothing but % ends a piece, as in files of fortunes. A piece that begins with a line @user or @system
is a conversation, in which such a line, or @assistant, begins a turn. A text without any of these is one plain piece.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, cast

from ondevice_sdk.errors import ModelUnsupported
from ondevice_sdk.text.templates import render
from ondevice_sdk.types import Message, Role, Segment

_END: Final = re.compile(r"^%\n", re.MULTILINE)
_BEGIN: Final = re.compile(r"@(system|user)\n")
_TURN: Final = re.compile(r"^@(system|user|assistant)\n", re.MULTILINE)


def lay_out(text: str, template: str | None, variables: Mapping[str, str]) -> Iterator[tuple[Segment, ...]]:
    """The segments of each piece.

    Args:
        text: all of it.
        template: Jinja source of the model's chat template; without a usable one conversations are plain text.
        variables: texts of special tokens, such as `bos_token`.
    """
    for piece in _END.split(text):
        messages = _messages(piece)
        if messages and template is not None:
            try:
                yield render(template, messages, variables=variables)
                continue
            except ModelUnsupported:
                pass
        plain = "\n\n".join(each.content for each in messages) if messages else piece
        if plain.strip():
            yield (Segment(f"{plain.strip()}\n\n"),)


def _messages(piece: str) -> tuple[Message, ...]:
    """The turns of a conversation; none if it is plain text."""
    _, *found = _TURN.split(piece) if _BEGIN.match(piece) else ("",)
    roles, contents = found[::2], found[1::2]
    return tuple(Message(cast("Role", role), content.strip()) for role, content in zip(roles, contents, strict=True))
