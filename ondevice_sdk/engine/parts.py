"""Whether requests share the KV cache, or each has a part of it to itself.

A shared cache holds a request of any length, and a prefix that several have in common once. But attention of every one
runs over what all of them hold: eight texts of 400 tokens were read at half the speed, and answered at three quarters,
of what they are with a part for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ondevice_sdk.engine.saved import shared_chunks

LEAST_FOREIGN: Final = 1024  # cells of others that a request may have to pass over, before parts are made


@dataclass(frozen=True, slots=True)
class Demand:
    """A request that runs or wants to: its prompt, the most cells it will hold, and whether it writes an answer.

    Prompts with different adapters have nothing in common.
    """

    prompt: Sequence[int]
    cells: int
    writes: bool = True
    adapter: str = ""


def parts_for(demand: Sequence[Demand], *, cells: int, most: int, present: int) -> int:
    """Into how many parts to split a cache; 1: all share it.

    Args:
        demand: what runs, then what waits, in order.
        cells: of the whole cache.
        most: parts that are possible.
        present: parts that there are now; kept as long as they do.
    """
    if not demand:
        return present
    largest = max(each.cells for each in demand)
    kept = present if cells // present >= largest else 1
    together = _running_together(demand, cells, most)
    foreign = sum(each.cells for each in demand[:together]) - largest
    if len(demand) < 2 or foreign < LEAST_FOREIGN or not any(each.writes for each in demand):
        return kept
    if 2 * sum(_share_most(demand[0], other) for other in demand[1:]) >= len(demand) - 1:
        return kept
    parts = 1
    while parts < min(len(demand), most):
        parts *= 2
    while parts > 1 and (parts > most or cells // parts < largest):
        parts //= 2
    if 2 * parts < together:
        return kept
    return max(parts, kept)


def _running_together(demand: Sequence[Demand], cells: int, most: int) -> int:
    """How many of them a shared cache would run at a time."""
    count = total = 0
    for each in demand[:most]:
        total += each.cells
        if total > cells:
            break
        count += 1
    return count


def _share_most(one: Demand, other: Demand) -> bool:
    length = min(len(one.prompt), len(other.prompt))
    return one.adapter == other.adapter and 2 * shared_chunks(one.prompt, other.prompt, length) >= length
