"""Log-probabilities of given continuations, exactly as the model gives them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from ondevice_openvino.jobs import Job, Run
from ondevice_openvino.ledger import BLOCK
from ondevice_openvino.pipeline import Output, Pipeline
from ondevice_sdk.backends.api import Done, ErrorInfo, Event, Failed, PromptProgress, Scored, Usage
from ondevice_sdk.errors import GenerationFailed

_MOST_KNOWN: Final = 8192  # tokens; as many as a cache has by default


@dataclass(slots=True)
class _Continuation:
    """One, all of it or (`at`) one token; `heard` is what the pipeline has said of its tokens."""

    index: int
    at: int | None = None
    heard: list[float] = field(default_factory=list)


class Known:
    """Log-probabilities that were found: of the last token of a continuation."""

    def __init__(self) -> None:
        self._values: OrderedDict[int, float] = OrderedDict()

    def get(self, prompt: list[int], continuation: list[int]) -> float | None:
        """What was found; None if nothing was, or too long ago."""
        return self._values.get(hash((*prompt, *continuation)))

    def put(self, prompt: list[int], continuation: list[int], logprob: float) -> None:
        """Remember one; it does not matter where the prompt ends and the continuation begins."""
        key = hash((*prompt, *continuation))
        self._values[key] = logprob
        self._values.move_to_end(key)
        if len(self._values) > _MOST_KNOWN:
            self._values.popitem(last=False)

    def clear(self) -> None:
        """Forget all."""
        self._values.clear()


class Scoring(Job):
    """Reads the prompt, but for its last, begun block, so that the continuations share it; then each of them behind it.

    The pipeline gives the log-probability of each token that it computes. What its prefix cache had of a continuation
    already is missing there. Mostly that was scored before, and is remembered. Else the pipeline is made to write these
    tokens, by leaving it no other (0.3 s each), and tells how likely they were among all.
    """

    def __init__(
        self,
        request_id: str,
        prompt: list[int],
        continuations: Sequence[list[int]],
        order: tuple[int, int],
        *,
        rows: int,
        pipeline: Pipeline,
        known: Known,
    ) -> None:
        """Make ready; `rows` is how many logits the model gives."""
        super().__init__(request_id, prompt, order)
        self._continuations = continuations
        self._rows = rows
        self._known = known
        self._logprobs = [[0.0] * len(tokens) for tokens in continuations]
        self._left = 0  # runs that are still to end
        self.move(pipeline)

    def move(self, pipeline: Pipeline) -> bool:
        """See `Job.move`: it begins again."""
        self._pipeline = pipeline
        self.pending.clear()
        self.running.clear()
        self._left = 0
        whole = (len(self.prompt) - 1) // BLOCK * BLOCK
        if whole:
            self.pending.append(Run(self.prompt[:whole], whole + 1, pipeline.reading()))
        else:
            self._read_continuations()
        return True

    def progress(self, run: Run) -> list[Event]:
        """See `Job.progress`."""
        if run.part is not None:
            return []
        done = run.read if run.reading else len(self.prompt)
        return [PromptProgress(self.request_id, done, len(self.prompt))]

    def take(self, run: Run, output: Output) -> list[Event]:
        """See `Job.take`."""
        part: _Continuation | None = run.part
        if part is None:
            if output.ended:
                self._read_continuations()
            return []
        part.heard += output.logprobs
        if not output.ended:
            return []
        self._left -= 1
        if part.at is None:
            self._take_all(part)
        elif output.tokens != [self._continuations[part.index][part.at]]:
            raise GenerationFailed("the model gave logits that are not numbers")
        else:
            self._logprobs[part.index][part.at] = part.heard[0]
        return [] if self._left else self._finish()

    def cancel(self) -> list[Event]:
        """See `Job.cancel`."""
        self.finished = True
        return [Failed(self.request_id, ErrorInfo("cancelled", "the request was cancelled"))]

    def _read_continuations(self) -> None:
        for index, tokens in enumerate(self._continuations):
            self._ask(self.prompt + tokens, self._pipeline.scoring(), _Continuation(index))

    def _ask(self, tokens: list[int], config: object, part: _Continuation) -> None:
        self.pending.append(Run(tokens, len(tokens) + 1, config, part))
        self._left += 1

    def _take_all(self, part: _Continuation) -> None:
        """What was heard ends with a token that was written after the continuation."""
        tokens, heard = self._continuations[part.index], part.heard[:-1]
        missing = max(0, len(tokens) - len(heard))
        self._logprobs[part.index][missing:] = heard[len(heard) - len(tokens) + missing :]
        for at in range(missing):
            logprob = self._known.get(self.prompt, tokens[: at + 1])
            if logprob is not None:
                self._logprobs[part.index][at] = logprob
                continue
            others = set(range(self._rows)) - {tokens[at]}
            config = self._pipeline.forcing(others)
            self._ask(self.prompt + tokens[:at], config, _Continuation(part.index, at))

    def _finish(self) -> list[Event]:
        self.finished = True
        for tokens, logprobs in zip(self._continuations, self._logprobs, strict=True):
            for at, logprob in enumerate(logprobs):
                self._known.put(self.prompt, tokens[: at + 1], logprob)
        counts = tuple(map(len, self._continuations))
        usage = Usage(len(self.prompt) + sum(counts), 0, self.cached or 0, self.prefill_s, self.decode_s)
        return [Done(self.request_id, Scored(tuple(map(sum, self._logprobs)), counts, usage))]
