"""A GGUF model as a `ModelRunner`, on llama.cpp's low-level functions."""

from __future__ import annotations

import ctypes
import os
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ondevice_sdk.backends.api import Batch, Capability, LoadOptions, LocalModel, ModelRunner, Segment
from ondevice_sdk.backends.llama_cpp import log
from ondevice_sdk.backends.llama_cpp.adapters import Adapters
from ondevice_sdk.backends.llama_cpp.lane import Lane, LaneOptions
from ondevice_sdk.backends.llama_cpp.sizes import DEFAULT_CONTEXT
from ondevice_sdk.backends.llama_cpp.vocabulary import Vocabulary
from ondevice_sdk.catalogue.gguf import GgufHeader
from ondevice_sdk.errors import ConfigurationError, GenerationFailed, LoadFailed, ModelCorrupt, ModelUnsupported

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# ggml types whose weights some CPU kernels of llama.cpp keep in another layout. Memory-mapping such a file would hold
# the weights twice, as pages of the file and as the rearranged copy; read without mapping, they are held once. All
# other types are mapped: their pages are clean, shared between processes, and can be dropped under memory pressure.
_REPACKED_TYPES = frozenset({2, 8, 10, 12, 13, 14, 20, 39})  # Q4_0 Q8_0 Q2_K Q4_K Q5_K Q6_K IQ4_NL MXFP4

_MAX_LOGITS = 64
_ISOLATED_TOKENS = 1024


