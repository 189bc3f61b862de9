"""A request while it runs: what it puts into the next forward pass, and what it makes of the logits."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ondevice_sdk.backends.api import Batch, Event, PromptProgress, Usage
from ondevice_sdk.engine.prefix import GRID, Slot, SlotPool

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(slots=True)
class Room:
    """What is left of a forward pass."""

    rows: int  # of the batch
    prefill: int  # tokens that are not an answer's next one
    logits: int


class Sequence(ABC):
    """A request with a prompt. It waits until it has a slot, then processes its prompt, then does its own work."""

    def __init__(
        self,
        request_id: str,
        prompt: list[int],
        cells: int,
        order: tuple[int, int],
        *,
        exact: bool,
        adapter: str = "",
    ) -> None:
        self.request_id = request_id
        self.prompt = prompt
        self.cells = cells  # most cells that it will ever hold
        self.order = order  # smaller goes first
        self.exact = exact  # on the grid, sharing no forward pass
        self.adapter = adapter  # digest of the one that it runs with; empty: none
        self.watched = False  # whether somebody reads the answer while it is written
        self.slot: Slot | None = None
        self.placed = 0.0  # when it got the slot
        self.cached = 0
        self.prefill_s = 0.0
        self.decode_s = 0.0
        self.finished = False
        self._planned: list[int] = []

    @property
    def prefilling(self) -> bool:
        """Whether prompt tokens are still to be processed."""
        return self.slot is not None and len(self.slot.tokens) < len(self.prompt)

    def place(self, slot: Slot) -> None:
        """Start in a slot that holds the beginning of the prompt."""
        self.slot = slot
        self.placed = time.monotonic()
        self.cached = len(slot.tokens)

    def plan(self, batch: Batch, room: Room) -> None:
        """Add rows to the batch."""
        assert self.slot is not None
        if not self.prefilling:
            self.plan_work(batch, room)
            return
        start = len(self.slot.tokens)
        left = len(self.prompt) - start
        count = min(left, GRID) if self.exact else min(left, room.rows, room.prefill)
        if count == left and room.logits < 1:
            count -= 1
        self._planned = self.prompt[start : start + count]
        for offset, token in enumerate(self._planned):
            batch.add(self.slot.index, start + offset, token, count == left and offset == count - 1)
        room.rows -= count
        room.prefill -= count
        room.logits -= count == left

    def advance(self, logits: NDArray[np.float32], seconds: float) -> list[Event]:
        """Take the logits of the rows that were planned."""
        slot = self.slot
        assert slot is not None
        if not self.prefilling:
            self.decode_s += seconds
            return self.work(logits)
        self.prefill_s += seconds
        whole = len(slot.tokens) % GRID == 0 and len(self._planned) == GRID
        slot.tokens += self._planned
        if self.exact and whole:
            slot.on_grid = len(slot.tokens)
        self._planned = []
        events: list[Event] = [PromptProgress(self.request_id, len(slot.tokens), len(self.prompt))]
        if not self.prefilling:
            events += self.begin(logits)
        return events

    def usage(self, completion_tokens: int = 0) -> Usage:
        """Tokens and seconds so far."""
        return Usage(len(self.prompt), completion_tokens, self.cached, self.prefill_s, self.decode_s)

    def release(self, pool: SlotPool) -> None:
        """Give the slots back."""
        if self.slot is not None:
            pool.release(self.slot)
            self.slot = None

    def slots(self) -> list[Slot]:
        """All slots that it holds."""
        return [] if self.slot is None else [self.slot]

    @abstractmethod
    def begin(self, logits: NDArray[np.float32]) -> list[Event]:
        """The prompt is done; these are the logits after it."""

    @abstractmethod
    def plan_work(self, batch: Batch, room: Room) -> None:
        """Add rows after the prompt."""

    @abstractmethod
    def work(self, logits: NDArray[np.float32]) -> list[Event]:
        """Take the logits of the rows of `plan_work`."""

    @abstractmethod
    def cancel(self) -> list[Event]:
        """End early."""
