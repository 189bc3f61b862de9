"""Slots of the KV cache: who holds which tokens, and what of it a new prompt can use again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ondevice_sdk.backends.api import ModelRunner
from ondevice_sdk.engine.saved import GRID, MOSTLY, Saved, SavedStates, reusable, shared_chunks
from ondevice_sdk.errors import GenerationFailed

if TYPE_CHECKING:
    from ondevice_sdk.engine.disk import DiskPrefixes

__all__ = ["GRID", "Slot", "SlotPool", "shared_chunks"]

LEAST_STORED: Final = 256  # tokens; what is read again faster than that is not worth a place on the disk


@dataclass(slots=True, eq=False)
class Slot:
    """A sequence of the runner. An idle slot keeps what its last request left, until it is in anybody's way."""

    index: int
    tokens: list[int] = field(default_factory=list)  # what the cache holds, position by position
    on_grid: int = 0  # leading tokens that were computed alone, in whole chunks of the grid
    adapter: str = ""  # digest of the one that they were computed with
    reserved: int = 0  # cells promised to the request that runs here; 0: the slot is idle
    last_used: int = 0

    @property
    def idle(self) -> bool:
        """Whether no request runs here."""
        return self.reserved == 0

    def match(self, prompt: Sequence[int], *, exact: bool, adapter: str = "") -> int:
        """How many tokens of the prompt lie here already; at least one is left to process."""
        if adapter != self.adapter:
            return 0
        return reusable(self.tokens, prompt, self.on_grid if exact else len(self.tokens), exact=exact)


