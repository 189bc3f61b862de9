"""Factors for the columns of a matrix that even out how widely its rows and columns spread.

Source: L. Müller et al., SINQ: Sinkhorn-Normalized Quantization for Calibration-Free Low-Precision LLM Weights,
arXiv:2509.22944. Rows and columns are divided by their standard deviations in turns, as Sinkhorn and Knopp did with
sums; of the factors found, those of the columns go into the layer before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
Vector = NDArray[np.float64]

# The constants of the method, as published.
_DEVIATIONS: Final = (1e-3, 1e3)  # standard deviations beyond count as these when the goal is set
_STEP: Final = (0.7, 2.0)  # most that one turn changes a factor
_LOGARITHMS: Final = (-0.3, 10.0)  # of the factors
_LEAST: Final = 1e-12


def column_factors(matrices: Sequence[Matrix], order: int, block: int) -> Vector:
    """Factors t of the columns of matrices (rows, width) that share their input; dividing by t evens them out.

    Each tile of `block` columns over all rows is balanced alone, in at most `order` turns. The median of t is 1, and
    all of it is positive and finite, whatever the weights are.
    """
    width = matrices[0].shape[1]
    factors = np.ones(width)
    for start in range(0, width, block):
        tile = np.concatenate([matrix[:, start : start + block] for matrix in matrices])
        with np.errstate(over="ignore", invalid="ignore"):  # squares beyond 32 bits: such weights are left as they are
            factors[start : start + block] = balance(tile, order)[0]
    return factors / np.median(factors)


def balance(tile: Matrix, order: int) -> tuple[Vector, Vector]:
    """Factors of the columns and of the rows by which a matrix is best divided.

    They are the best of those seen before a turn made it worse. Deviations of the divided matrix come from products of
    the matrix and its square with the inverse factors, so that it is never divided itself.
    """
    spread = _Spread(tile)
    column_logs, row_logs = np.zeros(tile.shape[1]), np.zeros(tile.shape[0])
    best = (np.ones(tile.shape[1]), np.ones(tile.shape[0]))
    columns, rows = spread.deviations(*best)
    goal = min(np.clip(rows, *_DEVIATIONS).min(), np.clip(columns, *_DEVIATIONS).min()) + 1e-6
    least = imbalance(columns, rows)
    for _ in range(order):
        factors = np.exp(column_logs), np.exp(row_logs)
        columns, rows = spread.deviations(*factors)
        now = imbalance(columns, rows)
        if not now <= least:
            break
        least, best = now, factors
        column_logs = np.clip(column_logs + np.log(np.clip(columns / goal, *_STEP)), *_LOGARITHMS)
        row_logs = np.clip(row_logs + np.log(np.clip(rows / goal, *_STEP)), *_LOGARITHMS)
    return best


def imbalance(columns: Vector, rows: Vector) -> float:
    """Largest standard deviation of a row or column by the smallest."""
    return float(max(columns.max(), rows.max()) / max(min(columns.min(), rows.min()), _LEAST))


class _Spread:
    def __init__(self, tile: Matrix) -> None:
        # The products take the time, and are limited by memory: 32 bits, of which the sums lose nothing that matters.
        self._values = np.ascontiguousarray(tile, np.float32)
        self._squares = self._values * self._values

    def deviations(self, columns: Vector, rows: Vector) -> tuple[Vector, Vector]:
        """Standard deviations (ddof 1) of the columns and rows of the matrix divided by factors."""
        a, b = (1 / rows).astype(np.float32), (1 / columns).astype(np.float32)
        row_sums, row_squares = self._values @ b, self._squares @ (b * b)
        column_sums, column_squares = a @ self._values, (a * a) @ self._squares
        return _deviation(column_sums, column_squares, len(a)) / columns, _deviation(
            row_sums, row_squares, len(b)
        ) / rows


def _deviation(sums: Matrix, squares: Matrix, count: int) -> Vector:
    exact = sums.astype(np.float64)
    variance = (squares.astype(np.float64) - exact * exact / count) / max(1, count - 1)
    deviation: Vector = np.sqrt(np.maximum(variance, 0.0))
    return deviation
