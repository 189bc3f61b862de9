"""Weights of few bits as weights of eight, without the loss of rounding them a second time.

A block of such a format holds the values `scale * q + least`, with small whole q. Rounded to Q8_0 in the usual way, by
the largest of the 32, its steps fall beside those values. Here the new step is a whole part of the old one, as in
`scale / r`, with the r for which `least` comes nearest to a multiple of it too: every value of the block is nearly hit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BLOCK: Final = 32  # values of a block of Q8_0
BYTES: Final = 34  # and its bytes: a scale of 16 bits, and a byte for each value
_MOST: Final = 127
_PARTS: Final = 16  # most parts that a step is divided into: more of four bits do not fit into eight


@dataclass(frozen=True, slots=True)
class Steps:
    """Blocks of 32 values `scale * q + least`: one scale and one least value for each row of q."""

    scale: NDArray[np.float64]
    least: NDArray[np.float64]
    q: NDArray[np.int16]


def formats() -> frozenset[str]:
    """The formats that this can read."""
    return frozenset(_READERS)


def steps(kind: str, data: NDArray[np.uint8]) -> Steps:
    """The steps of blocks in a format of `formats()`; of larger blocks those of each 32 values."""
    return _READERS[kind](data)


def refine(kind: str, source: NDArray[np.uint8], rounded: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The blocks of Q8_0 that come nearest to some weights.

    Args:
        kind: the format of the weights, one of `formats()`.
        source: their bytes, whole blocks.
        rounded: the same weights in Q8_0, rounded as usual; what is worse otherwise is taken from here.
    """
    import numpy as np

    given = steps(kind, source)
    low, high = given.q.min(axis=1).astype(np.float64), given.q.max(axis=1).astype(np.float64)
    usable = given.scale != 0
    scale = np.where(usable, given.scale, 1.0)
    ratio = given.least / scale
    largest = np.maximum(np.abs(given.scale * low + given.least), np.abs(given.scale * high + given.least))
    error = largest / (2 * _MOST)  # the most that usual rounding errs
    parts, shift = np.zeros(len(ratio), np.int64), np.zeros(len(ratio))
    step = np.zeros(len(ratio), np.float16)
    for r in range(1, _PARTS + 1):
        moved = np.rint(np.clip(r * ratio, -1e6, 1e6))
        with np.errstate(over="ignore", under="ignore"):
            tried = (scale / r).astype(np.float16)
        wide = tried.astype(np.float64)
        # The error is linear in q: the ends of the block bound it.
        ends = [np.abs(wide * (r * end + moved) - (scale * end + given.least)) for end in (low, high)]
        erring = np.maximum(*ends)
        fits = usable & (r * low + moved >= -_MOST) & (r * high + moved <= _MOST)
        better = fits & (erring < error)
        error = np.where(better, erring, error)
        parts, shift, step = np.where(better, r, parts), np.where(better, moved, shift), np.where(better, tried, step)
    made = rounded.reshape(-1, BYTES).copy()
    chosen = parts > 0
    values = parts[chosen, None] * given.q[chosen] + shift[chosen, None].astype(np.int64)
    made[chosen, :2] = step[chosen].astype("<f2").view(np.uint8).reshape(-1, 2)
    made[chosen, 2:] = values.astype(np.int8).view(np.uint8)
    return made.reshape(-1)


def _half(data: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Numbers of 16 bits, one in each row."""
    import numpy as np

    halves: NDArray[np.float64] = np.ascontiguousarray(data).view("<f2").astype(np.float64).reshape(-1)
    return np.nan_to_num(halves, nan=0.0, posinf=0.0, neginf=0.0)  # such a block stays as it is


def _nibbles(data: NDArray[np.uint8]) -> NDArray[np.int16]:
    """The low halves of the bytes of a row, then the high ones."""
    import numpy as np

    return np.concatenate([data & 15, data >> 4], axis=1).astype(np.int16)


def _fifth_bits(data: NDArray[np.uint8]) -> NDArray[np.int16]:
    """32 bits a row, each worth 16."""
    import numpy as np

    return 16 * np.unpackbits(data, axis=1, bitorder="little").astype(np.int16)


def _q4_0(data: NDArray[np.uint8]) -> Steps:
    blocks = data.reshape(-1, 18)
    scale = _half(blocks[:, :2])
    return Steps(scale, -8 * scale, _nibbles(blocks[:, 2:]))


def _q4_1(data: NDArray[np.uint8]) -> Steps:
    blocks = data.reshape(-1, 20)
    return Steps(_half(blocks[:, :2]), _half(blocks[:, 2:4]), _nibbles(blocks[:, 4:]))


def _q5_0(data: NDArray[np.uint8]) -> Steps:
    blocks = data.reshape(-1, 22)
    scale = _half(blocks[:, :2])
    return Steps(scale, -16 * scale, _nibbles(blocks[:, 6:]) + _fifth_bits(blocks[:, 2:6]))


def _q5_1(data: NDArray[np.uint8]) -> Steps:
    blocks = data.reshape(-1, 24)
    return Steps(_half(blocks[:, :2]), _half(blocks[:, 2:4]), _nibbles(blocks[:, 8:]) + _fifth_bits(blocks[:, 4:8]))


def _q4_k(data: NDArray[np.uint8]) -> Steps:
    blocks = data.reshape(-1, 144)
    return Steps(*_parts_of_256(blocks), _pairs(blocks[:, 16:]).reshape(-1, BLOCK))


def _q5_k(data: NDArray[np.uint8]) -> Steps:
    import numpy as np

    blocks = data.reshape(-1, 176)
    bits = np.unpackbits(blocks[:, 16:48, None], axis=2, bitorder="little")  # block, value, part
    fifth = 16 * bits.transpose(0, 2, 1).astype(np.int16)
    return Steps(*_parts_of_256(blocks), (_pairs(blocks[:, 48:]) + fifth).reshape(-1, BLOCK))


def _pairs(data: NDArray[np.uint8]) -> NDArray[np.int16]:
    """The eight parts of a block of 256: each 32 bytes hold one part low and the next one high."""
    import numpy as np

    groups = data.reshape(-1, 4, 32)
    return np.stack([groups & 15, groups >> 4], axis=2).reshape(-1, 8, 32).astype(np.int16)


def _parts_of_256(blocks: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale and least value of each part: numbers of 6 bits, packed, times those of the block."""
    import numpy as np

    packed = blocks[:, 4:16]
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, (third & 15) | (first >> 6 << 4)], axis=1)
    least = np.concatenate([second & 63, (third >> 4) | (second >> 6 << 4)], axis=1)
    outer, below = _half(blocks[:, :2])[:, None], _half(blocks[:, 2:4])[:, None]
    return (outer * scales).reshape(-1), (-below * least).reshape(-1)


_READERS: Final[dict[str, Callable[[NDArray[np.uint8]], Steps]]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
}
