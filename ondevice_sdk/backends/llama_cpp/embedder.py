"""A GGUF embedder as an `Engine`: texts in, vectors of length 1 out, many texts in one pass."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ondevice_sdk.backends.api import (
    Capability,
    Done,
    Embed,
    Embedded,
    Engine,
    ErrorInfo,
    Event,
    Failed,
    LoadOptions,
    LocalModel,
    PromptProgress,
    Request,
    Segment,
    Tokenize,
    Tokenized,
    Usage,
)
from ondevice_sdk.backends.llama_cpp import log
from ondevice_sdk.backends.llama_cpp.runner import load_error, load_model, usable_cores
from ondevice_sdk.backends.llama_cpp.vocabulary import Vocabulary
from ondevice_sdk.catalogue.gguf import RANK, GgufHeader
from ondevice_sdk.errors import (
    ConfigurationError,
    GenerationFailed,
    InputTooLong,
    ModelUnsupported,
    Unsupported,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CONTEXT: Final = 2048  # tokens of one text, of models that could take more: a pass needs memory for their square
_ROWS: Final = 512  # of a pass, where the model's context is not larger
_TEXTS: Final = 64  # in one pass: of the shortest sentences so many fill its rows


@dataclass(slots=True)
class _Job:
    """An `Embed` request under way."""

    request_id: str
    order: tuple[int, int]
    texts: list[list[int]]  # token ids
    vectors: list[tuple[float, ...]] = field(default_factory=list)
    tokens: int = 0  # of the texts that are done
    seconds: float = 0.0

    @property
    def total(self) -> int:
        return sum(map(len, self.texts))


class LlamaCppEmbedder(Engine):
    """One loaded embedding model. A pass takes texts of all waiting requests, in their order."""

    def __init__(self, model: LocalModel, header: GgufHeader, options: LoadOptions) -> None:
        import llama_cpp
        import numpy as np

        log.silence()
        llama_cpp.llama_backend_init()
        self._lib, self._np = llama_cpp, np
        self._model: Any = None
        self._context: Any = None
        self._jobs: list[_Job] = []
        self._counts: list[tuple[str, Tokenize]] = []
        self._events: list[Event] = []
        self._aborted: set[str] = set()
        self._arrivals = 0
        self.capabilities = frozenset({Capability.EMBED, Capability.BATCH})
        try:
            with log.captured() as lines:
                self._model = load_model(model.path, header, options)
                if not self._model:
                    raise load_error(lines)
                self._open(header, options, lines)
        except BaseException:
            self.close()
            raise

    def _open(self, header: GgufHeader, options: LoadOptions, lines: Iterable[str]) -> None:
        lib = self._lib
        vocab = lib.llama_model_get_vocab(self._model)
        if lib.llama_vocab_type(vocab) == lib.LLAMA_VOCAB_TYPE_NONE:
            raise ModelUnsupported("the model file has no tokeniser", architecture=header.architecture)
        if header.pooling == RANK:
            raise ModelUnsupported("it ranks texts and gives no embeddings", architecture=header.architecture)
        trained: int = lib.llama_model_n_ctx_train(self._model)
        self.context_tokens = min(trained, options.context_tokens or _CONTEXT)
        if self.context_tokens < 1 or options.batch_tokens < 1:
            raise ConfigurationError("context_tokens and batch_tokens must be at least 1")
        self.max_sequences = min(_TEXTS, lib.llama_max_parallel_sequences())
        # A text is read in one pass, since its first word may depend on its last.
        self._rows = max(self.context_tokens, min(_ROWS, options.batch_tokens))
        params = lib.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = self._rows
        params.n_seq_max = self.max_sequences
        params.kv_unified = True
        params.embeddings = True
        params.pooling_type = header.pooling or lib.LLAMA_POOLING_TYPE_MEAN
        params.no_perf = True
        params.n_threads = params.n_threads_batch = options.threads or usable_cores()
        self._context = lib.llama_init_from_model(self._model, params)
        if not self._context:
            raise load_error(lines)
        self._memory = lib.llama_get_memory(self._context)
        self._width: int = lib.llama_model_n_embd_out(self._model)
        self._vocabulary = Vocabulary(vocab)
        self._before, self._after = self._vocabulary.around()
        self._batch = lib.llama_batch_init(self._rows, 0, 1)

    @property
    def busy(self) -> bool:
        """See `Engine.busy`."""
        return bool(self._jobs or self._counts or self._events)

    def add_request(self, request_id: str, request: Request) -> None:
        """See `Engine.add_request`.

        Raises:
            ConfigurationError: the id is in use, or the engine is closed.
        """
        if not self._context:
            raise ConfigurationError("the engine is closed")
        if request_id in {*(job.request_id for job in self._jobs), *(each for each, _ in self._counts)}:
            raise ConfigurationError("a request with this id is running")
        self._arrivals += 1
        try:
            if isinstance(request, Tokenize):
                self._counts.append((request_id, request))
            elif isinstance(request, Embed):
                self._jobs.append(_Job(request_id, (-request.priority, self._arrivals), self._tokens(request)))
                self._jobs.sort(key=lambda job: job.order)
            else:
                raise Unsupported(
                    "this model gives embeddings and writes no text",
                    capability=request.kind,
                    hint="use it with embed(), and another model for this",
                )
        except Exception as error:  # noqa: BLE001 - whatever a request provokes ends that request only
            self._events.append(Failed.of(request_id, error))

    def abort_request(self, request_id: str) -> None:
        """See `Engine.abort_request`."""
        self._aborted.add(request_id)

    def step(self, token_budget: int) -> Sequence[Event]:
        """See `Engine.step`: one pass over texts of about this many tokens together, at least over one text."""
        events, self._events = self._events, []
        self._cancel(events)
        counts, self._counts = self._counts, []
        for request_id, request in counts:
            try:
                events.append(Done(request_id, self._count(request)))
            except Exception as error:  # noqa: BLE001 - as above
                events.append(Failed.of(request_id, error))
        taken = self._take(token_budget)
        if taken:
            self._pass(taken, events)
        for job in self._jobs:
            if len(job.vectors) == len(job.texts):
                usage = Usage(prompt_tokens=job.tokens, prefill_s=job.seconds)
                events.append(Done(job.request_id, Embedded(tuple(job.vectors), usage)))
        self._jobs = [job for job in self._jobs if len(job.vectors) < len(job.texts)]
        return events

    def close(self) -> None:
        """See `Engine.close`."""
        if self._context:
            self._lib.llama_batch_free(self._batch)
            self._lib.llama_free(self._context)
            self._context = None
        if self._model:
            self._lib.llama_model_free(self._model)
            self._model = None
        self._jobs.clear()
        self._counts.clear()
        self._events.clear()

    def _tokens(self, request: Embed) -> list[list[int]]:
        if not request.texts:
            raise ConfigurationError("there is no text to embed")
        texts = []
        for text in request.texts:
            tokens = [*self._before, *self._vocabulary.tokenize([Segment(text)]), *self._after]
            if not tokens:
                raise ConfigurationError("a text is empty")
            if len(tokens) > self.context_tokens:
                raise InputTooLong(tokens=len(tokens), limit=self.context_tokens)
            texts.append(tokens)
        return texts

    def _count(self, request: Tokenize) -> Tokenized:
        if request.prompts:
            raise Unsupported("this model reads no prompts", capability=Capability.CHAT.value)
        return Tokenized(tuple(len(self._vocabulary.tokenize([Segment(text)])) for text in request.texts))

    def _cancel(self, events: list[Event]) -> None:
        known = [*(job.request_id for job in self._jobs), *(each for each, _ in self._counts)]
        gone = [request_id for request_id in known if request_id in self._aborted]
        self._aborted.clear()
        self._jobs = [job for job in self._jobs if job.request_id not in gone]
        self._counts = [item for item in self._counts if item[0] not in gone]
        events += [Failed(each, ErrorInfo("cancelled", "the request was cancelled")) for each in gone]

    def _take(self, budget: int) -> list[tuple[_Job, list[int]]]:
        """The next texts, as many as fit."""
        taken: list[tuple[_Job, list[int]]] = []
        room = min(budget, self._rows)
        for job in self._jobs:
            for tokens in job.texts[len(job.vectors) :]:
                if taken and (len(tokens) > room or len(taken) == self.max_sequences):
                    return taken
                taken.append((job, tokens))
                room -= len(tokens)
        return taken

    def _pass(self, taken: list[tuple[_Job, list[int]]], events: list[Event]) -> None:
        start = time.perf_counter()
        try:
            vectors = self._forward([tokens for _, tokens in taken])
        except Exception as error:  # noqa: BLE001 - a failed pass ends its requests, not the engine
            failed = {job.request_id for job, _ in taken}
            events += [Failed.of(request_id, error) for request_id in failed]
            self._jobs = [job for job in self._jobs if job.request_id not in failed]
            return
        seconds = (time.perf_counter() - start) / sum(len(tokens) for _, tokens in taken)
        changed: dict[str, _Job] = {}
        for (job, tokens), vector in zip(taken, vectors, strict=True):
            job.vectors.append(tuple(vector.tolist()))
            job.tokens += len(tokens)
            job.seconds += seconds * len(tokens)
            changed[job.request_id] = job
        events += [PromptProgress(job.request_id, job.tokens, job.total) for job in changed.values()]

    def _forward(self, texts: list[list[int]]) -> NDArray[np.float32]:
        """A vector of length 1 for each text."""
        lib, batch, row = self._lib, self._batch, 0
        for sequence, tokens in enumerate(texts):
            for position, token in enumerate(tokens):
                batch.token[row], batch.pos[row] = token, position
                batch.n_seq_id[row], batch.seq_id[row][0] = 1, sequence
                batch.logits[row] = True
                row += 1
        batch.n_tokens = row
        if self._memory:  # of models that are decoders by their make
            lib.llama_memory_clear(self._memory, True)
        if (status := lib.llama_decode(self._context, batch)) != 0:
            raise GenerationFailed(f"llama.cpp could not run the batch (status {status})")
        pointers = [lib.llama_get_embeddings_seq(self._context, sequence) for sequence in range(len(texts))]
        if not all(pointers):
            raise GenerationFailed("llama.cpp gave no embeddings")
        vectors = self._np.stack([self._np.ctypeslib.as_array(pointer, (self._width,)) for pointer in pointers])
        lengths = self._np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (self._np.isfinite(lengths).all() and (lengths > 0).all()):
            raise GenerationFailed("the model gave a vector without a direction")
        normalised: NDArray[np.float32] = vectors / lengths
        return normalised
