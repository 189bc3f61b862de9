"""llama.cpp's quantisation of a whole file, run in a thread of a worker and followed by its log."""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ondevice_sdk.backends.llama_cpp import log
from ondevice_sdk.errors import LoadFailed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_POLL_S: Final = 0.1
_TENSOR: Final = re.compile(r"\[ *(\d+)/ *(\d+)\]")
# Most bytes of a matrix that are kept as numbers of 32 bits at a time; llama.cpp's own 8 GB would hold any whole one.
_ROWS_BYTES: Final = 256 << 20


def rewrite(
    source: str,
    target: str,
    *,
    file_type: int,
    threads: int,
    kinds: Mapping[str, int] | None = None,
    importance: Mapping[str, NDArray[np.float32]] | None = None,
) -> Generator[float, None, None]:
    """Make `target` of `source`; yields the share of the tensors that is done, often the same one again.

    Args:
        source: a GGUF file.
        target: a path where nothing is yet.
        file_type: llama.cpp's number of the quantisation, which chooses the formats.
        threads: that work at it.
        kinds: ggml's number of the format of tensors that get another one, by their names.
        importance: of each input of a matrix, by the name of the matrix.

    Raises:
        LoadFailed: llama.cpp could not read or write a file.
    """
    import llama_cpp

    log.silence()
    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread = threads
    params.allow_requantize = True
    params.max_buf_size = _ROWS_BYTES
    params.ftype = file_type
    if kinds:
        overrides = _overrides(llama_cpp, kinds)
        params.tt_overrides = overrides
    if importance:
        matrices = _matrices(llama_cpp, importance)
        params.imatrix = matrices
    status: list[int] = []

    def work() -> None:
        status.append(llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)))

    with log.captured() as lines:
        thread = threading.Thread(target=work, name="ondevice-rewriting", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(_POLL_S)
            yield _share(tuple(lines))
    if status != [0]:
        raise LoadFailed("llama.cpp could not write the model in another format")


def _overrides(library: Any, kinds: Mapping[str, int]) -> Any:
    made = (library.llama_model_tensor_override * (len(kinds) + 1))()  # the last one, empty, ends the list
    for place, (name, kind) in enumerate(kinds.items()):
        made[place].pattern = f"^{re.escape(name)}$".encode()
        made[place].type = kind
    return made


def _matrices(library: Any, importance: Mapping[str, NDArray[np.float32]]) -> Any:
    """The list as llama.cpp takes it; it points into the arrays, which must stay."""
    made = (library.llama_model_imatrix_data * (len(importance) + 1))()
    for place, (name, values) in enumerate(importance.items()):
        made[place].name = name.encode()
        made[place].data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        made[place].size = values.size
    return made


def _share(lines: Sequence[str]) -> float:
    for line in reversed(lines):
        if (match := _TENSOR.search(line)) is not None:
            return min(1.0, int(match[1]) / max(1, int(match[2])))
    return 0.0
