"""The engine: requests of the SDK on OpenVINO GenAI's continuous-batching pipeline, which schedules them itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ondevice_openvino.form import Forms
from ondevice_openvino.jobs import Generation, Job, Run, foresee
from ondevice_openvino.ledger import BLOCK, Ledger
from ondevice_openvino.pipeline import Output, Pipeline, Sizes
from ondevice_openvino.scoring import Known, Scoring
from ondevice_openvino.vocabulary import Vocabulary
from ondevice_sdk.backends.api import (
    Capability,
    Done,
    Embed,
    Engine,
    ErrorInfo,
    Event,
    Failed,
    Generate,
    Request,
    Score,
    Segment,
    Tokenize,
    Tokenized,
    unsupported,
)
from ondevice_sdk.engine.prompts import Layout, lay_out
from ondevice_sdk.engine.sampling import check_sampling
from ondevice_sdk.engine.scoring import continuation_tokens
from ondevice_sdk.errors import (
    ConfigurationError,
    GenerationFailed,
    InputTooLong,
    SchemaUnsupported,
)


@dataclass(frozen=True, slots=True)
class _Loaded:
    pipeline: Pipeline
    vocabulary: Vocabulary
    ends: frozenset[int]


class OpenVinoEngine(Engine):
    """Serves requests with a pipeline.

    Requests are given to the pipeline, by priority and then in order, when all cells of its cache that they may ever
    need are free; so it never has to throw one out. What the pipeline computes in a step is its own choice: a token of
    each answer, and of the prompts as much as `Sizes.rows` leaves.
    """

    def __init__(
        self, make: Callable[[], Pipeline], sizes: Sizes, *, context_tokens: int, rows: int, begin: bool | None
    ) -> None:
        """Load.

        Args:
            make: loads a pipeline; called again where nothing of the present one may be kept.
            sizes: what it was made with.
            context_tokens: most tokens of a request.
            rows: how many logits the model gives.
            begin: see `Vocabulary`.

        Raises:
            ModelUnsupported: the tokeniser does not serve.
        """
        self._make = make
        self._sizes = sizes
        self._rows = rows
        self._begin = begin
        self.context_tokens = context_tokens
        self.max_sequences = sizes.sequences
        self._loaded: _Loaded | None = None
        self._ledger = Ledger(sizes.blocks - sizes.sequences)
        self._known = Known()
        self._jobs: list[Job] = []  # in their order
        self._left: list[Run] = []  # of jobs that ended while these were in the midst of a block: see `_release`
        self._instant: list[tuple[str, Tokenize]] = []
        self._events: list[Event] = []
        self._aborted: set[str] = set()
        self._arrivals = self._runs = 0
        self._closed = False
        vocabulary = self._load().vocabulary
        self._forms = Forms(lambda texts: self._load().vocabulary.encode(texts))
        capabilities = {Capability.GENERATE, Capability.SCHEMA, Capability.SCORE, Capability.SEED}
        capabilities.add(Capability.PREFIX_CACHE)
        if sizes.sequences > 1:
            capabilities.add(Capability.BATCH)
        self.chat_template = vocabulary.chat_template
        if vocabulary.chat_template is not None:
            capabilities.add(Capability.CHAT)
        self.capabilities = frozenset(capabilities)

    @property
    def busy(self) -> bool:
        """See `Engine.busy`."""
        return bool(self._events or self._jobs or self._instant)

    def add_request(self, request_id: str, request: Request) -> None:
        """See `Engine.add_request`.

        Raises:
            ConfigurationError: the id is in use, or the engine is closed.
        """
        if self._closed:
            raise ConfigurationError("the engine is closed")
        if request_id in self._ids():
            raise ConfigurationError("a request with this id is running")
        self._arrivals += 1
        try:
            if isinstance(request, Embed):
                raise unsupported(Capability.EMBED)
            if isinstance(request, Tokenize):
                self._instant.append((request_id, request))
            else:
                self._jobs.append(self._prepare(request_id, request))
                self._jobs.sort(key=lambda job: job.order)
        except Exception as error:  # noqa: BLE001 - whatever a request provokes ends that request only
            self._events.append(Failed.of(request_id, error))

    def abort_request(self, request_id: str) -> None:
        """See `Engine.abort_request`."""
        if request_id in self._ids():
            self._aborted.add(request_id)

    def step(self, token_budget: int) -> Sequence[Event]:  # noqa: ARG002 - the pipeline's own was set when it was made
        """See `Engine.step`; a prompt is read in parts of `Sizes.rows` tokens, whatever the budget."""
        if self._closed:
            return []
        events, self._events = self._events, []
        self._cancel(events)
        self._answer_instant(events)
        if self._jobs:
            self._admit(events)
            self._jobs = [job for job in self._jobs if not job.finished]  # some may have been refused
            runs = self._running()
            if runs:
                self._pass(runs, events)
        elif self._loaded is not None and not self._left:
            self._loaded.pipeline.settle()
        return events

    def forget(self) -> None:
        """See `Engine.forget`: requests that run are brought to their end first; then the model is loaded anew.

        There is no other way to empty the pipeline's prefix cache, nor the words that its tokeniser remembers.
        """
        while self._jobs:
            self._events = [*self.step(self._sizes.rows)]  # which begins with those that were kept
        self._forms.forget()
        if not self._closed:
            self._drop_pipeline()

    def close(self) -> None:
        """See `Engine.close`."""
        if not self._closed:
            self._closed = True
            self._jobs.clear()
            self._instant.clear()
            self._events.clear()
            self._drop_pipeline()

    def _load(self) -> _Loaded:
        """The pipeline, loaded where there is none."""
        if self._loaded is None:
            pipeline = self._make()
            vocabulary = Vocabulary(pipeline.tokenizer, begin=self._begin)
            ends = vocabulary.end_tokens | pipeline.end_tokens
            self._loaded = _Loaded(pipeline, vocabulary, frozenset(end for end in ends if 0 <= end < self._rows))
        return self._loaded

    def _drop_pipeline(self) -> None:
        self._loaded = None
        self._left.clear()
        self._ledger.clear()
        self._known.clear()

    def _running(self) -> list[Run]:
        return self._left + [run for job in self._jobs for run in job.running]

    def _ids(self) -> Iterable[str]:
        yield from (job.request_id for job in self._jobs)
        yield from (request_id for request_id, _ in self._instant)

    # --- requests -----------------------------------------------------------------------------------------------------

    def _prepare(self, request_id: str, request: Generate | Score) -> Job:
        if request.adapter is not None:
            raise unsupported(Capability.ADAPTER)
        order = (-request.priority, self._arrivals)
        if isinstance(request, Score):
            return self._prepare_score(request_id, request, order)
        if request.deterministic:
            raise unsupported(Capability.DETERMINISTIC)
        if request.max_tokens < 1:
            raise ConfigurationError("max_tokens must be at least 1")
        check_sampling(request.sampling)
        loaded, layout = self._load(), self._lay_out(request, room=1)
        limit = min(request.max_tokens, self.context_tokens - len(layout.tokens))
        form = None if request.grammar is None else self._forms.make(request.grammar, limit)
        return Generation(
            request_id,
            request,
            layout.tokens,
            order,
            limit=limit,
            vocabulary=loaded.vocabulary,
            ends=loaded.ends,
            form=form,
            pipeline=loaded.pipeline,
        )

    def _prepare_score(self, request_id: str, request: Score, order: tuple[int, int]) -> Job:
        if not request.continuations:
            raise ConfigurationError("there is no continuation to score")
        loaded, layout = self._load(), self._lay_out(request, room=0)
        continuations = [
            continuation_tokens(loaded.vocabulary, layout.segments, layout.begin, layout.tokens, text)
            for text in request.continuations
        ]
        if not all(continuations):
            raise ConfigurationError("a continuation is empty")
        self._check_length(layout, max(map(len, continuations)))
        return Scoring(
            request_id,
            layout.tokens,
            continuations,
            order,
            rows=self._rows,
            pipeline=loaded.pipeline,
            known=self._known,
        )

    def _lay_out(self, request: Generate | Score, *, room: int) -> Layout:
        layout = lay_out(self._load().vocabulary, request.prompt)
        if not layout.tokens:
            raise ConfigurationError("the prompt is empty")
        self._check_length(layout, room)
        return layout

    def _check_length(self, layout: Layout, room: int) -> None:
        limit = self.context_tokens - room
        if len(layout.tokens) > limit:
            raise InputTooLong(tokens=len(layout.tokens), limit=limit)

    def _cancel(self, events: list[Event]) -> None:
        if not self._aborted:
            return
        for job in self._jobs:
            if job.request_id in self._aborted:
                events += job.cancel()
                self._release(job)
        for request_id, _ in self._instant:
            if request_id in self._aborted:
                events.append(Failed(request_id, ErrorInfo("cancelled", "the request was cancelled")))
        self._jobs = [job for job in self._jobs if not job.finished]
        self._instant = [item for item in self._instant if item[0] not in self._aborted]
        self._aborted.clear()

    def _answer_instant(self, events: list[Event]) -> None:
        requests, self._instant = self._instant, []
        for request_id, request in requests:
            try:
                vocabulary = self._load().vocabulary
                counts = [len(vocabulary.tokenize([Segment(text)])) for text in request.texts]
                counts += [len(lay_out(vocabulary, prompt).tokens) for prompt in request.prompts]
                events.append(Done(request_id, Tokenized(tuple(counts))))
            except Exception as error:  # noqa: BLE001 - see add_request
                events.append(Failed.of(request_id, error))

    # --- the pipeline -------------------------------------------------------------------------------------------------

    def _admit(self, events: list[Event]) -> None:
        """Give the pipeline what it has room for; what does not fit yet is not overtaken."""
        pipeline = self._load().pipeline
        running = self._running()
        free = self._sizes.blocks - sum(_blocks(run) for run in running)
        places = self._sizes.sequences - len(running)
        for job in list(self._jobs):
            while job.pending:
                if not places or _blocks(job.pending[0]) > free:
                    return
                run = job.pending[0]
                if any(self._ledger.forks(other.tokens, run.tokens, other.read) for other in running if other.reading):
                    break  # it is added when the other is read
                job.pending.popleft()
                run.read = self._ledger.cached(run.tokens)
                run.exact = not self._ledger.begun(run.tokens, run.read)
                if job.cached is None:
                    job.cached = run.read
                run.number = self._runs = self._runs + 1
                try:
                    run.handle = pipeline.add(run.number, run.tokens, run.config)
                except Exception as error:  # noqa: BLE001 - see add_request
                    self._fail(job, error, events)
                    break
                job.running.append(run)
                running.append(run)
                places -= 1
                free -= _blocks(run)

    def _pass(self, runs: list[Run], events: list[Event]) -> None:
        pipeline = self._load().pipeline
        foresee(runs, self._sizes.rows)
        start = time.perf_counter()
        try:
            pipeline.step()
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - the pipeline is in the midst of anything now
            self._recover(error, events)
            return
        seconds = time.perf_counter() - start
        for job in list(self._jobs):
            reading = any(run.reading for run in job.running)
            job.prefill_s += seconds if reading else 0.0
            job.decode_s += seconds if job.running and not reading else 0.0
            for run in list(job.running):
                self._read(job, run, pipeline.read(run.handle), events)
                if job.finished:
                    break
        self._jobs = [job for job in self._jobs if not job.finished]
        for run in list(self._left):
            output = pipeline.read(run.handle)
            if output.tokens and not output.ended:
                pipeline.drop(run.handle)
            if output.tokens or output.ended:
                self._left.remove(run)
            if output.tokens:
                self._end_reading(run)
        if not self._jobs and not self._left:
            pipeline.settle()

    def _end_reading(self, run: Run) -> None:
        if run.read < len(run.tokens):  # sooner than foreseen: others had the room that it left
            for other in self._running():
                other.exact = False
        run.reading, run.read = False, len(run.tokens)
        self._ledger.add(run.tokens)

    def _read(self, job: Job, run: Run, output: Output, events: list[Event]) -> None:
        """Hand a run's output to its job."""
        try:
            if output.starved:
                raise GenerationFailed("the pipeline found no room for the request")
            if run.reading:
                if output.tokens or output.ended:
                    self._end_reading(run)
                elif run.read >= len(run.tokens):  # at least the last token is still to come
                    run.read, run.exact = len(run.tokens) - 1, False
                events += job.progress(run)
            run.written += output.tokens
            events += job.take(run, output)
        except Exception as error:  # noqa: BLE001 - see add_request
            self._fail(job, error, events)
            return
        if output.ended:
            job.running.remove(run)
            self._ledger.add([*run.tokens, *run.written[:-1]])
        if job.finished:
            self._release(job)

    def _release(self, job: Job) -> None:
        """Take back what a finished job has in the pipeline.

        The pipeline has a block in its prefix cache, as a whole one, from when its first token is computed. Given up in
        the midst of it, a prompt leaves keys there that nobody computed, for all who go on from the same text
        (openvino-genai 2026.4.1). So it is read to its end, beside whatever comes next.
        """
        for run in job.running:
            if run.reading and not (run.exact and run.read % BLOCK == 0):
                self._left.append(run)
                continue
            if self._loaded is not None:
                self._loaded.pipeline.drop(run.handle)
            if not run.reading:
                self._ledger.add([*run.tokens, *run.written[:-1]])
        job.running.clear()
        job.pending.clear()

    def _fail(self, job: Job, error: Exception, events: list[Event]) -> None:
        events.append(Failed.of(job.request_id, error))
        job.finished = True
        self._release(job)

    def _recover(self, error: Exception, events: list[Event]) -> None:
        """Go on in a new pipeline after one has broken: mostly over a constraint that XGrammar does not take."""
        suspects = [
            job for job in self._jobs if isinstance(job, Generation) and job.form and job.running and not job.begun
        ]
        found = bool(suspects or self._left)
        self._drop_pipeline()
        pipeline = self._load().pipeline
        for job in self._jobs:
            if not job.running:
                job.move(pipeline)
                continue
            if job in suspects:
                events.append(Failed.of(job.request_id, SchemaUnsupported("XGrammar cannot express the constraint")))
            elif found and job.move(pipeline):
                continue
            else:
                events.append(Failed.of(job.request_id, error))
            job.finished = True
        self._jobs = [job for job in self._jobs if not job.finished]


def _blocks(run: Run) -> int:
    return -(-run.cells // BLOCK)