class SlotPool:
    """Gives slots to requests.

    The KV cache is never promised twice: what running requests reserved stays within the runner's `cache_tokens`, or
    within each one's part of it. What an idle slot holds of a cache that all share would make every pass of the others
    slower, since attention runs over it: it is moved to `SavedStates` as soon as another request runs.

    What was computed with an adapter serves prompts with the same one only; adapters are named by their digests.
    """

    def __init__(self, runner: ModelRunner, count: int, *, saved_bytes: int, disk: DiskPrefixes | None = None) -> None:
        self._runner = runner
        self._slots = [Slot(index) for index in range(count)]
        isolated = runner.isolated_sequence
        self._isolated = None if isolated is None else Slot(isolated)
        self._saves = type(runner).kv_save is not ModelRunner.kv_save
        self._saved = SavedStates(saved_bytes if self._saves else 0)
        self._disk = disk if self._saves else None
        self._clock = 0
        self.parts = 1

    @property
    def capacity(self) -> int:
        """Most cells of one request."""
        return self._runner.cache_tokens // self.parts

    def best(self, prompt: Sequence[int], adapter: str = "") -> int:
        """Tokens of the prompt that need not be computed if it is given a slot now."""
        live = max(slot.match(prompt, exact=False, adapter=adapter) for slot in self._usable())
        return max(live, self._saved.find(prompt, exact=False, adapter=adapter)[0])

    def take(self, prompt: Sequence[int], cells: int, *, exact: bool = False, adapter: str = "") -> Slot | None:
        """A slot for a prompt, with as much of it as is cached; None while there is no slot or no room.

        Args:
            prompt: the tokens.
            cells: most cells that the request will ever hold.
            exact: take only what was computed on the grid, and run apart where the runtime needs that.
            adapter: take only what was computed with it.
        """
        if exact and self._isolated is not None:
            if not self._isolated.idle:
                return None
            self.cut(self._isolated, self._isolated.match(prompt, exact=True, adapter=adapter))
            return self._occupy(self._isolated, cells, adapter)
        idle = [slot for slot in self._usable() if slot.idle]
        if not idle or not self._has_room(cells):
            return None
        matches = {slot.index: slot.match(prompt, exact=exact, adapter=adapter) for slot in self._usable()}
        source = max(self._usable(), key=lambda slot: (matches[slot.index], slot.last_used))
        reused = matches[source.index]
        saved = self._remembered(prompt, reused, exact=exact, adapter=adapter)
        others = [slot for slot in idle if slot is not source]
        if saved is None and source.idle and reused and (not others or 2 * reused >= len(source.tokens)):
            self.cut(source, reused)  # little is lost with what followed
            return self._occupy(source, cells, adapter)
        target = _least_useful(others or idle)
        on_grid = min(source.on_grid, reused)
        self._save(target)
        self.cut(target, 0)
        self._occupy(target, cells, adapter)
        if saved is not None:
            self.settle()  # first, for its room
            self._restore(target, saved, prompt, exact=exact)
            return target
        if reused:
            self._runner.kv_copy(source.index, target.index, 0, reused)
            target.tokens = source.tokens[:reused]
            target.on_grid = on_grid
        self.settle()
        return target

    def take_spare(self, source: Slot, length: int, cells: int) -> Slot | None:
        """An idle slot that begins with the first `length` tokens of `source`; None if there is none, or no room.

        Where every slot has a part of its own there is never one: all of the part would have to be copied.
        """
        idle = [slot for slot in self._usable() if slot.idle]
        if self.parts > 1 or not idle or not self._has_room(cells):
            return None
        target = _least_useful(idle)
        self._save(target)
        self.cut(target, 0)
        self._runner.kv_copy(source.index, target.index, 0, length)
        target.tokens = source.tokens[:length]
        self._occupy(target, cells, source.adapter)
        self.settle()
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

    def settle(self) -> None:
        """Move what idle slots hold out of the cache that running requests share.

        A runner that cannot save its states keeps them, until the room is promised to somebody.
        """
        if self.parts > 1 or all(slot.idle for slot in self._slots):
            return
        kept = sorted((slot for slot in self._slots if slot.idle and slot.tokens), key=lambda slot: slot.last_used)
        held = sum(len(slot.tokens) for slot in kept)
        room = self._runner.cache_tokens - self._promised()
        for slot in kept:
            if not self._saves and held <= room:
                break
            held -= len(slot.tokens)
            self._save(slot)
            self.cut(slot, 0)

    def can_arrange(self, parts: int) -> bool:
        """Whether all requests that run would have room in so many parts."""
        running = [slot for slot in self._slots if not slot.idle]
        if not self._saves:
            return False
        if parts == 1:
            return self._promised() <= self._runner.cache_tokens
        return len(running) <= parts and all(slot.reserved <= self._runner.cache_tokens // parts for slot in running)

    def arrange(self, parts: int) -> None:
        """Split the cache anew, keeping what it holds.

        Raises:
            GenerationFailed: there was no memory for it; all share the cache, which is empty: what ran is lost.
        """
        running = [slot for slot in self._slots if not slot.idle]
        try:
            states = [self._runner.kv_save(slot.index) if slot.tokens else b"" for slot in running]
        except GenerationFailed:
            return  # everything stays where it is
        for slot in self._usable():
            if slot.idle:
                self._save(slot)
        rest = [slot for slot in self._slots if slot.idle]
        self._slots = [*running, *rest]
        for index, slot in enumerate(self._slots):
            slot.index = index
        for slot in rest:
            slot.tokens, slot.on_grid = [], 0
        self.parts = 1
        try:
            self._runner.arrange(parts)
            self.parts = parts
            for slot, state in zip(running, states, strict=True):
                if state:
                    self._runner.kv_load(slot.index, state)
        except GenerationFailed:
            if self.parts > 1:
                self._runner.arrange(1)
            self.parts = 1
            for slot in self._slots:
                self.cut(slot, 0)
            raise

    def store(self) -> None:
        """Put on the disk what the cache and the memory hold, if there is a disk. May take some 100 ms."""
        if self._disk is None:
            return
        for slot in self._usable():
            if slot.idle:
                self._save(slot)
        for entry in self._saved:
            length = len(entry.tokens)
            if length >= LEAST_STORED and self._disk.find(entry.tokens, entry.adapter) < MOSTLY * length:
                self._disk.put(entry.tokens, entry.state, entry.adapter)

    def forget(self) -> None:
        """Drop what is kept of requests that are over."""
        for slot in [*self._usable(), *([] if self._isolated is None else [self._isolated])]:
            if slot.idle:
                self.cut(slot, 0)
        self._saved.clear()
        if self._disk is not None:
            self._disk.clear()

    def _usable(self) -> list[Slot]:
        return self._slots if self.parts == 1 else self._slots[: self.parts]

    def _remembered(self, prompt: Sequence[int], reused: int, *, exact: bool, adapter: str) -> Saved | None:
        """A state that is not in the cache and gives more of the prompt than `reused`; it fits into the cache."""
        length, saved = self._saved.find(prompt, exact=exact, adapter=adapter)
        if self._disk is not None and not exact and self._disk.find(prompt, adapter) > max(length, reused):
            loaded = self._disk.load(prompt, adapter)
            if loaded is not None:
                saved = Saved(*loaded, adapter=adapter)
                length = reusable(saved.tokens, prompt, len(saved.tokens), exact=False)
                self._saved.put(saved)
        if saved is None or length <= reused:
            return None
        room = self.capacity - (self._promised() if self.parts == 1 else 0)
        return saved if len(saved.tokens) <= room else None

    def _restore(self, target: Slot, saved: Saved, prompt: Sequence[int], *, exact: bool) -> None:
        try:
            self._runner.kv_load(target.index, saved.state)
        except GenerationFailed:
            self._saved.forget(saved)
            self.cut(target, 0)
            return
        self._saved.touch(saved)
        target.tokens, target.on_grid = list(saved.tokens), saved.on_grid
        self.cut(target, target.match(prompt, exact=exact, adapter=saved.adapter))

    def _save(self, slot: Slot) -> None:
        """Remember what a slot holds before it is lost."""
        if len(slot.tokens) >= GRID and self._saved.budget and not self._saved.knows(slot.tokens, slot.adapter):
            state = self._runner.kv_save(slot.index)
            self._saved.put(Saved(list(slot.tokens), state, slot.on_grid, slot.adapter))

    def _has_room(self, cells: int) -> bool:
        if self.parts > 1:
            return cells <= self.capacity
        return self._promised() + cells <= self._runner.cache_tokens

    def _occupy(self, slot: Slot, cells: int, adapter: str) -> Slot:
        slot.reserved, slot.adapter = cells, adapter
        self._touch(slot)
        return slot

    def _touch(self, slot: Slot) -> None:
        self._clock += 1
        slot.last_used = self._clock

    def _promised(self) -> int:
        return sum(slot.reserved for slot in self._slots)


def _least_useful(slots: list[Slot]) -> Slot:
    """An empty slot, else the one unused for longest."""
    return min(slots, key=lambda slot: (bool(slot.tokens), slot.last_used))
