"""The header of a GGUF file, read and checked in Python before native code sees the file.

Source of the layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (little-endian, versions 2 and 3).

The file is read, never mapped: one that is cut short meanwhile would end the process that maps it.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from ondevice_sdk.errors import ModelCorrupt
from ondevice_sdk.types import ModelShape

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_LENGTH = struct.Struct("<Q")
_UINT32, _INT32, _FLOAT32, _STRING, _ARRAY = 4, 5, 6, 8, 9
_SCALARS = {0: "B", 1: "b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "B", 10: "<Q", 11: "<q", 12: "<d"}
_MAX_DIMENSIONS = 4
_MAX_ALIGNMENT = 1 << 20
_MAX_NESTING = 4
_MAX_KEY = (1 << 16) - 1  # bytes
_MAX_TENSOR_NAME = 63  # bytes
_MAX_STRING = 1 << 20  # bytes kept of a metadata string; chat templates are the longest that are of use
_MAX_HEADER = 1 << 28  # bytes; the largest vocabularies take some 20 MB
_MAX_STEPS = 1 << 22  # strings, pairs and tensors: what a hostile header can cost is a few seconds
_MAX_BYTES = 1 << 62  # of a tensor: beyond, 64-bit sums in native code could overflow
_READ = 1 << 18
# tensor type -> (values of a block, bytes of a block)
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74),
    18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2),
    26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
    40: (64, 36), 41: (128, 18),
}  # fmt: skip
_INT4_FILE_TYPES = {2, 3, 14, 15, 25, 30}  # Q4_0, Q4_1, Q4_K_S, Q4_K_M, IQ4_NL, IQ4_XS
_INT8_FILE_TYPES = {7}  # Q8_0
_EXACT_FILE_TYPES: Mapping[int, Literal["f32", "f16", "bf16"]] = {0: "f32", 1: "f16", 32: "bf16"}
# Metadata that native code takes without a look at its type or length: key -> types of a scalar, or of an array's items
_TOKENS = "tokenizer.ggml.tokens"
_KINDS = {
    "general.architecture": (_STRING,),
    "general.alignment": (_UINT32,),
    "tokenizer.ggml.model": (_STRING,),
}
_ITEM_KINDS = {
    _TOKENS: (_STRING,),
    "tokenizer.ggml.merges": (_STRING,),
    "tokenizer.ggml.scores": (_FLOAT32,),
    "tokenizer.ggml.token_type": (_UINT32, _INT32),
}
_PER_TOKEN = ("tokenizer.ggml.scores", "tokenizer.ggml.token_type")
# Numbers of an architecture that native code takes as the size of something; below and above, llama.cpp aborts.
_LIMITS = {
    "block_count": (1, 512),  # llama.cpp's most
    "context_length": (32, 1 << 31),
    "embedding_length": (1, 1 << 24),
    "attention.head_count": (0, 1 << 16),
}
_POSITIVE = ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon", "rope.freq_base")
# Encoders that llama.cpp runs: they give embeddings and nothing else.
_ENCODERS = {
    *("bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3"),
    *("modern-bert", "neo-bert", "eurobert", "gemma-embedding"),
}
RANK = 4  # the pooling of models that compare a question with a text, and give no vectors
_DATA_ALIGNMENT = 32  # bytes; what llama.cpp asks of the place where the weights begin, whatever the file says
_NOT_FOR_WEIGHTS = {24, 25, 27, 28}  # I8 I16 I64 F64: there are no kernels for them

Value = int | float | str | None  # None: an array, of which only the length is kept


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What the head of a file says.

    `file_type` is llama.cpp's number for the quantisation, None if not given; `tensor_types` has the number of values
    per tensor type; `shape` is None where the metadata of the architecture is unusual. `pooling` is llama.cpp's number
    for how the vectors of tokens become one (1 mean, 2 first, 3 last, 4 a rank), None if not given. `type` is what the
    file is, such as "model" or "adapter", empty if not given.
    """

    architecture: str
    name: str
    file_type: int | None
    tensors: int
    tensor_types: Mapping[int, int]
    shape: ModelShape | None
    pooling: int | None = None
    type: str = ""

    @property
    def embeds(self) -> bool:
        """Whether it is made to give embeddings, and not to write text."""
        return bool(self.pooling) or self.architecture in _ENCODERS

    @property
    def precision(self) -> Literal["int4", "int8", "f16", "bf16", "f32", "other"]:
        """The precision of the weights."""
        if self.file_type in _INT4_FILE_TYPES:
            return "int4"
        if self.file_type in _INT8_FILE_TYPES:
            return "int8"
        return "other" if self.file_type is None else _EXACT_FILE_TYPES.get(self.file_type, "other")


