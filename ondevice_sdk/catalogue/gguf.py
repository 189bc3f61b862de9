"""The header of a GGUF file, read and checked in Python before native code sees the file.

Source of the layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (little-endian, versions 2 and 3).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ondevice_sdk.errors import ModelCorrupt
from ondevice_sdk.types import ModelShape

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "B", 10: "<Q", 11: "<q", 12: "<d"}
_MAX_DIMENSIONS = 4
_MAX_ALIGNMENT = 1 << 20
_MAX_NESTING = 4
_MAX_STRING = 1 << 20  # bytes kept of a metadata string; chat templates are the longest that are of use
# tensor type -> (values of a block, bytes of a block)
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 24: (1, 1), 25: (1, 2),
    26: (1, 4), 27: (1, 8), 28: (1, 8), 30: (1, 2),
}  # fmt: skip
_INT4_FILE_TYPES = {2, 3, 14, 15, 25, 30}  # Q4_0, Q4_1, Q4_K_S, Q4_K_M, IQ4_NL, IQ4_XS
_INT8_FILE_TYPES = {7}  # Q8_0

Value = int | float | str | None  # None: an array, of which only the length is kept


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What the head of a file says.

    `file_type` is llama.cpp's number for the quantisation, None if not given; `tensor_types` has the number of values
    per tensor type; `shape` is None where the metadata of the architecture is unusual.
    """

    architecture: str
    name: str
    file_type: int | None
    tensors: int
    tensor_types: Mapping[int, int]
    shape: ModelShape | None

    @property
    def precision(self) -> Literal["int4", "int8", "other"]:
        """The precision of the weights."""
        if self.file_type in _INT4_FILE_TYPES:
            return "int4"
        return "int8" if self.file_type in _INT8_FILE_TYPES else "other"


def read_header(path: Path | str) -> GgufHeader:
    """Read the header and check that every tensor lies inside the file, so that a cut file is noticed.

    Raises:
        ModelCorrupt: it is not a whole GGUF file.
        OSError: it cannot be read.
    """
    path = Path(path)
    with path.open("rb") as file:
        start = file.read(len(MAGIC))
        if start != MAGIC:
            raise ModelCorrupt(f"{path.name} is not a GGUF file", expected="GGUF", actual=start.hex())
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _Walk(data).header()
            except (struct.error, ValueError) as error:
                raise ModelCorrupt(f"{path.name} is a damaged or cut GGUF file: {error}", expected="GGUF") from error


class _Walk:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._size = len(data)
        self._at = len(MAGIC)
        self._lengths: dict[str, int] = {}  # of arrays, by key

    def header(self) -> GgufHeader:
        version = self._number("<I")
        if version not in _VERSIONS:
            raise ValueError(f"version {version} is not known")
        tensors, pairs = int(self._number("<Q")), int(self._number("<Q"))
        # The least that a tensor (24 bytes) and a pair (13 bytes) can take: refuses absurd counts before any loop.
        if tensors * 24 + pairs * 13 > self._size:
            raise ValueError("the header promises more than the file holds")
        values: dict[str, Value] = {}
        for _ in range(pairs):
            key = self._string()
            values[key] = self._value(key, int(self._number("<I")))
        architecture, alignment = values.get("general.architecture"), values.get("general.alignment", 32)
        if not isinstance(architecture, str) or not architecture:
            raise ValueError("the header names no architecture")
        if not isinstance(alignment, int) or not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
            raise ValueError("impossible alignment")
        types = self._tensors(tensors, alignment)
        file_type = values.get("general.file_type")
        return GgufHeader(
            architecture,
            str(values.get("general.name") or ""),
            file_type if isinstance(file_type, int) else None,
            tensors,
            types,
            _shape(architecture, values, self._lengths.get("tokenizer.ggml.tokens", 0), sum(types.values())),
        )

    def _tensors(self, count: int, alignment: int) -> dict[int, int]:
        types: dict[int, int] = {}
        end = 0
        for _ in range(count):
            self._string()
            dimensions = int(self._number("<I"))
            if dimensions > _MAX_DIMENSIONS:
                raise ValueError("a tensor has too many dimensions")
            values = 1
            for _ in range(dimensions):
                values *= int(self._number("<Q"))
            kind, offset = int(self._number("<I")), int(self._number("<Q"))
            types[kind] = types.get(kind, 0) + values
            block_values, block_bytes = _BLOCKS.get(kind, (1, 0))  # of an unknown type only the start is checked
            end = max(end, offset + values // block_values * block_bytes)
        start = -(-self._at // alignment) * alignment
        if count and start + end > self._size:
            raise ValueError(f"it should have {start + end} bytes and has {self._size}")
        return types

    def _number(self, form: str) -> int | float:
        number: int | float = struct.unpack_from(form, self._data, self._at)[0]
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
        length = int(self._number("<Q"))
        start = self._skip(length)
        return self._data[start : start + min(length, _MAX_STRING)].decode("utf-8", "replace")

    def _value(self, key: str, kind: int, nesting: int = 0) -> Value:
        if kind == _STRING:
            return self._string()
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind != _ARRAY or nesting >= _MAX_NESTING:
            raise ValueError("metadata of an unknown type")
        item, count = int(self._number("<I")), int(self._number("<Q"))
        if count > self._size:
            raise ValueError("the header promises more than the file holds")
        self._lengths[key] = count
        if item in _SCALARS:
            self._skip(count * struct.calcsize(_SCALARS[item]))
        elif item == _STRING:
            for _ in range(count):
                self._skip(int(self._number("<Q")))
        else:
            for _ in range(count):
                self._value(key, item, nesting + 1)
        return None


def _shape(architecture: str, values: Mapping[str, Value], tokens: int, parameters: int) -> ModelShape | None:
    def number(name: str) -> int:
        value = values.get(f"{architecture}.{name}")
        return value if isinstance(value, int) else 0

    layers, width, heads = number("block_count"), number("embedding_length"), number("attention.head_count")
    kv_heads = number("attention.head_count_kv") or heads
    vocabulary = tokens or number("vocab_size")
    context = number("context_length")
    if min(layers, width, heads, kv_heads, vocabulary, context) < 1:
        return None
    head_dim = number("attention.key_length") or width // heads
    feed_forward = number("feed_forward_length") or 4 * width
    return ModelShape(parameters, layers, width, heads, kv_heads, head_dim, feed_forward, vocabulary, context)
