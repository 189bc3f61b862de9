"""A request that writes: its answer token by token, and the text that may be shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ondevice_sdk.backends.api import Batch, Done, Event, Generate, Generated, ModelRunner, TextDelta
from ondevice_sdk.engine.sequence import Room, Sequence
from ondevice_sdk.engine.stop import StopMatcher, TextDecoder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ondevice_sdk.engine.grammar import Constraint
    from ondevice_sdk.engine.sampling import Sampler


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
