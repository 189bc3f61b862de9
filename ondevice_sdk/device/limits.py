"""What narrows the memory of a process: bounds with their reason, and how they combine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bound:
    """An upper bound on memory: `total` bytes ever, `available` bytes now. `why` names it for people."""

    total: int
    available: int
    why: str


def narrow(physical: Bound, bounds: Iterable[Bound]) -> tuple[int, int, tuple[str, ...]]:
    """The least total and the least available memory, and the bounds that are below the physical ones, in words."""
    total, available = physical.total, physical.available
    words: list[str] = []
    for bound in bounds:
        if bound.total >= physical.total and bound.available >= physical.available:
            continue
        words.append(f"{bound.why}: {megabytes(bound.total)}, {megabytes(bound.available)} of it free")
        total = min(total, bound.total)
        available = min(available, bound.available)
    return total, max(0, min(available, total)), tuple(words)


def megabytes(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1e6:,.0f} MB"
