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

from ondevice_sdk.engine.gguf import GgufTensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_Q8_0: Final = 8
_Q8_BLOCK: Final = (32, 34)  # values, bytes
_BLOCKS: Final[Mapping[int, tuple[int, int]]] = {3: (32, 20), 12: (256, 144)}  # Q4_1, Q4_K: values, bytes
_AT_A_TIME: Final = 1 << 16  # blocks: some 10 MB of them as numbers


def is_changed(kind: int) -> bool:
    """Whether the reader changes the values of this tensor type."""
    return kind in _BLOCKS


def rewrite(source: Path, target: Path, tensors: tuple[GgufTensor, ...], alignment: int) -> None:
    """Copy a GGUF file, with such tensors in Q8_0.

    Args:
        source: a file whose header was checked.
        target: the copy.
        tensors: of the file.
        alignment: of its data, in bytes.
    """
    order = sorted(tensors, key=lambda each: each.offset)
    with source.open("rb") as old, target.open("wb") as new:
        head = bytearray(old.read(order[0].offset))
        (offset,) = struct.unpack_from("<Q", head, _place(head, order[0]) + 4)
        start = len(head) - offset  # of the data
        new.write(head)
        for tensor in order:
            new.write(bytes((start - new.tell()) % alignment))
            kind = _Q8_0 if is_changed(tensor.kind) else tensor.kind
            struct.pack_into("<IQ", head, _place(head, tensor), kind, new.tell() - start)
            old.seek(tensor.offset)
            for part in _parts(old, tensor, _size(tensor, tensors, source)):
                new.write(part)
        new.seek(0)
        new.write(head)


def _size(tensor: GgufTensor, tensors: tuple[GgufTensor, ...], source: Path) -> int:
    """Bytes of a tensor of any type: up to the next one."""
    if is_changed(tensor.kind):
        values, size = _BLOCKS[tensor.kind]
        return tensor.values // values * size
    return min((each.offset for each in tensors if each.offset > tensor.offset), default=source.stat().st_size) - (
        tensor.offset
    )


def _place(head: bytearray, tensor: GgufTensor) -> int:
    """Where the header says of what type a tensor is, and then where it lies; tensors come behind all else."""
    name = tensor.name.encode()
    at = head.rfind(struct.pack("<Q", len(name)) + name) + 8 + len(name)
    (dimensions,) = struct.unpack_from("<I", head, at)
    return at + 4 + 8 * int(dimensions)


def _parts(file: IO[bytes], tensor: GgufTensor, size: int) -> Iterator[bytes]:
    import numpy as np

    if not is_changed(tensor.kind):
        while size > 0 and (part := file.read(min(size, 1 << 24))):
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
