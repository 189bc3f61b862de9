"""Continuous batching: a step runs one token of every active request, and prompts with what is left of the budget."""

from __future__ import annotations

import time
from collections.abc import Iterable
from collections.abc import Sequence as SequenceOf
from typing import TYPE_CHECKING

from ondevice_sdk.backends.api import (
    PREFIX_CACHE_BYTES,
    RUNNER_CAPABILITIES,
    Batch,
    Capability,
    Done,
    Embed,
    Embedded,
    Engine,
    ErrorInfo,
    Event,
    Failed,
    Generate,
    ModelRunner,
    Request,
    Score,
    Tokenize,
    Tokenized,
    Usage,
    unsupported,
)
from ondevice_sdk.engine import grammar
from ondevice_sdk.engine.generation import Generation
from ondevice_sdk.engine.lookup import PassCosts
from ondevice_sdk.engine.parts import Demand, parts_for
from ondevice_sdk.engine.prefix import GRID, SlotPool, shared_chunks
from ondevice_sdk.engine.prompts import Layout, lay_out
from ondevice_sdk.engine.sampling import Sampler, check_sampling
from ondevice_sdk.engine.scoring import Scoring, continuation_tokens
from ondevice_sdk.engine.sequence import Room, Sequence
from ondevice_sdk.engine.turns import by_adapter, decoding_first, taking_part
from ondevice_sdk.errors import ConfigurationError, GenerationFailed, InputTooLong

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ondevice_sdk.engine.disk import DiskPrefixes


