"""The small numbers inside blocks of quantised weights: what values they can stand for, and how to put others there.

A weight is `scale * code + least`, with a scale and a least value for each 32 or 16 neighbours, and a code of three or
four bits. The layouts are those of ggml (ggml-common.h and the reference kernels in ggml-quants.c).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ondevice_sdk.backends.llama_cpp import lattice
from ondevice_sdk.catalogue import layout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Grid:
    """The values that the weights of a matrix can have, for each row and each so many columns."""

    scale: NDArray[np.float32]  # (rows, parts)
    least: NDArray[np.float32]
    most: int  # the largest code; the smallest is 0

    def columns(self, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Scale and least value of each weight, (rows, count)."""
        times = count // self.scale.shape[1]
        return self.scale.repeat(times, axis=1), self.least.repeat(times, axis=1)


@dataclass(frozen=True, slots=True)
class _Format:
    read: Callable[[NDArray[np.uint8]], tuple[NDArray[np.float64], NDArray[np.float64]]]
    write: Callable[[NDArray[np.uint8], NDArray[np.uint8]], None]
    most: int


def formats() -> frozenset[str]:
    """The formats that this can read and write."""
    return frozenset(_FORMATS)


def grid(kind: str, data: NDArray[np.uint8], rows: int) -> Grid:
    """The grid of a matrix of so many rows.

    Args:
        kind: its format, one of `formats()`.
        data: its bytes.
        rows: of the matrix.
    """
    import numpy as np

    scale, least = _FORMATS[kind].read(data.reshape(-1, layout.BLOCKS[kind][1]))
    return Grid(
        scale.astype(np.float32).reshape(rows, -1), least.astype(np.float32).reshape(rows, -1), _FORMATS[kind].most
    )


def replaced(kind: str, data: NDArray[np.uint8], codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The bytes of a matrix with other codes, (rows, columns)."""
    values, size = layout.BLOCKS[kind]
    blocks = data.reshape(-1, size).copy()
    _FORMATS[kind].write(blocks, codes.reshape(-1, values))
    return blocks.reshape(-1)


def _steps(kind: str) -> Callable[[NDArray[np.uint8]], tuple[NDArray[np.float64], NDArray[np.float64]]]:
    def read(blocks: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        steps = lattice.steps(kind, blocks.reshape(-1))
        return steps.scale, steps.least

    return read


def _halves(start: int) -> Callable[[NDArray[np.uint8], NDArray[np.uint8]], None]:
    """Of 32 codes the first 16 are low halves of bytes, the others high ones."""

    def write(blocks: NDArray[np.uint8], codes: NDArray[np.uint8]) -> None:
        blocks[:, start : start + 16] = codes[:, :16] | codes[:, 16:] << 4

    return write


def _write_q4_k(blocks: NDArray[np.uint8], codes: NDArray[np.uint8]) -> None:
    parts = codes.reshape(-1, 4, 2, 32)
    blocks[:, 16:] = (parts[:, :, 0] | parts[:, :, 1] << 4).reshape(-1, 128)


def _read_q3_k(blocks: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """16 scales of 6 bits: their low halves in 8 bytes, the two high bits of each in 4 more."""
    import numpy as np

    packed = blocks[:, 96:108]
    low = np.concatenate([packed[:, :8] & 15, packed[:, :8] >> 4], axis=1)
    high = np.concatenate([packed[:, 8:] >> shift & 3 for shift in (0, 2, 4, 6)], axis=1)
    scales = (low | high << 4).astype(np.float64) - 32
    scales *= np.ascontiguousarray(blocks[:, 108:110]).view("<f2").astype(np.float64)
    return scales.reshape(-1), -4 * scales.reshape(-1)


def _write_q3_k(blocks: NDArray[np.uint8], codes: NDArray[np.uint8]) -> None:
    """The two low bits of four parts share bytes in each half; the high bits of all eight parts share 32 bytes."""
    import numpy as np

    parts = codes.reshape(-1, 2, 4, 32)
    shifts = np.arange(4, dtype=np.uint8).reshape(1, 1, 4, 1)
    blocks[:, 32:96] = np.bitwise_or.reduce((parts & 3) << 2 * shifts, axis=2).reshape(-1, 64)
    eighths = np.arange(8, dtype=np.uint8).reshape(1, 8, 1)
    blocks[:, :32] = np.bitwise_or.reduce((codes.reshape(-1, 8, 32) >> 2) << eighths, axis=1)


_FORMATS: Final = {
    "Q4_0": _Format(_steps("Q4_0"), _halves(2), 15),
    "Q4_1": _Format(_steps("Q4_1"), _halves(4), 15),
    "Q4_K": _Format(_steps("Q4_K"), _write_q4_k, 15),
    "Q3_K": _Format(_read_q3_k, _write_q3_k, 7),
}
