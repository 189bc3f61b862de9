"""Find out how strongly a text drives the inputs of each matrix of a model. Runs in a worker.

llama.cpp calls back after each operation of a pass that the callback asks for; the right side of a product with a
matrix of weights is read there.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ondevice_sdk.backends.api import LoadOptions
from ondevice_sdk.backends.llama_cpp import log, material, matrix
from ondevice_sdk.backends.llama_cpp.compensate import group_size
from ondevice_sdk.backends.llama_cpp.matrix import Driven
from ondevice_sdk.backends.llama_cpp.runner import load_error, load_model
from ondevice_sdk.backends.llama_cpp.sizes import ROWS_AT_A_TIME
from ondevice_sdk.backends.llama_cpp.vocabulary import Vocabulary
from ondevice_sdk.catalogue.gguf import read_header
from ondevice_sdk.errors import (
    BackendUnavailable,
    ConfigurationError,
    GenerationFailed,
    LoadFailed,
    ModelUnsupported,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LAST: Final = b"result_norm"  # llama.cpp's name of what goes into the matrix of the vocabulary, which is not needed
_F32: Final = 0
# Most columns whose products are collected together. The memory for them is in proportion: 0.4 GB for a model of 0.6B.
# Of SmolLM2's 576 and 1,536 columns that makes groups of 288 and 512, which bring KL from half of plain's to 0.37.
_GROUP: Final = 512
_OPERATIONS: Final = 256  # more than ggml has


class _Tensor(ctypes.Structure):
    """ggml's own description of a tensor, as far as it is read here; `_Reader` checks that it fits the library."""

    _fields_ = (
        ("type", ctypes.c_int32),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int32),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
    )


def write(
    *, source: str, target: str, text: str, tokens: int, window: int, threads: int
) -> Generator[float, None, None]:
    """Read a text with a model and write the importance matrix; yields the share that is done, in whole percents.

    Args:
        source: a GGUF file.
        target: where the matrix goes.
        text: what is read, in the form that `material` describes.
        tokens: most of it that are read; whole windows, at least one.
        window: tokens that are read with one context.
        threads: to compute with.

    Raises:
        ConfigurationError: the text is shorter than a window, or that larger than the model's context. ModelCorrupt,
        ModelUnsupported, LoadFailed. BackendUnavailable: this version of llama.cpp is not known.
        GenerationFailed: llama.cpp failed, or the model computes numbers that are not finite.
    """
    with _loaded(source) as (model, vocabulary):
        windows = _split(model, vocabulary, text, tokens, window)
        collector = Collector()
        told = 0
        with _context(model, window, threads, collector) as context:
            for done, each in enumerate(windows, start=1):
                _read(context, each, collector)
                if 100 * done // len(windows) > told:
                    told = 100 * done // len(windows)
                    if told < 100:
                        yield told / 100
        if not collector.found:
            raise ModelUnsupported(
                "no matrix of weights was seen at work", architecture=read_header(source).architecture
            )
        digest = hashlib.sha256(text.encode()).hexdigest()
        matrix.write(target, collector.found, text=f"sha256:{digest}", windows=len(windows), window=window)
        yield 1.0


@contextmanager
def _loaded(source: str) -> Iterator[tuple[Any, Vocabulary]]:
    import llama_cpp

    header = read_header(source)
    log.silence()
    llama_cpp.llama_backend_init()
    with log.captured() as lines:
        model = load_model(source, header, LoadOptions())
        if not model:
            raise load_error(lines)
    try:
        if llama_cpp.llama_model_has_encoder(model) or not llama_cpp.llama_model_has_decoder(model):
            raise ModelUnsupported("not a decoder-only model", architecture=header.architecture)
        vocab = llama_cpp.llama_model_get_vocab(model)
        if llama_cpp.llama_vocab_type(vocab) == llama_cpp.LLAMA_VOCAB_TYPE_NONE:
            raise ModelUnsupported("the model file has no tokeniser", architecture=header.architecture)
        yield model, Vocabulary(vocab)
    finally:
        llama_cpp.llama_model_free(model)


