"""Which requests share a forward pass, and in what order."""

from __future__ import annotations

from typing import Final

from ondevice_sdk.engine.generation import Generation
from ondevice_sdk.engine.sequence import Sequence

_TOGETHER_S: Final = 1.0  # requests that came so soon after one another are one piece of work


def by_adapter(sequences: list[Sequence], turn: int) -> list[list[Sequence]]:
    """Groups that may share a pass, which has one adapter.

    Each is the first in its turn, when its prompts are the first to be read; and the last of a turn is the first of the
    next one, which saves a change of adapters.
    """
    groups: dict[str, list[Sequence]] = {}
    for sequence in sequences:
        groups.setdefault(sequence.adapter, []).append(sequence)
    ordered = [groups[adapter] for adapter in sorted(groups)]
    first = -turn % len(ordered) if ordered else 0
    return ordered[first:] + ordered[:first]


def taking_part(sequences: list[Sequence]) -> list[Sequence]:
    """Those that take part in a pass: answers that nobody watches wait for the prompts that came with them.

    Rows of few answers cost nearly as much as those of many. Without waiting, those that are ready first are written
    one row at a time beside the prompts of the others.
    """
    reading = [sequence for sequence in sequences if sequence.prefilling]
    first = min((sequence.placed for sequence in reading), default=0.0)
    writing = [sequence for sequence in sequences if not sequence.prefilling]
    if reading and not any(each.watched or first > each.placed + _TOGETHER_S for each in writing):
        return reading
    return sequences


def decoding_first(sequence: Sequence) -> tuple[bool, tuple[int, int]]:
    """Order of the rows: answers before prompts, then as they came."""
    return not isinstance(sequence, Generation) or sequence.prefilling, sequence.order