class BatchedEngine(Engine):
    """Serves requests on a model runner.

    A request is admitted, by priority and then in order, when a sequence is free and all cells that it may ever need
    (prompt and `max_tokens`) can be promised to it; so nothing that runs is ever thrown out. Requests that have to wait
    never hold up those that run.

    A forward pass has one adapter. Requests with several have their passes in turns, all of them in each step.
    """

    def __init__(
        self,
        runner: ModelRunner,
        *,
        speculate: bool = True,
        prefix_cache_bytes: int = PREFIX_CACHE_BYTES,
        disk: DiskPrefixes | None = None,
    ) -> None:
        """Serve with a runner.

        Args:
            runner: closed with the engine.
            speculate: whether drafts may be made where they pay.
            prefix_cache_bytes: most bytes of states that are remembered in memory, besides the KV cache.
            disk: where states are kept for later processes; closed with the engine.
        """
        self._runner = runner
        self._disk = disk
        self._costs = PassCosts() if speculate else None
        self.context_tokens = min(runner.context_tokens, runner.cache_tokens)
        self.max_sequences = max(1, min(runner.max_sequences, runner.max_batch_tokens, runner.max_logits))
        self._pool = SlotPool(runner, self.max_sequences, saved_bytes=prefix_cache_bytes, disk=disk)
        self._events: list[Event] = []
        self._waiting: list[Sequence] = []
        self._active: list[Sequence] = []
        self._instant: list[tuple[str, Embed | Tokenize]] = []
        self._aborted: set[str] = set()
        self._arrivals = 0
        self._turn = 0
        self._closed = False
        capabilities = {*RUNNER_CAPABILITIES, *runner.special_capabilities}
        if self.max_sequences > 1:
            capabilities.add(Capability.BATCH)
        self.chat_template = runner.chat_template
        if runner.chat_template is not None:
            capabilities.add(Capability.CHAT)
        self._grammars: grammar.GrammarCompiler | None = None
        if type(runner).grammar_tokenizer is not ModelRunner.grammar_tokenizer and grammar.available():
            self._grammars = grammar.GrammarCompiler(runner.grammar_tokenizer, runner.vocabulary, runner.end_tokens)
            capabilities.add(Capability.SCHEMA)
        self.capabilities = frozenset(capabilities)

    @property
    def busy(self) -> bool:
        """See `Engine.busy`."""
        return bool(self._events or self._waiting or self._active or self._instant)

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
            if isinstance(request, Embed | Tokenize):
                if isinstance(request, Embed) and Capability.EMBED not in self.capabilities:
                    raise unsupported(Capability.EMBED)
                self._instant.append((request_id, request))
            else:
                self._waiting.append(self._prepare(request_id, request))
                self._waiting.sort(key=lambda sequence: sequence.order)
        except Exception as error:  # noqa: BLE001 - whatever a request provokes ends that request only
            self._events.append(Failed.of(request_id, error))

    def abort_request(self, request_id: str) -> None:
        """See `Engine.abort_request`."""
        if request_id in self._ids():
            self._aborted.add(request_id)

    def step(self, token_budget: int) -> SequenceOf[Event]:
        """See `Engine.step`.

        A prompt that has to be computed on the grid advances by at least one chunk of it, whatever the budget.
        """
        if self._closed:
            return []
        events, self._events = self._events, []
        self._cancel(events)
        self._answer_instant(events)
        self._arrange(events)
        self._admit()
        self._pool.settle()
        budget = max(1, token_budget)
        shared = [sequence for sequence in self._active if not sequence.exact]
        mixed = any(sequence.prefilling for sequence in shared)
        for sequence in [sequence for sequence in self._active if sequence.exact]:
            chunks = max(1, budget // (2 * GRID if mixed else GRID)) if sequence.prefilling else 1
            for _ in range(chunks):
                prefilling = sequence.prefilling
                budget -= self._run([sequence], budget, events) if prefilling else 0
                if not prefilling:
                    self._run([sequence], 1, events)
                if sequence.finished or not sequence.prefilling:
                    break
        self._turn += 1
        budget = max(1, budget)
        for group in by_adapter(shared, self._turn):
            budget -= self._run(taking_part(group), budget, events)
        self._active = [sequence for sequence in self._active if not sequence.finished]
        return events

    def idle(self) -> None:
        """See `Engine.idle`: what was read goes to the disk, where there is one."""
        if not self._closed:
            self._pool.store()

    def forget(self) -> None:
        """See `Engine.forget`."""
        if not self._closed:
            self._pool.forget()
        if self._grammars is not None:
            self._grammars.forget()

    def close(self) -> None:
        """See `Engine.close`."""
        if not self._closed:
            self._closed = True
            if self._disk is not None:
                self._pool.store()
                self._disk.close()
            self._waiting.clear()
            self._active.clear()
            self._instant.clear()
            self._events.clear()
            self._runner.close()

    def _ids(self) -> Iterable[str]:
        yield from (sequence.request_id for sequence in self._waiting)
        yield from (sequence.request_id for sequence in self._active)
        yield from (request_id for request_id, _ in self._instant)

    def _prepare(self, request_id: str, request: Generate | Score) -> Sequence:
        adapter = ""
        if request.adapter is not None:
            if Capability.ADAPTER not in self.capabilities:
                raise unsupported(Capability.ADAPTER)
            adapter = self._runner.adapter_digest(request.adapter)
        order = (-request.priority, self._arrivals)
        if isinstance(request, Score):
            return self._prepare_score(request_id, request, order, adapter)
        if request.max_tokens < 1:
            raise ConfigurationError("max_tokens must be at least 1")
        check_sampling(request.sampling)
        if request.grammar is not None and self._grammars is None:
            raise unsupported(Capability.SCHEMA)
        layout = lay_out(self._runner, request.prompt)
        self._check_length(layout, 1)
        constraint = None
        if request.grammar is not None and self._grammars is not None:
            constraint = self._grammars.compile(request.grammar, ignore_eos=request.ignore_eos)
        return Generation(
            request_id,
            request,
            layout.tokens,
            order,
            runner=self._runner,
            pool=self._pool,
            context_tokens=self.context_tokens,
            sampler=Sampler(request.sampling),
            constraint=constraint,
            costs=self._costs,
            adapter=adapter,
        )

    def _prepare_score(self, request_id: str, request: Score, order: tuple[int, int], adapter: str) -> Sequence:
        if not request.continuations:
            raise ConfigurationError("there is no continuation to score")
        layout = lay_out(self._runner, request.prompt)
        self._check_length(layout, 0)
        continuations = [
            continuation_tokens(self._runner, layout.segments, layout.begin, layout.tokens, text)
            for text in request.continuations
        ]
        if not all(continuations):
            raise ConfigurationError("a continuation is empty")
        self._check_length(layout, max(len(tokens) for tokens in continuations))
        return Scoring(request_id, layout.tokens, continuations, order, pool=self._pool, adapter=adapter)

    def _check_length(self, layout: Layout, room: int) -> None:
        """Refuse a prompt that is empty, or leaves less than `room` tokens of the context."""
        if not layout.tokens:
            raise ConfigurationError("the prompt is empty")
        limit = self.context_tokens - room
        if len(layout.tokens) > limit:
            raise InputTooLong(tokens=len(layout.tokens), limit=limit)

    def _cancel(self, events: list[Event]) -> None:
        if not self._aborted:
            return
        for sequence in [*self._waiting, *self._active]:
            if sequence.request_id in self._aborted:
                events += sequence.cancel()
                sequence.release(self._pool)
        for request_id, _ in self._instant:
            if request_id in self._aborted:
                events.append(Failed(request_id, ErrorInfo("cancelled", "the request was cancelled")))
        self._waiting = [sequence for sequence in self._waiting if not sequence.finished]
        self._active = [sequence for sequence in self._active if not sequence.finished]
        self._instant = [item for item in self._instant if item[0] not in self._aborted]
        self._aborted.clear()

    def _answer_instant(self, events: list[Event]) -> None:
        requests, self._instant = self._instant, []
        for request_id, request in requests:
            try:
                events.append(Done(request_id, self._answer(request)))
            except Exception as error:  # noqa: BLE001 - whatever a request provokes ends that request only
                events.append(Failed.of(request_id, error))

    def _answer(self, request: Embed | Tokenize) -> Embedded | Tokenized:
        from ondevice_sdk.backends.api import Segment

        if isinstance(request, Embed):
            start = time.perf_counter()
            vectors = self._runner.embed(request.texts)
            tokens = sum(len(self._runner.tokenize([Segment(text)])) for text in request.texts)
            usage = Usage(prompt_tokens=tokens, prefill_s=time.perf_counter() - start)
            return Embedded(tuple(tuple(map(float, vector)) for vector in vectors), usage)
        counts = [len(self._runner.tokenize([Segment(text)])) for text in request.texts]
        counts += [len(lay_out(self._runner, prompt).tokens) for prompt in request.prompts]
        return Tokenized(tuple(counts))

    def _arrange(self, events: list[Event]) -> None:
        """Split the cache into parts, or let all share it, as the requests that want to run now need it."""
        if self._runner.most_parts == 1 or all(map(self._runs_apart, self._waiting)):
            return
        if any(len(sequence.slots()) > 1 for sequence in self._active):
            return  # its slots share cells, and would not in parts
        demand = [sequence for sequence in [*self._active, *self._waiting] if not self._runs_apart(sequence)]
        del demand[self.max_sequences :]
        wanted = parts_for(
            [Demand(each.prompt, each.cells, isinstance(each, Generation), each.adapter) for each in demand],
            cells=self._runner.cache_tokens,
            most=min(self._runner.most_parts, self.max_sequences),
            present=self._pool.parts,
        )
        if wanted != self._pool.parts and self._pool.can_arrange(wanted):
            try:
                self._pool.arrange(wanted)
            except GenerationFailed as error:
                for sequence in self._active:
                    if not self._runs_apart(sequence):
                        self._fail(sequence, error, events)
                self._active = [sequence for sequence in self._active if not sequence.finished]

    def _admit(self) -> None:
        """Give slots to waiting requests in their order; one that does not fit yet is not overtaken."""
        full = False
        for sequence in self._waiting[: 4 * self.max_sequences]:
            apart = self._runs_apart(sequence)
            if (full and not apart) or self._gains_by_waiting(sequence):
                continue
            slot = self._pool.take(sequence.prompt, sequence.cells, exact=sequence.exact, adapter=sequence.adapter)
            if slot is None:
                full = full or not apart
                continue
            sequence.place(slot)
            self._active.append(sequence)
        self._waiting = [sequence for sequence in self._waiting if sequence.slot is None]

    def _runs_apart(self, sequence: Sequence) -> bool:
        """Whether it has no part in the cache of the others."""
        return sequence.exact and self._runner.isolated_sequence is not None

    def _gains_by_waiting(self, sequence: Sequence) -> bool:
        """Whether a running request is about to compute more of this prompt than is cached now."""
        if sequence.exact:
            return False
        limit = len(sequence.prompt) - 1
        for other in self._active:
            if other.exact or not other.prefilling or other.slot is None or other.adapter != sequence.adapter:
                continue
            common = shared_chunks(other.prompt, sequence.prompt, min(limit, len(other.prompt)))
            if common > len(other.slot.tokens) and common > self._pool.best(sequence.prompt, sequence.adapter):
                return True
        return False

    def _run(self, sequences: list[Sequence], budget: int, events: list[Event]) -> int:
        """One forward pass over sequences with one adapter; gives the number of prompt tokens in it."""
        batch = Batch(adapter=sequences[0].adapter)
        room = Room(self._runner.max_batch_tokens, budget, self._runner.max_logits)
        planned: list[tuple[Sequence, int]] = []  # with the number of its rows of logits
        for sequence in sorted(sequences, key=decoding_first):
            before, logits_before = len(batch), room.logits
            sequence.plan(batch, room)
            if len(batch) > before:
                planned.append((sequence, logits_before - room.logits))
        if not planned:
            return 0
        if self._pool.parts > 1:  # where each has one slot, and runtimes compute neighbours together
            planned.sort(key=lambda item: item[0].slots()[0].index)
            batch.sort()
        start = time.perf_counter()
        try:
            logits = self._forward(batch, sum(count for _, count in planned))
        except Exception as error:  # noqa: BLE001 - a failed pass ends its requests, not the engine
            for sequence, _ in planned:
                self._fail(sequence, error, events)
            return budget - room.prefill
        seconds = time.perf_counter() - start
        last = 0
        for sequence, count in planned:
            first, last = last, last + count
            try:
                events += sequence.advance(logits[first:last], seconds)
            except Exception as error:  # noqa: BLE001 - one request's trouble is not the others'
                self._fail(sequence, error, events)
            if sequence.finished:
                sequence.release(self._pool)
        return budget - room.prefill

    def _forward(self, batch: Batch, wanted: int) -> NDArray[np.float32]:
        logits = self._runner.forward(batch)
        if logits.shape != (wanted, self._runner.vocabulary):
            raise GenerationFailed("the backend gave logits of a wrong shape")
        return logits

    def _fail(self, sequence: Sequence, error: Exception, events: list[Event]) -> None:
        events.append(Failed.of(sequence.request_id, error))
        sequence.finished = True
        for slot in sequence.slots():
            self._pool.cut(slot, 0)  # what the cache holds is not known
        sequence.release(self._pool)