@contextmanager
def _context(model: Any, window: int, threads: int, collector: Collector) -> Iterator[Any]:
    import llama_cpp

    callback = llama_cpp.ggml_backend_sched_eval_callback(collector.called)
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = window
    params.n_batch = params.n_ubatch = params.n_outputs_max = min(ROWS_AT_A_TIME, window)
    params.n_seq_max = 1
    params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.no_perf = True
    params.n_threads = params.n_threads_batch = threads
    params.cb_eval = callback
    context = llama_cpp.llama_init_from_model(model, params)
    if not context:
        raise LoadFailed("llama.cpp could not make a context", hint="use a smaller window")
    try:
        yield context
    finally:
        llama_cpp.llama_free(context)


def _split(model: Any, vocabulary: Vocabulary, text: str, tokens: int, window: int) -> list[list[int]]:
    """Windows of the text's first tokens; the begin token takes the first place of each."""
    import llama_cpp

    limit = llama_cpp.llama_model_n_ctx_train(model)
    if not 1 <= window <= limit:
        raise ConfigurationError(f"the window has {window} tokens, the model reads between 1 and {limit}")
    found: list[int] = []
    vocab = llama_cpp.llama_model_get_vocab(model)
    begin = llama_cpp.llama_vocab_bos(vocab)
    template = llama_cpp.llama_model_chat_template(model, None)
    variables = {"bos_token": vocabulary.text(begin), "eos_token": vocabulary.text(llama_cpp.llama_vocab_eos(vocab))}
    for piece in material.lay_out(text, template.decode("utf-8", "replace") if template else None, variables):
        found += vocabulary.tokenize(piece)
    count = min(len(found), tokens) // window
    if count < 1:
        raise ConfigurationError(
            f"the text has {len(found)} tokens; at least a window of {window} is needed",
            hint="give more text, or use a smaller window",
        )
    windows = [found[start : start + window] for start in range(0, count * window, window)]
    if begin >= 0 and llama_cpp.llama_vocab_get_add_bos(vocab):
        for each in windows:
            each[0] = begin
    return windows


def _read(context: Any, tokens: Sequence[int], collector: Collector) -> None:
    """Run a window. Every row asks for logits: of the others the last layer computes nothing."""
    import llama_cpp

    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), False)
    rows = int(llama_cpp.llama_n_batch(context))
    batch = llama_cpp.llama_batch_init(rows, 0, 1)
    try:
        for start in range(0, len(tokens), rows):
            piece = tokens[start : start + rows]
            batch.n_tokens = len(piece)
            for row, token in enumerate(piece):
                batch.token[row] = token
                batch.pos[row] = start + row
                batch.n_seq_id[row] = 1
                batch.seq_id[row][0] = 0
                batch.logits[row] = 1
            collector.begin()
            status = llama_cpp.llama_decode(context, batch)
            if collector.failure is not None:
                raise collector.failure
            if status != 0:
                raise GenerationFailed(f"llama.cpp could not run the batch (status {status})")
        collector.settle()
    finally:
        llama_cpp.llama_batch_free(batch)


