"""Slots of the KV cache: who holds which tokens, and what of it a new prompt can use again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ondevice_sdk.backends.api import ModelRunner

GRID = 64  # tokens; prefixes are reused in whole multiples, and deterministic prompts are computed in such chunks
IDLE_TOKENS = 1024  # most that idle slots keep besides the newest: attention runs over what lies in a shared cache


@dataclass(slots=True, eq=False)
class Slot:
    """A sequence of the runner. An idle slot keeps what its last request left, until the room is needed."""

    index: int
    tokens: list[int] = field(default_factory=list)  # what the cache holds, position by position
    on_grid: int = 0  # leading tokens that were computed alone, in whole chunks of the grid
    reserved: int = 0  # cells promised to the request that runs here; 0: the slot is idle
    last_used: int = 0

    @property
    def idle(self) -> bool:
        """Whether no request runs here."""
        return self.reserved == 0

    def match(self, prompt: Sequence[int], *, exact: bool) -> int:
        """How many tokens of the prompt lie here already: whole chunks, and at least one token is left to process."""
        limit = min(len(prompt) - 1, len(self.tokens))
        if exact:
            limit = min(limit, self.on_grid)
        return shared_chunks(self.tokens, prompt, limit)


def shared_chunks(one: Sequence[int], other: Sequence[int], limit: int) -> int:
    """Length of the common beginning in whole chunks of the grid, at most `limit` tokens."""
    length = 0
    while length + GRID <= limit and one[length : length + GRID] == other[length : length + GRID]:
        length += GRID
    return length


class SlotPool:
    """Gives slots to requests.

    The shared cache is never promised twice: the sum of what running requests reserved and idle slots hold stays within
    the runner's `cache_tokens`.
    """

    def __init__(self, runner: ModelRunner, count: int) -> None:
        self._runner = runner
        self._slots = [Slot(index) for index in range(count)]
        isolated = runner.isolated_sequence
        self._isolated = None if isolated is None else Slot(isolated)
        self._clock = 0

    def best(self, prompt: Sequence[int], *, exact: bool = False) -> int:
        """Tokens of the prompt that could be taken from a slot now."""
        return max(slot.match(prompt, exact=exact) for slot in self._slots)

    def take(self, prompt: Sequence[int], cells: int, *, exact: bool = False) -> Slot | None:
        """A slot for a prompt, with as much of it as is cached; None while there is no slot or no room.

        Args:
            prompt: the tokens.
            cells: most cells that the request will ever hold.
            exact: take only what was computed on the grid, and run apart where the runtime needs that.
        """
        if exact and self._isolated is not None:
            if not self._isolated.idle:
                return None
            self.cut(self._isolated, self._isolated.match(prompt, exact=True))
            return self._occupy(self._isolated, cells)
        idle = [slot for slot in self._slots if slot.idle]
        if not idle or self._promised() + cells > self._runner.cache_tokens:
            return None
        source = max(self._slots, key=lambda slot: (slot.match(prompt, exact=exact), slot.last_used))
        reused = source.match(prompt, exact=exact)
        others = [slot for slot in idle if slot is not source]
        if source.idle and reused and (not others or 2 * reused >= len(source.tokens)):
            self.cut(source, reused)  # little is lost with what followed
            target = source
        else:
            target = _least_useful(others or idle)
            on_grid = min(source.on_grid, reused)
            self.cut(target, 0)
            if reused:
                self._runner.kv_copy(source.index, target.index, 0, reused)
                target.tokens = source.tokens[:reused]
                target.on_grid = on_grid
        self._occupy(target, cells)
        self._make_room(keep=source)
        return target

    def take_spare(self, source: Slot, length: int, cells: int) -> Slot | None:
        """An idle slot that begins with the first `length` tokens of `source`; None if there is none, or no room."""
        idle = [slot for slot in self._slots if slot.idle]
        if not idle or self._promised() + cells > self._runner.cache_tokens:
            return None
        target = _least_useful(idle)
        self.cut(target, 0)
        self._runner.kv_copy(source.index, target.index, 0, length)
        target.tokens = source.tokens[:length]
        self._occupy(target, cells)
        self._make_room(keep=source)
        return target

    def release(self, slot: Slot) -> None:
        """The request is finished; its tokens stay for the next one."""
        slot.reserved = 0
        self._touch(slot)

    def cut(self, slot: Slot, length: int) -> None:
        """Forget all but the first `length` tokens of a slot."""
        if len(slot.tokens) > length or length == 0:
            self._runner.kv_remove(slot.index, length, None)
        del slot.tokens[length:]
        slot.on_grid = min(slot.on_grid, length)

    def _occupy(self, slot: Slot, cells: int) -> Slot:
        slot.reserved = cells
        self._touch(slot)
        return slot

    def _touch(self, slot: Slot) -> None:
        self._clock += 1
        slot.last_used = self._clock

    def _promised(self) -> int:
        return sum(slot.reserved for slot in self._slots)

    def _make_room(self, keep: Slot) -> None:
        """Empty idle slots, the longest unused first and `keep` last.

        Until all that is promised fits, and they hold little besides the newest, which is the likeliest to be used
        again: what they hold makes every pass of the others slower.
        """
        kept = [slot for slot in self._slots if slot.idle and slot.tokens]
        kept.sort(key=lambda slot: (slot is keep, slot.last_used))
        idle = sum(len(slot.tokens) for slot in kept)
        room = self._runner.cache_tokens - self._promised()
        for number, slot in enumerate(kept, 1):
            newest = number == len(kept)
            if idle <= room and (newest or idle - len(kept[-1].tokens) <= IDLE_TOKENS):
                break
            idle -= len(slot.tokens)
            self.cut(slot, 0)


def _least_useful(slots: list[Slot]) -> Slot:
    """An empty slot, else the one unused for longest."""
    return min(slots, key=lambda slot: (bool(slot.tokens), slot.last_used))