def read_header(path: Path | str) -> GgufHeader:
    """Read the header and check it, and that every tensor lies inside the file, so that a cut file is noticed.

    Raises:
        ModelCorrupt: it is not a whole GGUF file, or one that no honest tool writes.
        OSError: it cannot be read.
    """
    return _read(Path(path)).header


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where a tensor lies in its file. `kind` is ggml's number of its format, `columns` the length of a row."""

    name: str
    kind: int
    columns: int
    rows: int  # 1: a vector
    offset: int  # bytes from the begin of the file

    @property
    def values(self) -> int:
        """How many numbers it holds."""
        return self.columns * self.rows

    @property
    def size(self) -> int:
        """Bytes; of a format that is not known those of 32 bits."""
        values, size = _BLOCKS.get(self.kind, (1, 4))
        return self.values // values * size


def read_tensors(path: Path | str) -> tuple[GgufTensor, ...]:
    """The tensors of a file, as its header lists them; errors as `read_header`."""
    return _read(Path(path)).tensors()


@dataclass(frozen=True, slots=True)
class GgufFile:
    """All that the head of a file says, for what writes a file like it.

    `metadata` has None for an array; `pairs` are the bytes of all keys and values, and `places` says where in them each
    value begins. `sizes` has the length of a row first, and no ones at its end.
    """

    header: GgufHeader
    tensors: tuple[GgufTensor, ...]
    sizes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, Value]
    pairs: bytes
    places: Mapping[str, int]


def read_file(path: Path | str) -> GgufFile:
    """Read the head of a file as `read_header` does, and keep all of it."""
    return _read(Path(path)).file()


def _read(path: Path) -> _Walk:
    with path.open("rb") as file:
        start = file.read(len(MAGIC))
        if start != MAGIC:
            raise ModelCorrupt(f"{path.name} is not a GGUF file", expected="GGUF", actual=start.hex())
        try:
            return _Walk(file, os.fstat(file.fileno()).st_size)
        except (struct.error, ValueError) as error:
            raise ModelCorrupt(f"{path.name} is a damaged or cut GGUF file: {error}", expected="GGUF") from error


@dataclass(frozen=True, slots=True)
class _Array:
    item: int
    length: int