class LlamaCppRunner(ModelRunner):
    """One loaded GGUF model with a KV cache that all its sequences share."""

    isolated_sequence: int
    special_capabilities = frozenset({Capability.ADAPTER})

    def __init__(self, model: LocalModel, header: GgufHeader, options: LoadOptions) -> None:
        import llama_cpp

        log.silence()
        llama_cpp.llama_backend_init()
        self._lib = llama_cpp
        self._model: Any = None
        self._shared: Lane | None = None
        self._isolated: Lane | None = None
        self._adapters: Adapters | None = None
        try:
            with log.captured() as lines:
                self._model = load_model(model.path, header, options)
                if not self._model:
                    raise load_error(lines)
                self._describe(header)
                self._adapters = Adapters(self._model, model.files or (model.path,), options.adapters)
                self._open_context(options, lines)
                self.state_version = self._state_version(header)
        except BaseException:
            self.close()
            raise

    def _describe(self, header: GgufHeader) -> None:
        lib, model = self._lib, self._model
        if lib.llama_model_has_encoder(model) or not lib.llama_model_has_decoder(model):
            raise ModelUnsupported("not a decoder-only model", architecture=header.architecture)
        if lib.llama_model_is_recurrent(model) or lib.llama_model_is_hybrid(model):
            # Their state cannot be cut back to an earlier position, which prefix reuse and scoring need.
            raise ModelUnsupported("models with recurrent state are not supported", architecture=header.architecture)
        if lib.llama_model_is_diffusion(model):
            raise ModelUnsupported("diffusion models are not supported", architecture=header.architecture)
        vocab = lib.llama_model_get_vocab(model)
        if lib.llama_vocab_type(vocab) == lib.LLAMA_VOCAB_TYPE_NONE:
            raise ModelUnsupported("the model file has no tokeniser", architecture=header.architecture)
        self._vocab = vocab
        self._vocabulary = Vocabulary(vocab)
        self.vocabulary = self._vocabulary.size
        self.end_tokens = self._vocabulary.end_tokens
        begin = lib.llama_vocab_bos(vocab)
        self.begin_token = begin if begin >= 0 and lib.llama_vocab_get_add_bos(vocab) else None
        template = lib.llama_model_chat_template(model, None)
        self.chat_template = template.decode("utf-8", "replace") if template else None
        self.template_variables = {
            "bos_token": self._vocabulary.text(begin),
            "eos_token": self._vocabulary.text(lib.llama_vocab_eos(vocab)),
        }

    def _open_context(self, options: LoadOptions, lines: Iterable[str]) -> None:
        lib = self._lib
        trained: int = lib.llama_model_n_ctx_train(self._model)
        wanted = min(trained, DEFAULT_CONTEXT) if options.context_tokens is None else options.context_tokens
        if wanted < 1 or options.max_sequences < 1 or options.batch_tokens < 1:
            raise ConfigurationError("context_tokens, max_sequences and batch_tokens must be at least 1")
        if options.max_sequences > (most := lib.llama_max_parallel_sequences()):
            raise ConfigurationError(f"llama.cpp runs at most {most} sequences")
        rows = min(options.batch_tokens, wanted)
        self._sizes = LaneOptions(
            wanted,
            options.max_sequences,
            rows,
            max(_MAX_LOGITS, options.max_sequences),
            options.threads or usable_cores(),
            options.kv_type,
        )
        try:
            self._shared = Lane(self._model, self._sizes, self.vocabulary)
        except LoadFailed:
            raise load_error(lines) from None
        self.cache_tokens = self._shared.tokens
        self.context_tokens = min(wanted, trained)
        self.max_sequences = options.max_sequences
        self.max_batch_tokens = self._shared.rows
        self.max_logits = self._sizes.logits
        self.isolated_sequence = options.max_sequences
        self.most_parts = options.max_sequences if self._shared.can_move else 1

    def _state_version(self, header: GgufHeader) -> str:
        """What states depend on besides the model.

        Models with a second set of rotation factors take it where the context is larger than what they began with.
        """
        key, value = f"{header.architecture}.rope.scaling.original_context_length", ctypes.create_string_buffer(32)
        scaled = self._lib.llama_model_meta_val_str(self._model, key.encode(), value, len(value)) >= 0
        room = f", context {self.cache_tokens}" if scaled else ""
        return f"llama.cpp {self._lib.__version__}{room}"

    def tokenize(self, segments: Sequence[Segment]) -> list[int]:
        """See `ModelRunner.tokenize`."""
        return self._vocabulary.tokenize(segments)

    def token_bytes(self, token: int) -> bytes:
        """See `ModelRunner.token_bytes`."""
        return self._vocabulary.token_bytes(token)

    def forward(self, batch: Batch) -> NDArray[np.float32]:
        """See `ModelRunner.forward`; the array is a view of llama.cpp's own buffer."""
        if self._shared is None or self._adapters is None:
            raise GenerationFailed("the model is closed")
        adapter = self._adapters.handle(batch.adapter)
        if self.isolated_sequence in batch.sequences:
            lane = self._isolated_lane(max(batch.positions) + 1)
            return lane.forward(0, batch.positions, batch.tokens, batch.logits, adapter)
        return self._shared.forward(batch.sequences, batch.positions, batch.tokens, batch.logits, adapter)

    def adapter_digest(self, name: str) -> str:
        """See `ModelRunner.adapter_digest`."""
        if self._adapters is None:
            raise ConfigurationError("the model is closed")
        return self._adapters.digest(name)

    def arrange(self, parts: int) -> None:
        """See `ModelRunner.arrange`.

        Raises:
            GenerationFailed: there is no memory for it. MemoryError: nor is there for what was before.
        """
        if self._shared is None:
            raise GenerationFailed("the model is closed")
        sizes = replace(self._sizes, parts=parts)
        self._shared.close()  # first: there is no room for two caches
        self._shared = None
        for each in (sizes, self._sizes):
            try:
                self._shared = Lane(self._model, each, self.vocabulary)
                break
            except LoadFailed:
                continue
        if self._shared is None:
            raise MemoryError
        if self._shared.parts != parts:
            raise GenerationFailed("there is no memory to arrange the cache anew")

    def kv_copy(self, source: int, target: int, start: int, end: int) -> None:
        """See `ModelRunner.kv_copy`."""
        if self._shared is not None:
            self._shared.copy(source, target, start, end)

    def kv_remove(self, sequence: int, start: int, end: int | None) -> None:
        """See `ModelRunner.kv_remove`."""
        lane, sequence = self._lane(sequence)
        if lane is not None:
            lane.remove(sequence, start, end)

    def kv_save(self, sequence: int) -> bytes:
        """See `ModelRunner.kv_save`."""
        lane, sequence = self._lane(sequence)
        return b"" if lane is None else lane.save(sequence)

    def kv_load(self, sequence: int, data: bytes) -> None:
        """See `ModelRunner.kv_load`.

        Raises:
            GenerationFailed: the data is not a state of this model, or does not fit.
        """
        lane, sequence = self._lane(sequence)
        if lane is None:
            raise GenerationFailed("there is no cache to load into")
        lane.load(sequence, data)

    def _lane(self, sequence: int) -> tuple[Lane | None, int]:
        """Where a sequence lives, and its number there."""
        return (self._isolated, 0) if sequence == self.isolated_sequence else (self._shared, sequence)

    def _isolated_lane(self, tokens: int) -> Lane:
        """The context of the isolated sequence, made when it is first used and doubled when it is full.

        Attention over the shared cache adds up its cells in the order and alignment they happen to lie in, which
        changes the last bits; a cache of its own always looks the same.
        """
        lane = self._isolated
        if lane is not None and lane.tokens >= tokens:
            return lane
        size = lane.tokens if lane is not None else _ISOLATED_TOKENS
        while size < tokens:
            size *= 2
        sizes = replace(self._sizes, tokens=min(size, self.cache_tokens), sequences=1)
        grown = Lane(self._model, sizes, self.vocabulary)
        self._isolated = grown
        if lane is not None:
            state = lane.save(0)
            lane.close()
            grown.load(0, state)
        return grown

    def grammar_tokenizer(self) -> Any:
        """See `ModelRunner.grammar_tokenizer`."""
        from llguidance.llamacpp import lltokenizer_from_vocab

        first = self._lib.llama_vocab_eos(self._vocab)
        ends = [first, *sorted(self.end_tokens - {first})] if first >= 0 else sorted(self.end_tokens)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # llguidance calls functions that llama.cpp renamed
            return lltokenizer_from_vocab(self._vocab, eos_token=ends)

    def close(self) -> None:
        """Free the contexts, the adapters and the weights; may be called twice."""
        for lane in (self._shared, self._isolated):
            if lane is not None:
                lane.close()
        self._shared = self._isolated = None
        if self._adapters is not None:
            self._adapters.close()
            self._adapters = None
        if self._model:
            self._lib.llama_model_free(self._model)
            self._model = None


