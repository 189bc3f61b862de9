"""Weights that OpenVINO GenAI would change, in a format that it takes as it is.

Its GGUF reader keeps a block's least value as a whole number of the block's steps. Formats whose blocks have an offset
of their own, Q4_1 and Q4_K, lose it by that: with SmolLM2 in Q4_1 half of the tokens are others than llama.cpp's, and
the text is a nat a token less likely. In Q8_0, which has no offset, the same values come through.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from ondevice_sdk.engine.gguf import GgufTensor, read_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ALIGNMENT: Final = 32  # bytes, where a file says nothing else
_Q8_0: Final = 8
_Q8_BLOCK: Final = (32, 34)  # values, bytes
_BLOCKS: Final[Mapping[int, tuple[int, int]]] = {3: (32, 20), 12: (256, 144)}  # Q4_1, Q4_K: values, bytes
_AT_A_TIME: Final = 1 << 16  # blocks: some 10 MB of them as numbers


def is_changed(kind: int) -> bool:
    """Whether the reader changes the values of this tensor type."""
    return kind in _BLOCKS


def rewrite(source: Path, target: Path) -> None:
    """Copy a GGUF file, with such tensors in Q8_0.

    Raises:
        ModelCorrupt: it is no whole GGUF file. ValueError: it was cut meanwhile. OSError.
    """
    file = read_file(source)
    alignment = int(file.metadata.get("general.alignment") or _ALIGNMENT)
    order = sorted(file.tensors, key=lambda each: each.offset)
    places, end = {}, 0
    for tensor in order:
        places[tensor.name] = end
        end += -(-_size(tensor) // alignment) * alignment
    head = bytearray(struct.pack("<4sIQQ", b"GGUF", 3, len(file.tensors), len(file.metadata)) + file.pairs)
    for tensor in file.tensors:
        name, sizes = tensor.name.encode(), file.sizes[tensor.name]
        kind = _Q8_0 if is_changed(tensor.kind) else tensor.kind
        head += struct.pack("<Q", len(name)) + name + struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes)
        head += struct.pack("<IQ", kind, places[tensor.name])
    with source.open("rb") as old, target.open("wb") as new:
        new.write(head)
        for tensor in order:
            new.write(bytes(-new.tell() % alignment))
            old.seek(tensor.offset)
            for part in _parts(old, tensor):
                new.write(part)


def _size(tensor: GgufTensor) -> int:
    """Bytes of it in the copy."""
    values, size = _Q8_BLOCK
    return tensor.values // values * size if is_changed(tensor.kind) else tensor.size


def _parts(file: IO[bytes], tensor: GgufTensor) -> Iterator[bytes]:
    import numpy as np

    if not is_changed(tensor.kind):
        size = tensor.size
        while size > 0:
            part = file.read(min(size, 1 << 24))
            if not part:
                raise ValueError("the file ends in the midst of a tensor")
            yield part
            size -= len(part)
        return
    values, block = _BLOCKS[tensor.kind]
    numbers = _NUMBERS[tensor.kind]
    left = tensor.values // values
    while left > 0:
        count = min(left, _AT_A_TIME)
        blocks = np.frombuffer(file.read(count * block), np.uint8).reshape(count, block)
        yield _eight_bits(numbers(blocks).reshape(-1, _Q8_BLOCK[0]))
        left -= count


def _eight_bits(values: NDArray[np.float32]) -> bytes:
    """Blocks of 32 values as Q8_0: a step of 16 bits, and whole numbers of it."""
    import numpy as np

    step = np.abs(values).max(axis=1, keepdims=True) / np.float32(127)
    rounded = step.astype(np.float16)
    exact = rounded.astype(np.float32)
    inverse = np.divide(1, exact, out=np.zeros_like(exact), where=exact > 0)
    blocks = np.empty((len(values), _Q8_BLOCK[1]), np.uint8)
    blocks[:, :2] = rounded.view(np.uint8)
    blocks[:, 2:] = np.clip(np.rint(values * inverse), -127, 127).astype(np.int8).view(np.uint8)
    return blocks.tobytes()


def _q4_1(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A step, an offset, and 32 numbers of 4 bits: the low halves of the bytes first."""
    import numpy as np

    step, least = (blocks[:, at : at + 2].copy().view(np.float16).astype(np.float32) for at in (0, 2))
    quants = np.concatenate((blocks[:, 4:] & 15, blocks[:, 4:] >> 4), axis=1)
    return quants * step + least


def _q4_k(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Eight parts of 32 numbers, each with a step and an offset of 6 bits, in units that the block has."""
    import numpy as np

    unit, least = (blocks[:, at : at + 2].copy().view(np.float16).astype(np.float32) for at in (0, 2))
    packed = blocks[:, 4:16]
    first, second, third = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    steps = np.concatenate((first & 63, (third & 15) | ((first >> 6) << 4)), axis=1)
    offsets = np.concatenate((second & 63, (third >> 4) | ((second >> 6) << 4)), axis=1)
    quants = blocks[:, 16:].reshape(-1, 4, 1, 32)
    halves = np.concatenate((quants & 15, quants >> 4), axis=2).reshape(-1, 8, 32)
    return halves * (unit * steps)[:, :, None] - (least * offsets)[:, :, None]


_NUMBERS: Final[Mapping[int, Callable[[NDArray[np.uint8]], NDArray[np.float32]]]] = {3: _q4_1, 12: _q4_k}
