"""Who speaks in a transcript: lines that start with a name and a colon."""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass, field

__all__ = ["Turns"]

_TURN = re.compile(r"^[ \t]{0,8}([^\W\d_][\w.'-]{0,30}(?: [\w.'-]{1,30}){0,3}):[ \t]", re.MULTILINE)
_LINE = re.compile(r"^[ \t]*+\S", re.MULTILINE)
_LEAST = 3  # turns, and half of all lines: fewer may be headings with a colon


@dataclass(slots=True)
class Turns:
    """The turns of a transcript; none in any other text."""

    text: str = field(repr=False)
    _starts: list[int] = field(init=False, repr=False)
    _names: list[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        turns = list(_TURN.finditer(self.text))
        lines = sum(1 for _ in _LINE.finditer(self.text))
        if len(turns) < _LEAST or 2 * len(turns) < lines:
            turns = []
        self._starts = [turn.start(1) for turn in turns]
        self._names = [turn.group(1) for turn in turns]

    def speaker(self, offset: int) -> str:
        """Who says what stands at an offset; empty before the first turn and in a text that is no transcript."""
        turn = bisect.bisect_right(self._starts, offset) - 1
        return self._names[turn] if turn >= 0 else ""
