"""Log-probabilities of given continuations after a prompt that is processed once."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ondevice_sdk.backends.api import Batch, Done, ErrorInfo, Event, Failed, Scored, Segment, Usage
from ondevice_sdk.engine.prefix import Slot, SlotPool
from ondevice_sdk.engine.prompts import Tokeniser
from ondevice_sdk.engine.sampling import log_sum_exp
from ondevice_sdk.engine.sequence import Room, Sequence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def continuation_tokens(
    runner: Tokeniser, segments: SequenceOf[Segment], begin: list[int], prompt: list[int], text: str
) -> list[int]:
    """Tokens of a continuation as they would follow the prompt, which is `begin` and the tokens of the segments.

    They are what the tokenisation of both together adds to the prompt's. Where a token would span the border, the
    continuation is tokenised alone, since the prompt is already there as it is.
    """
    joined = begin + runner.tokenize([*segments, Segment(text)])
    if joined[: len(prompt)] == prompt and len(joined) > len(prompt):
        return joined[len(prompt) :]
    return runner.tokenize([Segment(text)])


@dataclass(slots=True)
class _Branch:
    """A continuation in work; its first token is scored by the logits after the prompt."""

    index: int
    slot: Slot
    position: int = 0  # tokens of the continuation that are in the slot
    planned: int = 0


class Scoring(Sequence):
    """Scores continuations side by side in spare slots, or one after another."""

    def __init__(
        self,
        request_id: str,
        prompt: list[int],
        continuations: list[list[int]],
        order: tuple[int, int],
        *,
        pool: SlotPool,
        adapter: str = "",
    ) -> None:
        self._extra = max(len(tokens) for tokens in continuations)
        super().__init__(request_id, prompt, len(prompt) + self._extra, order, exact=False, adapter=adapter)
        self._continuations = continuations
        self._pool = pool
        self._logprobs = [0.0] * len(continuations)
        # The last token of a continuation is scored by the one before it and never processed itself.
        self._waiting = deque(index for index, tokens in enumerate(continuations) if len(tokens) > 1)
        self._branches: list[_Branch] = []

    def begin(self, logits: NDArray[np.float32]) -> list[Event]:
        """Score all first tokens."""
        total = log_sum_exp(logits[0])
        for index, tokens in enumerate(self._continuations):
            self._logprobs[index] = float(logits[0, tokens[0]]) - total
        return self._finish_if_done()

    def plan_work(self, batch: Batch, room: Room) -> None:
        """Rows of as many continuations as fit."""
        self._open_branches()
        for branch in self._branches:
            tokens = self._continuations[branch.index]
            count = min(len(tokens) - 1 - branch.position, room.rows, room.prefill, room.logits)
            branch.planned = max(count, 0)
            for offset in range(branch.planned):
                at = branch.position + offset
                batch.add(branch.slot.index, len(self.prompt) + at, tokens[at], True)
            room.rows -= branch.planned
            room.prefill -= branch.planned
            room.logits -= branch.planned

    def work(self, logits: NDArray[np.float32]) -> list[Event]:
        """Add the log-probability of the token after each row."""
        row = 0
        for branch in list(self._branches):
            tokens = self._continuations[branch.index]
            for _ in range(branch.planned):
                branch.slot.tokens.append(tokens[branch.position])
                branch.position += 1
                total = log_sum_exp(logits[row])
                self._logprobs[branch.index] += float(logits[row, tokens[branch.position]]) - total
                row += 1
            if branch.position == len(tokens) - 1:
                self._close_branch(branch)
        return self._finish_if_done()

    def release(self, pool: SlotPool) -> None:
        """Give all slots back."""
        for branch in list(self._branches):
            self._close_branch(branch)
        super().release(pool)

    def slots(self) -> list[Slot]:
        """All slots that it holds."""
        return [*super().slots(), *(branch.slot for branch in self._branches if branch.slot is not self.slot)]

    def cancel(self) -> list[Event]:
        """A score has no partial result."""
        self.finished = True
        return [Failed(self.request_id, ErrorInfo("cancelled", "the request was cancelled"))]

    def usage(self, completion_tokens: int = 0) -> Usage:
        """The continuations count as prompt: they are given, not written."""
        given = sum(len(tokens) for tokens in self._continuations)
        return Usage(len(self.prompt) + given, completion_tokens, self.cached, self.prefill_s, self.decode_s)

    def _open_branches(self) -> None:
        assert self.slot is not None
        while self._waiting:
            if all(branch.slot is not self.slot for branch in self._branches):
                slot: Slot | None = self.slot
            else:
                slot = self._pool.take_spare(self.slot, len(self.prompt), self._extra)
            if slot is None:
                break
            self._branches.append(_Branch(self._waiting.popleft(), slot))

    def _close_branch(self, branch: _Branch) -> None:
        self._branches.remove(branch)
        if branch.slot is self.slot:
            self._pool.cut(branch.slot, len(self.prompt))
        else:
            self._pool.cut(branch.slot, 0)
            self._pool.release(branch.slot)

    def _finish_if_done(self) -> list[Event]:
        if self._waiting or self._branches:
            return []
        self.finished = True
        counts = tuple(len(tokens) for tokens in self._continuations)
        return [Done(self.request_id, Scored(tuple(self._logprobs), counts, self.usage()))]
