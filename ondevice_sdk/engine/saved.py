"""States of sequences that are remembered in memory, outside the KV cache, where they slow nobody down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

GRID: Final = 64  # tokens; deterministic prompts are computed in chunks of so many, and reused in whole ones
MOSTLY: Final = 0.8  # of a state: what another one holds so much of is not kept beside it


def shared_chunks(one: Sequence[int], other: Sequence[int], limit: int) -> int:
    """Length of the common beginning in whole chunks of the grid, at most `limit` tokens."""
    length = 0
    while length + GRID <= limit and one[length : length + GRID] == other[length : length + GRID]:
        length += GRID
    return length


def reusable(held: Sequence[int], prompt: Sequence[int], limit: int, *, exact: bool) -> int:
    """How many tokens of the prompt need not be computed where others are held, at most `limit`.

    Args:
        held: tokens of a slot or a state.
        prompt: one token of it is always left to process.
        limit: of what is held.
        exact: only whole chunks of the grid. Otherwise to the token, but nothing where it is less than a chunk.
    """
    limit = min(limit, len(prompt) - 1)
    length = shared_chunks(held, prompt, limit)
    if exact or not length:
        return length
    while length < limit and held[length] == prompt[length]:
        length += 1
    return length


@dataclass(frozen=True, slots=True, eq=False)
class Saved:
    """What `ModelRunner.kv_save` gave for these tokens, which were computed with an adapter (its digest, or none).

    The first `on_grid` of them were computed on the grid.
    """

    tokens: list[int] = field(repr=False)
    state: bytes = field(repr=False)
    on_grid: int = 0
    adapter: str = ""


class SavedStates:
    """Remembers as many states as fit into a number of bytes; the ones longest unused are forgotten first."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._bytes = 0
        self._entries: list[Saved] = []  # the longest unused first

    def find(self, prompt: Sequence[int], *, exact: bool, adapter: str = "") -> tuple[int, Saved | None]:
        """The state that begins with most of the prompt, and how many tokens; one is always left to process."""
        best, found = 0, None
        for entry in reversed(self._entries):
            limit = entry.on_grid if exact else len(entry.tokens)
            if limit > best and entry.adapter == adapter:
                length = reusable(entry.tokens, prompt, limit, exact=exact)
                if length > best:
                    best, found = length, entry
        return best, found

    def knows(self, tokens: Sequence[int], adapter: str = "") -> bool:
        """Whether a state that is remembered begins with these tokens."""
        count = len(tokens)
        return any(
            entry.adapter == adapter and len(entry.tokens) >= count and entry.tokens[:count] == tokens
            for entry in self._entries
        )

    def put(self, entry: Saved) -> None:
        """Remember a state, if there is room for it at all; those that it holds most of are forgotten."""
        if len(entry.state) > self.budget:
            return
        for other in [each for each in self._entries if each.adapter == entry.adapter]:
            shared = shared_chunks(entry.tokens, other.tokens, min(len(entry.tokens), len(other.tokens)))
            if shared >= MOSTLY * len(other.tokens) or entry.tokens[: len(other.tokens)] == other.tokens:
                self.forget(other)
        while self._bytes + len(entry.state) > self.budget:
            self.forget(self._entries[0])
        self._entries.append(entry)
        self._bytes += len(entry.state)

    def touch(self, entry: Saved) -> None:
        """It was used."""
        if entry in self._entries:
            self._entries.remove(entry)
            self._entries.append(entry)

    def forget(self, entry: Saved) -> None:
        """Drop one."""
        if entry in self._entries:
            self._entries.remove(entry)
            self._bytes -= len(entry.state)

    def clear(self) -> None:
        """Drop all."""
        self._entries.clear()
        self._bytes = 0

    def __iter__(self) -> Iterator[Saved]:
        return iter(list(self._entries))