class _Walk:
    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._size = size
        self._data = MAGIC  # the file's begin, as far as it was needed
        self._at = len(MAGIC)
        self._steps = 0
        self._arrays: dict[str, _Array] = {}
        self._places: dict[str, int] = {}  # where values begin
        self._values: dict[str, Value] = {}
        self._pairs_at = (0, 0)  # where all of them begin and end
        self._listed: list[tuple[str, int, tuple[int, ...], int]] = []  # tensors: name, kind, sizes, offset in the data
        self._start = 0  # of the data
        self.header = self._header()

    def tensors(self) -> tuple[GgufTensor, ...]:
        return tuple(
            GgufTensor(name, kind, sizes[0], math.prod(sizes[1:]), self._start + offset)
            for name, kind, sizes, offset in self._listed
        )

    def file(self) -> GgufFile:
        start, end = self._pairs_at
        sizes = {}
        for name, _, given, _ in self._listed:
            count = max((index + 1 for index, size in enumerate(given) if size > 1), default=1)
            sizes[name] = given[:count]
        places = {key: at - start for key, at in self._places.items()}
        return GgufFile(self.header, self.tensors(), sizes, self._values, bytes(self._data[start:end]), places)

    def _header(self) -> GgufHeader:
        version = self._number("<I")
        if version not in _VERSIONS:
            raise ValueError(f"version {version} is not known")
        tensors, pairs = int(self._number("<Q")), int(self._number("<Q"))
        # The least that a tensor (24 bytes) and a pair (13 bytes) can take: refuses absurd counts before any loop.
        if tensors * 24 + pairs * 13 > self._size:
            raise ValueError("the header promises more than the file holds")
        begin = self._at
        values = self._values = self._pairs(pairs)
        self._pairs_at = (begin, self._at)
        architecture, alignment = values.get("general.architecture"), values.get("general.alignment", 32)
        if not isinstance(architecture, str) or not architecture:
            raise ValueError("the header names no architecture")
        if not isinstance(alignment, int) or not 8 <= alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
            raise ValueError("impossible alignment")
        self._check_vocabulary()
        _check_architecture(architecture, values)
        types = self._tensors(tensors, alignment)
        file_type = values.get("general.file_type")
        tokens = self._arrays.get(_TOKENS)
        return GgufHeader(
            architecture,
            str(values.get("general.name") or ""),
            file_type if isinstance(file_type, int) else None,
            tensors,
            types,
            _shape(architecture, values, tokens.length if tokens else 0, sum(types.values())),
            _pooling(values.get(f"{architecture}.pooling_type")),
            str(values.get("general.type") or ""),
        )

    def _pairs(self, count: int) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for _ in range(count):
            key = self._string(_MAX_KEY)
            if key in values:
                raise ValueError("a key comes twice")
            kind = int(self._number("<I"))
            if kind not in _KINDS.get(key, (kind,)) or (kind != _ARRAY and key in _ITEM_KINDS):
                raise ValueError(f"{key} is of a wrong type")
            self._places[key] = self._at
            values[key] = self._value(key, kind)
        return values

    def _check_vocabulary(self) -> None:
        for key, kinds in _ITEM_KINDS.items():
            if (array := self._arrays.get(key)) is not None and array.length and array.item not in kinds:
                raise ValueError(f"{key} is of a wrong type")
        tokens = self._arrays.get(_TOKENS)
        for key in _PER_TOKEN:
            if (array := self._arrays.get(key)) is not None and array.length < (tokens.length if tokens else 0):
                raise ValueError(f"{key} is shorter than the vocabulary")

    def _tensors(self, count: int, alignment: int) -> dict[int, int]:
        types: dict[int, int] = {}
        names: set[str] = set()
        extents: list[tuple[int, int]] = []
        for _ in range(count):
            self._step()
            name = self._string(_MAX_TENSOR_NAME)
            if name in names:
                raise ValueError("a tensor comes twice")
            names.add(name)
            sizes = self._sizes()
            kind, offset = int(self._number("<I")), int(self._number("<Q"))
            values = sizes[0] * sizes[1] * sizes[2] * sizes[3]
            types[kind] = types.get(kind, 0) + values
            if kind in _NOT_FOR_WEIGHTS and name.endswith(".weight"):
                raise ValueError("weights of a type that nothing computes with")
            block_values, block_bytes = _BLOCKS.get(kind, (1, 0))  # of an unknown type only the start is checked
            if sizes[0] % block_values:
                raise ValueError("a row of a tensor is no whole number of blocks")
            if offset % alignment:
                raise ValueError("a tensor is not aligned")
            length = values // block_values * block_bytes
            if max(values, length, offset) > _MAX_BYTES:
                raise ValueError("a tensor is impossibly large")
            extents.append((offset, offset + length))
            self._listed.append((name, kind, sizes, offset))
        start = self._start = -(-self._at // alignment) * alignment
        end = 0
        for begin, finish in sorted(extents):
            if begin < end:
                raise ValueError("two tensors overlap")
            end = finish
        if extents and (start + min(extents)[0]) % _DATA_ALIGNMENT:
            raise ValueError("its weights are not aligned")
        if count and start + end > self._size:
            raise ValueError(f"it should have {start + end} bytes and has {self._size}")
        return types

    def _sizes(self) -> tuple[int, int, int, int]:
        dimensions = int(self._number("<I"))
        if dimensions > _MAX_DIMENSIONS:
            raise ValueError("a tensor has too many dimensions")
        sizes = [int(self._number("<Q")) for _ in range(dimensions)] + [1] * (_MAX_DIMENSIONS - dimensions)
        if not all(0 < size <= _MAX_BYTES for size in sizes):
            raise ValueError("a tensor has an impossible size")
        return sizes[0], sizes[1], sizes[2], sizes[3]

    def _step(self, count: int = 1) -> None:
        self._steps += count
        if self._steps > _MAX_STEPS:
            raise ValueError("its header has more parts than any model needs")

    def _number(self, form: str) -> int | float:
        start = self._skip(struct.calcsize(form))
        number: int | float = struct.unpack_from(form, self._data, start)[0]
        return number

    def _skip(self, length: int) -> int:
        """Step over some bytes, which are then in memory; where they begin."""
        start, end = self._at, self._at + length
        if end > len(self._data):
            if end > min(self._size, _MAX_HEADER):
                raise ValueError("it ends inside its header")
            self._data += self._file.read(max(end - len(self._data), len(self._data), _READ))
            if end > len(self._data):  # it was cut meanwhile
                raise ValueError("it ends inside its header")
        self._at = end
        return start

    def _string(self, limit: int | None = None) -> str:
        length = int(self._number("<Q"))
        if limit is not None and length > limit:
            raise ValueError("a name is too long")
        start = self._skip(length)
        return self._data[start : start + min(length, _MAX_STRING)].decode("utf-8", "replace")

    def _value(self, key: str, kind: int, nesting: int = 0) -> Value:
        self._step()
        if kind == _STRING:
            return self._string()
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind != _ARRAY or nesting >= _MAX_NESTING:
            raise ValueError("metadata of an unknown type")
        item, count = int(self._number("<I")), int(self._number("<Q"))
        if count > self._size:
            raise ValueError("the header promises more than the file holds")
        if not nesting:
            self._arrays[key] = _Array(item, count)
        if item in _SCALARS:
            self._skip(count * struct.calcsize(_SCALARS[item]))
        elif item == _STRING:
            self._strings(key, count)
        else:
            for _ in range(count):
                self._value(key, item, nesting + 1)
        return None

    def _strings(self, key: str, count: int) -> None:
        """Step over an array; a hundred thousand strings are usual, so as little as possible is done for each."""
        self._step(count)
        words: set[bytes] = set()
        different = key == _TOKENS
        at, ready, length_at = self._at, len(self._data), _LENGTH.unpack_from
        for _ in range(count):
            start = at + 8
            if start > ready or (at := start + length_at(self._data, start - 8)[0]) > ready:
                self._at = start - 8
                start = self._skip(8)
                start = self._skip(length_at(self._data, start)[0])
                at, ready = self._at, len(self._data)
            if different:
                words.add(self._data[start:at])
                count -= start == at  # several may be empty: the loader makes up names for them
        self._at = at
        if different and len(words - {b""}) != count:
            raise ValueError("a token comes twice")


def _pooling(value: Value) -> int | None:
    return value if isinstance(value, int) and 0 < value <= RANK else None


def _check_architecture(architecture: str, values: Mapping[str, Value]) -> None:
    """Numbers that are there are plausible; those that are missing, or one per layer, are the loader's business."""

    def number(name: str) -> Value:
        return values.get(f"{architecture}.{name}")

    for name, (least, most) in _LIMITS.items():
        value = number(name)
        if value is not None and not (isinstance(value, int) and least <= value <= most):
            raise ValueError(f"{architecture}.{name} is impossible")
    for name in _POSITIVE:
        value = number(name)
        if value is not None and not (isinstance(value, float) and 0 <= value < math.inf):
            raise ValueError(f"{architecture}.{name} is impossible")


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
