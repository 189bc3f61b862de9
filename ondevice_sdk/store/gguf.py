"""Check a GGUF file by its content, without a runtime.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (little-endian, versions 2 and 3).
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from ondevice_sdk.errors import ModelCorrupt

MAGIC = b"GGUF"
_MAX_ENTRIES = 1 << 20  # of metadata or tensors; the largest models have some thousand
_MAX_NESTING = 4
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "B", 10: "<Q", 11: "<q", 12: "<d"}
# type number -> (values of a block, bytes of a block)
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 24: (1, 1), 25: (1, 2),
    26: (1, 4), 27: (1, 8), 28: (1, 8), 30: (1, 2),
}  # fmt: skip
_INT4_FILE_TYPES = {2, 3, 14, 15, 25, 30}  # Q4_0, Q4_1, Q4_K_S, Q4_K_M, IQ4_NL, IQ4_XS
_INT8_FILE_TYPES = {7}  # Q8_0


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What the head of a file says. `file_type` is llama.cpp's number for the quantisation, None if not given."""

    architecture: str
    name: str
    file_type: int | None
    tensors: int

    @property
    def precision(self) -> str:
        """`int4`, `int8`, or `other`."""
        if self.file_type in _INT4_FILE_TYPES:
            return "int4"
        return "int8" if self.file_type in _INT8_FILE_TYPES else "other"


def read_header(path: Path) -> GgufHeader:
    """Walk the header and check that every tensor lies inside the file, so that a cut file is noticed.

    Raises:
        ModelCorrupt: it is not a whole GGUF file.
    """
    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            raise ModelCorrupt(f"{path.name} is not a GGUF file", expected="GGUF")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _Walk(data).header()
            except (struct.error, UnicodeDecodeError, ValueError) as error:
                raise ModelCorrupt(f"{path.name} is a damaged or cut GGUF file: {error}", expected="GGUF") from error


class _Walk:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._size = len(data)
        self._at = len(MAGIC)

    def header(self) -> GgufHeader:
        version = self._number("<I")
        if version not in (2, 3):
            raise ValueError(f"version {version} is not known")
        tensors, entries = self._number("<Q"), self._number("<Q")
        if tensors > _MAX_ENTRIES or entries > _MAX_ENTRIES:
            raise ValueError("implausible counts")
        values: dict[str, int | float | str | None] = {}
        for _ in range(entries):
            key = self._string()
            values[key] = self._value(self._number("<I"))
        self._check_tensors(tensors, values.get("general.alignment"))
        file_type = values.get("general.file_type")
        return GgufHeader(
            architecture=str(values.get("general.architecture") or ""),
            name=str(values.get("general.name") or ""),
            file_type=file_type if isinstance(file_type, int) else None,
            tensors=tensors,
        )

    def _check_tensors(self, count: int, alignment: int | float | str | None) -> None:
        align = alignment if isinstance(alignment, int) and alignment > 0 else 32
        end = 0
        for _ in range(count):
            self._string()
            dimensions = self._number("<I")
            if dimensions > 8:
                raise ValueError("a tensor has too many dimensions")
            values = 1
            for _ in range(dimensions):
                values *= self._number("<Q")
            kind, offset = self._number("<I"), self._number("<Q")
            block_values, block_bytes = _BLOCKS.get(kind, (1, 0))  # of an unknown type only the start is checked
            end = max(end, offset + values // block_values * block_bytes)
        start = -(-self._at // align) * align
        if count and start + end > self._size:
            raise ValueError(f"it should have {start + end} bytes and has {self._size}")

    def _number(self, form: str) -> int:
        number: int = struct.unpack_from(form, self._data, self._at)[0]
        self._at += struct.calcsize(form)
        return number

    def _skip(self, length: int) -> int:
        """Step over some bytes; where they begin."""
        start = self._at
        if length > self._size - start:
            raise ValueError("it ends inside its header")
        self._at = start + length
        return start

    def _string(self) -> str:
        length = self._number("<Q")
        start = self._skip(length)
        return self._data[start : start + min(length, 1 << 16)].decode("utf-8", "replace")

    def _value(self, kind: int, nesting: int = 0) -> int | float | str | None:
        if kind == _STRING:
            return self._string()
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind != _ARRAY or nesting >= _MAX_NESTING:
            raise ValueError("an unknown kind of metadata")
        item, count = self._number("<I"), self._number("<Q")
        if count > self._size:
            raise ValueError("implausible counts")
        if item in _SCALARS:
            self._skip(count * struct.calcsize(_SCALARS[item]))
        elif item == _STRING:
            for _ in range(count):
                self._skip(self._number("<Q"))
        else:
            for _ in range(count):
                self._value(item, nesting + 1)
        return None