def usable_cores() -> int:
    """Cores that this process may run on: llama.cpp's own default of four threads ignores the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_model(path: str, header: GgufHeader, options: LoadOptions) -> Any:
    """Have llama.cpp load a file; nothing where it refuses, and `load_error` then says why."""
    import llama_cpp

    params = llama_cpp.llama_model_default_params()
    # llama.cpp's AMX kernels crash on some machines that announce AMX (ggml-org/llama.cpp#20824, #26954); there is no
    # switch for them alone, so the rearranged layouts are given up where the build has them.
    params.use_extra_bufts = b"AMX_INT8 = 1" not in llama_cpp.llama_print_system_info()
    total = sum(header.tensor_types.values())
    repacked = sum(values for kind, values in header.tensor_types.items() if kind in _REPACKED_TYPES)
    mapped = not params.use_extra_bufts or repacked * 2 < total
    params.load_mode = llama_cpp.LLAMA_LOAD_MODE_MMAP if mapped else llama_cpp.LLAMA_LOAD_MODE_NONE
    params.n_gpu_layers = 0
    callback, failure = _progress(options.on_progress)
    params.progress_callback = llama_cpp.llama_progress_callback(callback)
    model = llama_cpp.llama_model_load_from_file(path.encode(), params)
    if failure:
        if model:
            llama_cpp.llama_model_free(model)
        raise failure[0]
    return model


def _progress(
    report: Callable[[float], None] | None,
) -> tuple[Callable[[float, Any], bool], list[BaseException]]:
    """A callback for llama.cpp, and where it leaves the exception of `report`: none may pass through C code."""
    failure: list[BaseException] = []

    def callback(share: float, _data: Any) -> bool:
        if report is None:
            return True
        try:
            report(share)
        except BaseException as error:  # noqa: BLE001 - raised again by the caller
            failure.append(error)
        return not failure

    return callback, failure


_CORRUPT = re.compile(
    r"corrupt|incomplete|not within the file bounds|invalid magic|failed to read|missing tensor|wrong number of tensors"
    r"|wrong shape|unexpectedly reached end|invalid ggml type|bad_alloc|duplicated tensor|key not found|gguf_init_from",
)


def load_error(lines: Iterable[str]) -> LoadFailed | ModelCorrupt | ModelUnsupported:
    """The error that fits what llama.cpp logged."""
    text = "".join(lines)
    if match := re.search(r"unknown (?:model architecture|pre-tokenizer type|tokenizer)\b:? *'([^']*)'", text):
        return ModelUnsupported(f"llama.cpp does not know {match[0][8:]}", architecture=match[1])
    if re.search(r"failed to allocate|unable to allocate|cannot allocate memory", text, re.IGNORECASE):
        return LoadFailed("not enough memory for the model", hint="use a smaller model, or a smaller context")
    if _CORRUPT.search(text):
        return ModelCorrupt("llama.cpp refuses the model file: it is damaged or incomplete")
    return LoadFailed("llama.cpp could not load the model")
