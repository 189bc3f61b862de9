"""A request while it runs: what it puts into the next forward pass, and what it makes of the logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ondevice_sdk.backends.api import (
    Batch,
    Done,
    Event,
    Generate,
    Generated,
    ModelRunner,
    PromptProgress,
    TextDelta,
    Usage,
)
from ondevice_sdk.engine.prefix import GRID, Slot, SlotPool
from ondevice_sdk.engine.stop import StopMatcher, TextDecoder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ondevice_sdk.engine.grammar import Constraint
    from ondevice_sdk.engine.sampling import Sampler


@dataclass(slots=True)
class Room:
    """What is left of a forward pass."""

    rows: int  # of the batch
    prefill: int  # tokens that are not an answer's next one
    logits: int


class Sequence(ABC):
    """A request with a prompt. It waits until it has a slot, then processes its prompt, then does its own work."""

    def __init__(self, request_id: str, prompt: list[int], cells: int, order: tuple[int, int], *, exact: bool) -> None:
        self.request_id = request_id
        self.prompt = prompt
        self.cells = cells  # most cells that it will ever hold
        self.order = order  # smaller goes first
        self.exact = exact  # on the grid, sharing no forward pass
        self.slot: Slot | None = None
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


class Generation(Sequence):
    """Writes tokens one by one."""

    def __init__(
        self,
        request_id: str,
        request: Generate,
        prompt: list[int],
        order: tuple[int, int],
        *,
        runner: ModelRunner,
        context_tokens: int,
        sampler: Sampler,
        constraint: Constraint | None,
    ) -> None:
        self._limit = min(request.max_tokens, context_tokens - len(prompt))
        super().__init__(request_id, prompt, len(prompt) + self._limit, order, exact=request.deterministic)
        self._runner = runner
        self._sampler = sampler
        self._constraint = constraint
        self._stream = request.stream
        self._end_tokens = runner.end_tokens
        self._masked = sorted(runner.end_tokens) if request.ignore_eos else []
        self._decoder = TextDecoder()
        self._stop = StopMatcher(request.stop)
        self._text: list[str] = []
        self._count = 0
        self._next = -1

    def begin(self, logits: NDArray[np.float32]) -> list[Event]:
        """Choose the first token."""
        return self._choose(logits[0])

    def plan_work(self, batch: Batch, room: Room) -> None:
        """One row: the token chosen last."""
        assert self.slot is not None
        batch.add(self.slot.index, len(self.slot.tokens), self._next, True)
        room.rows -= 1
        room.logits -= 1

    def work(self, logits: NDArray[np.float32]) -> list[Event]:
        """Choose the next token."""
        assert self.slot is not None
        self.slot.tokens.append(self._next)
        return self._choose(logits[0])

    def cancel(self) -> list[Event]:
        """End with what there is."""
        return self._finish("cancelled")

    def _choose(self, logits: NDArray[np.float32]) -> list[Event]:
        if self._masked:
            logits[self._masked] = float("-inf")
        constraint = self._constraint
        if constraint is not None and not constraint.mask(logits):
            return self._finish("stop")
        token = self._sampler.pick(logits)
        if token in self._end_tokens and not self._masked:
            return self._finish("stop")
        self._next = token
        self._count += 1
        self._sampler.accept(token)
        events = self._emit(self._stop.feed(self._decoder.feed(self._runner.token_bytes(token))))
        if constraint is not None:
            constraint.accept(token)
        if self._stop.stopped or (constraint is not None and constraint.finished):
            return events + self._finish("stop")
        if self._count >= self._limit:
            return events + self._finish("length")
        return events

    def _emit(self, text: str) -> list[Event]:
        if not text:
            return []
        self._text.append(text)
        return [TextDelta(self.request_id, text)] if self._stream else []

    def _finish(self, reason: Literal["stop", "length", "cancelled"]) -> list[Event]:
        self.finished = True
        events = self._emit(self._stop.feed(self._decoder.finish()) + self._stop.finish())
        result = Generated("".join(self._text), reason, self.usage(self._count))
        return [*events, Done(self.request_id, result)]
