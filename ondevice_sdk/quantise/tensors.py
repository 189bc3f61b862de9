"""A GGUF file written anew in 32 bits, tensor by tensor in any order. Runs in a worker, on numpy.

Files are read and never mapped: a page that is read counts as the system's memory, not as that of the process.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import IO, Final

import numpy as np
from numpy.typing import NDArray

from ondevice_sdk.catalogue import gguf, layout
from ondevice_sdk.catalogue.gguf import GgufFile, GgufTensor
from ondevice_sdk.errors import ModelCorrupt
from ondevice_sdk.store.files import create

Array = NDArray[np.float32]

_VERSION: Final = 3
_F32: Final = 0  # ggml's number of the format, and llama.cpp's of a file in it
_FILE_TYPE: Final = "general.file_type"
_CHUNK: Final = 1 << 20  # values that are copied at a time


class Rewriter:
    """Reads the tensors of a file as 32 bits, and writes another with the same metadata and the same order of tensors.

    A context manager: left with an exception, it removes the new file. All tensors are F32, F16 or BF16, and each has
    to be written or copied once.
    """

    def __init__(self, source: Path, target: Path, file: GgufFile) -> None:
        self._source_path, self._target_path = source, target
        self._head, self._offsets, self._size = _plan(file)
        self._source: BufferedReader
        self._target: IO[bytes]

    def __enter__(self) -> Rewriter:
        self._source = self._source_path.open("rb")
        try:
            self._target = os.fdopen(create(self._target_path), "wb")
        except BaseException:
            self._source.close()
            raise
        try:
            self._target.write(self._head)
            self._target.truncate(self._size)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.close()
        try:
            self._target.close()  # writes what is still buffered
        except OSError:
            self._target_path.unlink(missing_ok=True)
            raise
        if kind is not None:
            self._target_path.unlink(missing_ok=True)

    def read(self, tensor: GgufTensor) -> Array:
        """A tensor of the source, (rows, columns) or (columns,)."""
        values = self._read(tensor, 0, tensor.values)
        return values if tensor.rows == 1 else values.reshape(tensor.rows, tensor.columns)

    def write(self, tensor: GgufTensor, values: Array) -> None:
        """Write what takes the place of a tensor of the source."""
        self._target.seek(self._offsets[tensor.name])
        self._target.write(np.ascontiguousarray(values, "<f4").data.cast("B"))

    def copy(self, tensor: GgufTensor) -> Iterator[int]:
        """Write a tensor as it is in the source; yields after each piece how many values it had."""
        for start in range(0, tensor.values, _CHUNK):
            values = self._read(tensor, start, min(_CHUNK, tensor.values - start))
            self._target.seek(self._offsets[tensor.name] + 4 * start)
            self._target.write(values.data.cast("B"))
            yield len(values)

    def _read(self, tensor: GgufTensor, start: int, count: int) -> Array:
        kind = layout.NUMBERS[tensor.kind]
        size = layout.BLOCKS[kind][1]
        raw = np.empty(count, f"<u{size}")
        self._source.seek(tensor.offset + size * start)
        if self._source.readinto(raw.data.cast("B")) != raw.nbytes:
            raise ModelCorrupt("the model file was cut while it was read")
        return _widened(raw, kind)


def _widened(raw: NDArray[np.unsignedinteger], kind: str) -> Array:
    if kind == "F16":
        return raw.view("<f2").astype("<f4")
    if kind == "BF16":
        wide = raw.astype("<u4")
        wide <<= 16
        return wide.view("<f4")
    return raw.view("<f4")


def _plan(file: GgufFile) -> tuple[bytes, dict[str, int], int]:
    """The head of the new file, where in it each tensor begins, and its size."""
    alignment = file.metadata.get("general.alignment", 32)
    assert isinstance(alignment, int)
    pairs = bytearray(file.pairs)
    if isinstance(file.metadata.get(_FILE_TYPE), int):
        struct.pack_into("<I", pairs, file.places[_FILE_TYPE], _F32)
    head = bytearray(gguf.MAGIC + struct.pack("<IQQ", _VERSION, len(file.tensors), len(file.metadata)) + pairs)
    relative: dict[str, int] = {}
    size = 0
    for tensor in file.tensors:
        relative[tensor.name] = size
        name, sizes = tensor.name.encode(), file.sizes[tensor.name]
        head += struct.pack(f"<Q{len(name)}sI{len(sizes)}QIQ", len(name), name, len(sizes), *sizes, _F32, size)
        size += -(-4 * tensor.values // alignment) * alignment
    start = -(-len(head) // alignment) * alignment
    return bytes(head.ljust(start, b"\0")), {name: start + offset for name, offset in relative.items()}, start + size
