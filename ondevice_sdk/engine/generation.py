"""A request that writes: its answer token by token, and the text that may be shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ondevice_sdk.backends.api import Batch, Done, Event, Generate, Generated, ModelRunner, TextDelta
from ondevice_sdk.engine.closing import Budget
from ondevice_sdk.engine.lookup import Drafter, PassCosts
from ondevice_sdk.engine.prefix import SlotPool
from ondevice_sdk.engine.sequence import Room, Sequence
from ondevice_sdk.engine.stop import StopMatcher, TextDecoder
from ondevice_sdk.errors import GenerationFailed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ondevice_sdk.engine.grammar import Constraint
    from ondevice_sdk.engine.sampling import Sampler


class Generation(Sequence):
    """Writes tokens: what the sampler chooses, and what a constraint leaves no choice about.

    What is held to a constraint is complete when its tokens run out: the last of them are those that complete it.

    Its rows of a pass are the tokens that are decided but not processed yet, and then a draft of what may follow. The
    draft stays in the cache as far as it is what the sampler chooses, token by token, as it would have without.
    """

    def __init__(
        self,
        request_id: str,
        request: Generate,
        prompt: list[int],
        order: tuple[int, int],
        *,
        runner: ModelRunner,
        pool: SlotPool,
        context_tokens: int,
        sampler: Sampler,
        constraint: Constraint | None,
        costs: PassCosts | None,
        adapter: str = "",
    ) -> None:
        """Make ready.

        Raises:
            OutputInvalid: no value of the constraint fits into so few tokens.
        """
        self._limit = min(request.max_tokens, context_tokens - len(prompt))
        cells = len(prompt) + self._limit
        super().__init__(request_id, prompt, cells, order, exact=request.deterministic, adapter=adapter)
        self._runner = runner
        self._pool = pool
        self._sampler = sampler
        self._constraint = constraint
        self._budget = None if constraint is None else Budget(constraint, self._limit)
        # What a draft changes in the last bits of logits depends on what the engine measured, and a draw by a seed is
        # to be the same again. Where the largest logit is taken, no bit decides.
        repeatable = request.deterministic or (request.sampling.seed is not None and not sampler.greedy)
        self._drafter = None if costs is None or repeatable else Drafter(costs)
        self.watched = request.stream
        self._end_tokens = runner.end_tokens
        self._masked = sorted(runner.end_tokens) if request.ignore_eos else []
        self._decoder = TextDecoder()
        self._stop = StopMatcher(request.stop)
        self._text: list[str] = []
        self._count = 0
        self._pending: list[int] = []  # decided, and not in the cache yet; never empty between passes
        self._draft: list[int] = []
        self._batch = Batch()

    def begin(self, logits: NDArray[np.float32]) -> list[Event]:
        """Choose the first tokens."""
        events: list[Event] = []
        self._pending = self._write(self._forced(), events)
        if not self._pending:
            self._pending = self._choose(logits[0], events)
        return events

    def plan_work(self, batch: Batch, room: Room) -> None:
        """Rows of what is decided; logits of the last one, and of the draft after it."""
        assert self.slot is not None
        count = min(len(self._pending), room.rows)
        if count == len(self._pending) and room.logits < 1:
            count -= 1
        last = count == len(self._pending)
        self._draft = []
        if last:
            self._draft = self._look_up(room)
        elif self._drafter is not None:
            self._drafter.start(count, 0)
        self._planned = self._pending[:count] + self._draft
        self._batch = batch
        start = len(self.slot.tokens)
        for offset, token in enumerate(self._planned):
            batch.add(self.slot.index, start + offset, token, last and offset >= count - 1)
        room.rows -= len(self._planned)
        room.logits -= last + len(self._draft)

    def advance(self, logits: NDArray[np.float32], seconds: float) -> list[Event]:
        """See `Sequence.advance`."""
        working = not self.prefilling
        events = super().advance(logits, seconds)
        if working and self._drafter is not None:
            self._drafter.learn(self._batch, seconds, len(self._draft))
        return events

    def work(self, logits: NDArray[np.float32]) -> list[Event]:
        """Choose the next tokens, as many as the draft foresaw and one more."""
        assert self.slot is not None
        slot, draft = self.slot, self._draft
        slot.tokens += self._planned
        del self._pending[: len(self._planned)]
        events: list[Event] = []
        right = 0
        while len(logits) and not self._pending and not self.finished:
            for token in self._choose(logits[right], events):
                if not self._pending and right < len(draft) and token == draft[right]:
                    right += 1
                else:
                    self._pending.append(token)
        self._pool.cut(slot, len(slot.tokens) - len(draft) + right)
        self._draft = draft[:right]
        return events

    def cancel(self) -> list[Event]:
        """End with what there is."""
        return self._finish("cancelled")

    def _look_up(self, room: Room) -> list[int]:
        """What may follow, without what would be thrown away in any case."""
        if self._drafter is None or self.slot is None:
            return []
        count = len(self._pending)
        others = self._drafter.others
        # One row less than tokens may follow: the logits after a draft give one more.
        most = min(self._limit - self._count - 1, room.rows - count - others, room.logits - 1 - others)
        draft = self._drafter.draft(self.slot.tokens, self._pending, most)
        end = next((index for index, token in enumerate(draft) if token in self._end_tokens), len(draft))
        draft = draft[:end]
        if draft and self._constraint is not None:
            draft = draft[: self._constraint.fitting(draft)]
        self._drafter.start(count, len(draft))
        return draft

    def _choose(self, logits: NDArray[np.float32], events: list[Event]) -> list[int]:
        """The next token, and those that have to follow it; nothing at the end."""
        token = self._pick(logits)
        if token is None or (token in self._end_tokens and not self._masked):
            events += self._finish("stop")
            return []
        if self._budget is not None and (token := self._budget.steer(token, self._count)) is None:
            events += self._finish("stop")
            return []
        written = self._write([token], events)
        return written if self.finished else written + self._write(self._forced(), events)

    def _pick(self, logits: NDArray[np.float32]) -> int | None:
        """The sampler's choice; None if the constraint allows nothing more.

        Raises:
            GenerationFailed: it does, and what was written is not complete.
        """
        sampler, constraint = self._sampler, self._constraint
        if self._masked:
            logits[self._masked] = float("-inf")
        sampler.penalise(logits)
        if constraint is not None:
            # The largest of all logits, if it is allowed, is the largest of those allowed.
            if sampler.greedy and constraint.allows(token := sampler.draw(logits)):
                return token
            possible = constraint.mask(logits)
            while possible:
                if constraint.keeps(token := sampler.draw(logits)):
                    return token
                logits[token] = float("-inf")
                possible = bool(logits.max() > float("-inf"))
            if not constraint.completes([]):
                raise GenerationFailed("nothing may follow what was written under its constraint")
            return None
        return sampler.draw(logits)

    def _forced(self) -> list[int]:
        if self._constraint is None or self._budget is None:
            return []
        return self._budget.forced(self._constraint.forced())

    def _write(self, tokens: list[int], events: list[Event]) -> list[int]:
        """Add tokens to the answer; gives those up to its end."""
        for index, token in enumerate(tokens, 1):
            self._count += 1
            self._sampler.accept(token)
            events += self._emit(self._stop.feed(self._decoder.feed(self._runner.token_bytes(token))))
            if self._constraint is not None:
                self._constraint.accept(token)
            if self._stop.stopped or (self._constraint is not None and self._constraint.finished):
                events += self._finish("stop")
            elif self._count >= self._limit:
                events += self._finish("length")
            if self.finished:
                return tokens[:index]
        return tokens

    def _emit(self, text: str) -> list[Event]:
        if not text:
            return []
        self._text.append(text)
        return [TextDelta(self.request_id, text)] if self.watched else []

    def _finish(self, reason: Literal["stop", "length", "cancelled"]) -> list[Event]:
        self.finished = True
        if reason == "stop" and self._budget is not None and self._budget.closed:
            reason = "length"
        events = self._emit(self._stop.feed(self._decoder.finish()) + self._stop.finish())
        result = Generated("".join(self._text), reason, self.usage(self._count))
        return [*events, Done(self.request_id, result)]
