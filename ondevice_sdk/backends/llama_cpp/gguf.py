"""The header of a GGUF file, read and checked in Python before native code sees the file.

Source of the layout: the GGUF specification, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from ondevice_sdk.errors import LoadFailed, ModelCorrupt

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # value type -> bytes
_MAX_DIMENSIONS = 4
_MAX_ALIGNMENT = 1 << 20
_MAX_NESTING = 4


@dataclass(frozen=True, slots=True)
class Header:
    """What the header says: the architecture, and the types of the tensors with the numbers of their values."""

    architecture: str
    tensor_types: dict[int, int]


def read_header(path: str) -> Header:
    """Read and check the header.

    Raises:
        ModelCorrupt: not a GGUF file, or cut short, or with impossible counts. LoadFailed: it cannot be read.
    """
    try:
        size = Path(path).stat().st_size
        with Path(path).open("rb") as file:
            start = file.read(4)
            if start != _MAGIC:
                raise ModelCorrupt("this is not a GGUF file", expected=_MAGIC.decode(), actual=start.hex())
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(data, size).header()
    except OSError as error:
        raise LoadFailed(f"the model file cannot be read: {error.strerror}") from error
    except (struct.error, IndexError) as error:
        raise ModelCorrupt("the GGUF header is cut short") from error


class _Reader:
    def __init__(self, data: mmap.mmap, size: int) -> None:
        self._data = data
        self._size = size
        self._at = len(_MAGIC)

    def header(self) -> Header:
        version = self._number("<I")
        if version not in _VERSIONS:
            raise ModelCorrupt("unknown version of GGUF", expected="2 or 3", actual=str(version))
        tensors, pairs = self._number("<Q"), self._number("<Q")
        # The least that a tensor (24 bytes) and a pair (13 bytes) can take: refuses absurd counts before any loop.
        if tensors * 24 + pairs * 13 > self._size:
            raise ModelCorrupt("the GGUF header promises more than the file holds")
        architecture, alignment = "", 32
        for _ in range(pairs):
            key, kind = self._string(), self._number("<I")
            if key == b"general.architecture" and kind == _STRING:
                architecture = self._string().decode("utf-8", "replace")
            elif key == b"general.alignment" and kind == 4:
                alignment = self._number("<I")
            else:
                self._skip(kind)
        if not architecture:
            raise ModelCorrupt("the GGUF header names no architecture")
        if not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
            raise ModelCorrupt("the GGUF header has an impossible alignment", actual=str(alignment))
        return Header(architecture, self._tensors(tensors, alignment))

    def _tensors(self, count: int, alignment: int) -> dict[int, int]:
        types: dict[int, int] = {}
        furthest = 0
        for _ in range(count):
            self._string()
            dimensions = self._number("<I")
            if dimensions > _MAX_DIMENSIONS:
                raise ModelCorrupt("a tensor has too many dimensions", actual=str(dimensions))
            values = 1
            for _ in range(dimensions):
                values *= self._number("<Q")
            kind, offset = self._number("<I"), self._number("<Q")
            types[kind] = types.get(kind, 0) + values
            furthest = max(furthest, offset + 1 if values else 0)
        start = -(-self._at // alignment) * alignment
        if start + furthest > self._size:
            raise ModelCorrupt("the model file is cut short", actual=f"{self._size} bytes")
        return types

    def _number(self, layout: str) -> int:
        (value,) = struct.unpack_from(layout, self._data, self._at)
        self._at += struct.calcsize(layout)
        return int(value)

    def _advance(self, count: int) -> None:
        if count > self._size - self._at:
            raise ModelCorrupt("the GGUF header is cut short")
        self._at += count

    def _string(self) -> bytes:
        length = self._number("<Q")
        start = self._at
        self._advance(length)
        return self._data[start : self._at]

    def _skip(self, kind: int, depth: int = 0) -> None:
        if kind in _SCALARS:
            self._advance(_SCALARS[kind])
        elif kind == _STRING:
            self._advance(self._number("<Q"))
        elif kind == _ARRAY and depth < _MAX_NESTING:
            inner, count = self._number("<I"), self._number("<Q")
            if inner in _SCALARS:
                self._advance(count * _SCALARS[inner])
                return
            if count * 8 > self._size:
                raise ModelCorrupt("the GGUF header promises more than the file holds")
            for _ in range(count):
                self._skip(inner, depth + 1)
        else:
            raise ModelCorrupt("the GGUF header has a value of unknown type", actual=str(kind))
