"""Write a GGUF file in pure Python: always the same bytes for the same content, whatever packages are installed.

Source of the layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (little-endian, version 3).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from ondevice_sdk.catalogue.gguf import MAGIC
from ondevice_sdk.store.files import create

F32: Final = 0  # ggml's numbers of the formats
F16: Final = 1
BF16: Final = 30
_VERSION: Final = 3
_ALIGNMENT: Final = 32
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
_BYTES: Final = {F32: 4, F16: 2, BF16: 2}

Value: TypeAlias = bool | int | float | str | Sequence[str] | Sequence[int] | Sequence[float]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor to be written. `sizes` has the length of a row first; `data` gives its bytes piece by piece."""

    name: str
    kind: int
    sizes: tuple[int, ...]
    data: Callable[[], Iterable[bytes]]

    @property
    def length(self) -> int:
        """Bytes of the whole."""
        values = 1
        for size in self.sizes:
            values *= size
        return values * _BYTES[self.kind]


def write(
    path: Path, metadata: Mapping[str, Value], tensors: Sequence[Tensor], on_bytes: Callable[[int, int], None]
) -> None:
    """Write a new private file; `on_bytes` hears bytes written, of how many. Errors as `steps`."""
    for done, total in steps(path, metadata, tensors):
        on_bytes(done, total)


def steps(path: Path, metadata: Mapping[str, Value], tensors: Sequence[Tensor]) -> Iterator[tuple[int, int]]:
    """Write a new private file: metadata and tensors in the order given; yields bytes written, of how many.

    Raises:
        OSError: it cannot be written. ValueError: a tensor gave more or fewer bytes than its sizes say.
    """
    head = bytearray(MAGIC + struct.pack("<IQQ", _VERSION, len(tensors), len(metadata)))
    for key, value in metadata.items():
        head += _string(key) + _typed(value)
    offset = 0
    for tensor in tensors:
        head += _string(tensor.name) + struct.pack("<I", len(tensor.sizes))
        head += struct.pack(f"<{len(tensor.sizes)}QIQ", *tensor.sizes, tensor.kind, offset)
        offset = _aligned(offset + tensor.length)
    start = _aligned(len(head))
    total = start + offset
    with os.fdopen(create(path), "wb") as file:
        file.write(head.ljust(start, b"\0"))
        for tensor in tensors:
            begin = file.tell()
            for piece in tensor.data():
                file.write(piece)
                yield file.tell(), total
            if file.tell() - begin != tensor.length:
                raise ValueError(f"{tensor.name} has not the length that its sizes say")
            file.write(bytes(_aligned(file.tell()) - file.tell()))


def _aligned(length: int) -> int:
    return -(-length // _ALIGNMENT) * _ALIGNMENT


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _typed(value: Value) -> bytes:
    """A value of the metadata with its type before it."""
    match value:
        case bool():
            return struct.pack("<I?", _BOOL, value)
        case int():
            return struct.pack("<II", _UINT32, value)
        case float():
            return struct.pack("<If", _FLOAT32, value)
        case str():
            return struct.pack("<I", _STRING) + _string(value)
    if all(isinstance(item, str) for item in value):
        return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(_string(str(item)) for item in value)
    if any(isinstance(item, float) for item in value):
        return struct.pack(f"<IIQ{len(value)}f", _ARRAY, _FLOAT32, len(value), *map(float, value))
    return struct.pack(f"<IIQ{len(value)}i", _ARRAY, _INT32, len(value), *map(int, value))
