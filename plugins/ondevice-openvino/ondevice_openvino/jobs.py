"""Requests while they run: what they ask of the pipeline, and what they make of its answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from ondevice_openvino.form import Form
from ondevice_openvino.pipeline import Output, Pipeline
from ondevice_openvino.vocabulary import Vocabulary
from ondevice_sdk.backends.api import (
    Done,
    Event,
    Generate,
    Generated,
    PromptProgress,
    TextDelta,
    Usage,
)
from ondevice_sdk.engine.stop import StopMatcher, TextDecoder
from ondevice_sdk.errors import OutputInvalid


@dataclass(slots=True, eq=False)
class Run:
    """A request to the pipeline: a part of a job, or all of it.

    `read` counts tokens of the prompt that were processed, as far as is known; `exact` says that its rest by blocks is
    right. `part` is the job's own word for it.
    """

    tokens: list[int] = field(repr=False)
    cells: int  # of the cache, at most
    config: Any
    part: Any = None
    number: int = 0
    handle: Any = None
    read: int = 0
    exact: bool = False
    reading: bool = True
    written: list[int] = field(default_factory=list, repr=False)


def foresee(runs: Iterable[Run], rows: int) -> None:
    """Take note of what the pipeline will read in its next step: answers first, then prompts in their order."""
    runs = sorted(runs, key=lambda run: run.number)
    room, sure = rows - sum(not run.reading for run in runs), True
    for run in runs:
        if run.reading:
            count = max(0, min(room, len(run.tokens) - run.read))
            run.exact &= sure
            run.read += count
            room -= count
            sure &= run.read < len(run.tokens)  # else it may need less, as more of it is cached than is known


class Job(ABC):
    """A request of the engine: `pending` has what can be asked of the pipeline now."""

    def __init__(self, request_id: str, prompt: list[int], order: tuple[int, int]) -> None:
        self.request_id = request_id
        self.prompt = prompt
        self.order = order  # smaller goes first
        self.pending: deque[Run] = deque()
        self.running: list[Run] = []
        self.cached: int | None = None  # tokens of the prompt that were not computed; None: it has not begun
        self.prefill_s = 0.0
        self.decode_s = 0.0
        self.finished = False

    @abstractmethod
    def take(self, run: Run, output: Output) -> list[Event]:
        """Go on with what the pipeline gave."""

    @abstractmethod
    def cancel(self) -> list[Event]:
        """End early."""

    @abstractmethod
    def move(self, pipeline: Pipeline) -> bool:
        """Be ready to go on in this pipeline, with `pending` and nothing running; False if that cannot be."""

    def progress(self, run: Run) -> list[Event]:
        """How much of the prompt is processed."""
        return [PromptProgress(self.request_id, run.read, len(self.prompt))]


class Generation(Job):
    """Writes."""

    def __init__(
        self,
        request_id: str,
        request: Generate,
        prompt: list[int],
        order: tuple[int, int],
        *,
        limit: int,
        vocabulary: Vocabulary,
        ends: frozenset[int],
        form: Form | None,
        pipeline: Pipeline,
    ) -> None:
        super().__init__(request_id, prompt, order)
        self._request = request
        self._limit = limit
        self._vocabulary = vocabulary
        self._ends = ends
        self.form = form
        self._decoder = TextDecoder()
        self._stop = StopMatcher(request.stop)
        self._text: list[str] = []
        self._tokens: list[int] = []
        self.move(pipeline)

    @property
    def begun(self) -> bool:
        """Whether something was written."""
        return bool(self._tokens)

    def progress(self, run: Run) -> list[Event]:
        """See `Job.progress`: nothing where what was written is read again, in another pipeline."""
        return [] if self.begun else super().progress(run)

    def move(self, pipeline: Pipeline) -> bool:
        """See `Job.move`: XGrammar cannot begin in the middle of an output."""
        if self.form is not None and self._tokens:
            return False
        request, left = self._request, self._limit - len(self._tokens)
        ends, masked = self._ends, request.ignore_eos and self.form is None
        if self.form is not None and self.form.closes_itself:
            # Small models spend their tokens on empty lines between the parts of a value, where they may.
            ends, masked = ends | self._vocabulary.lines, True
        config = pipeline.writing(request.sampling, left, ends, request.grammar, masked=masked)
        self.running.clear()
        self.pending = deque([Run(self.prompt + self._tokens, len(self.prompt) + self._limit, config)])
        return True

    def take(self, run: Run, output: Output) -> list[Event]:  # noqa: ARG002 - it has one run only
        """See `Job.take`."""
        events: list[Event] = []
        for token in output.tokens:
            if token in self._ends and (self.form is not None or not self._request.ignore_eos):
                return events + self._finish("stop")
            events += self._write(token)
            if self.finished:
                return events
        if output.ended:
            events += self._finish("length" if len(self._tokens) >= self._limit else "stop")
        return events

    def cancel(self) -> list[Event]:
        """See `Job.cancel`."""
        return self._finish("cancelled")

    def _write(self, token: int) -> list[Event]:
        self._tokens.append(token)
        left = self._limit - len(self._tokens)
        if self.form is None:
            data = self._vocabulary.shown(token)
        else:
            data = self._vocabulary.written(token)
            closing = self.form.follow(data, left)
            if closing is not None:
                return self._close(closing)
        events = self._emit(self._stop.feed(self._decoder.feed(data)))
        if self._stop.stopped or (self.form is not None and self.form.finished):
            return events + self._finish("stop")
        return events + (self._finish("length") if left == 0 else [])

    def _close(self, closing: bytes) -> list[Event]:
        """Write what completes the output, in place of the last token."""
        assert self.form is not None
        self._tokens.pop()
        text = closing.decode("utf-8", "replace")
        self._tokens += self._vocabulary.encode([text])[0] if text else []
        events = self._emit(self._stop.feed(self._decoder.feed(closing)))
        self.form.follow(closing, self._limit)
        return events + self._finish("length")

    def _emit(self, text: str) -> list[Event]:
        if not text:
            return []
        self._text.append(text)
        return [TextDelta(self.request_id, text)] if self._request.stream else []

    def _finish(self, reason: Literal["stop", "length", "cancelled"]) -> list[Event]:
        self.finished = True
        events = self._emit(self._stop.feed(self._decoder.finish()) + self._stop.finish())
        text = "".join(self._text)
        if self.form is not None and reason != "cancelled" and not self._stop.stopped and not self.form.holds(text):
            raise OutputInvalid("the output is not complete, or not of the form that was asked for", raw=text)
        usage = Usage(len(self.prompt), len(self._tokens), self.cached or 0, self.prefill_s, self.decode_s)
        return [*events, Done(self.request_id, Generated(text, reason, usage))]