class Collector:
    """Adds up the squares of the inputs of all matrices of the layers.

    Attributes:
        found: by the name of the matrix.
        failure: what went wrong in a callback, through which no exception can pass.
    """

    def __init__(self) -> None:
        self.found: dict[str, Driven] = {}
        self.failure: Exception | None = None
        self._product, self._of_experts = _operation("MUL_MAT"), _operation("MUL_MAT_ID")
        self._checked = False
        self._inputs: dict[int, str] = {}  # of this pass: where a tensor lies, and the first matrix that it went into
        self._rows: dict[str, list[NDArray[np.float32]]] = {}  # inputs whose products are not added up yet

    def begin(self) -> None:
        """Another pass begins."""
        self._inputs.clear()

    def called(self, address: int, ask: bool, _data: Any) -> bool:
        """Asked before an operation whether it is of interest, and called after it; False then ends the pass."""
        if self.failure is not None:
            return False
        try:
            tensor = _Tensor.from_address(address)
            if not self._checked:
                _check_layout(address, tensor)
                self._checked = True
            if tensor.op == self._of_experts:
                raise ModelUnsupported("the importance of experts cannot be collected", architecture="")
            if tensor.name == _LAST:
                return ask
            if tensor.op != self._product:
                return not ask
            weights = _Tensor.from_address(tensor.src[0])
            name: bytes = weights.name
            if not (name.startswith(b"blk.") and name.endswith(b".weight")):
                return not ask
            if not ask:
                self._add(name.decode(), tensor.src[1])
        except Exception as error:  # noqa: BLE001 - raised again when llama.cpp has returned
            self.failure = error
            return False
        return True

    def _add(self, name: str, address: int) -> None:
        import numpy as np

        rows = _values(_Tensor.from_address(address))
        driven = self.found.get(name)
        if driven is None:
            driven = self.found[name] = Driven(np.zeros(rows.shape[1]), shared=self._inputs.get(address, ""))
        squares = np.einsum("ij,ij->j", rows, rows)
        if not np.isfinite(squares).all():
            raise GenerationFailed("the model computes numbers that are not finite")
        driven.sums += squares
        driven.tokens += len(rows)
        if address not in self._inputs:
            self._inputs[address] = name
            self._rows.setdefault(name, []).append(rows.copy())

    def settle(self) -> None:
        """Add up the products of the inputs seen since the last time.

        Not while llama.cpp computes: its threads wait for the next operation without sleeping, and those of numpy would
        have to share the cores with them (three times as slow on two cores).
        """
        import numpy as np

        for name, pieces in self._rows.items():
            rows, driven = np.concatenate(pieces), self.found[name]
            pieces.clear()
            size = group_size(rows.shape[1], _GROUP)
            if driven.products is None:
                driven.products = np.zeros((rows.shape[1] // size, size, size), np.float32)
            for group, products in enumerate(driven.products):
                part = rows[:, group * size : (group + 1) * size]
                products += part.T @ part


def _values(tensor: _Tensor) -> NDArray[np.float32]:
    """The rows of a matrix of 32-bit numbers, in place."""
    import numpy as np

    columns, *others = tensor.ne
    sizes, strides = (columns, *others), tuple(tensor.nb)
    whole = all(strides[axis + 1] == strides[axis] * sizes[axis] for axis in range(3))
    if tensor.type != _F32 or strides[0] != 4 or not whole or not tensor.data:
        raise BackendUnavailable("the importance matrix cannot be read", reason="llama.cpp multiplies other numbers")
    count = others[0] * others[1] * others[2]
    data = (ctypes.c_float * (columns * count)).from_address(tensor.data)
    return np.frombuffer(data, np.float32).reshape(count, columns)


def _check_layout(address: int, tensor: _Tensor) -> None:
    """See that ggml finds the same in it: what follows the inputs in memory lies where it should."""
    base = _base()
    if tensor.name != base.ggml_get_name(address) or tensor.data != base.ggml_get_data(address):
        raise BackendUnavailable(
            "the importance matrix cannot be read",
            reason="this version of llama.cpp keeps its tensors in another way",
            hint="install the version of llama-cpp-python that the SDK was tested with",
        )


def _operation(name: str) -> int:
    """The number of an operation, which is another in each version of ggml."""
    base = _base()
    for number in range(_OPERATIONS):
        if base.ggml_op_name(number) == name.encode():
            return number
    raise BackendUnavailable("the importance matrix cannot be read", reason=f"llama.cpp has no operation {name}")


@cache
def _base() -> Any:
    """The part of llama.cpp that knows tensors."""
    import llama_cpp

    folder = Path(llama_cpp.__file__).parent / "lib"
    found = next((folder / name for name in _LIBRARIES if (folder / name).exists()), None)
    if found is None:
        raise BackendUnavailable("the importance matrix cannot be read", reason="llama.cpp's base library is not found")
    base = ctypes.CDLL(str(found))
    base.ggml_op_name.argtypes, base.ggml_op_name.restype = [ctypes.c_int], ctypes.c_char_p
    base.ggml_get_name.argtypes, base.ggml_get_name.restype = [ctypes.c_void_p], ctypes.c_char_p
    base.ggml_get_data.argtypes, base.ggml_get_data.restype = [ctypes.c_void_p], ctypes.c_void_p
    return base


_LIBRARIES: Final = ("libggml-base.so", "libggml-base.dylib", "ggml-base.dll")
