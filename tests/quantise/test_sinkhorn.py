from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from ondevice_sdk.quantise import sinkhorn

SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
MATRICES = SHAPES.flatmap(
    lambda shape: arrays.arrays(np.float32, shape, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))
)  # zeros, repeated values, lone outliers, and the smallest and largest numbers among them


def imbalance(matrix: NDArray[np.float64]) -> float:
    deviations = np.concatenate([matrix.std(axis=axis, ddof=1) for axis in (0, 1)])
    return float(deviations.max() / max(deviations.min(), 1e-12))


def published(matrix: NDArray[np.float32], order: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The method as its authors wrote it down: in double precision, with the matrix divided in every turn."""
    exact = matrix.astype(np.float64)
    goal = min(np.clip(exact.std(axis=axis, ddof=1), 1e-3, 1e3).min() for axis in (0, 1)) + 1e-6
    columns, rows = np.zeros(exact.shape[1]), np.zeros((exact.shape[0], 1))
    least, best = imbalance(exact), (np.exp(columns), np.exp(rows).ravel())
    for _ in range(order):
        now = exact / np.exp(columns) / np.exp(rows)
        if imbalance(now) > least:
            break
        least, best = imbalance(now), (np.exp(columns), np.exp(rows).ravel())
        columns = np.clip(columns + np.log(np.clip(now.std(axis=0, ddof=1) / goal, 0.7, 2.0)), -0.3, 10)
        rows = np.clip(rows + np.log(np.clip(now.std(axis=1, ddof=1) / goal, 0.7, 2.0))[:, None], -0.3, 10)
    return best


def uneven(rows: int, columns: int, seed: int) -> NDArray[np.float32]:
    draw = np.random.default_rng(seed)
    spread = np.exp(draw.normal(0, 0.6, columns)) * np.exp(draw.normal(0, 0.3, (rows, 1)))
    made: NDArray[np.float32] = (draw.normal(0, 0.03, (rows, columns)) * spread).astype(np.float32)
    return made


@pytest.mark.parametrize(("rows", "columns"), [(300, 64), (64, 300), (5, 3)])
@pytest.mark.parametrize("order", [0, 1, 3, 16])
def test_the_factors_are_those_of_the_published_method(rows: int, columns: int, order: int) -> None:
    matrix = uneven(rows, columns, seed=rows)
    for ours, theirs in zip(sinkhorn.balance(matrix, order), published(matrix, order), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5)


@given(MATRICES, st.integers(0, 20))
def test_whatever_the_matrix_the_factors_can_be_divided_by(matrix: NDArray[np.float32], order: int) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        found = sinkhorn.balance(matrix, order)
    for factors, size in zip(found, reversed(matrix.shape), strict=True):
        assert factors.shape == (size,)
        assert (factors >= np.exp(-0.3) * (1 - 1e-12)).all()
        assert (factors <= np.exp(10) * (1 + 1e-12)).all()
    t = sinkhorn.column_factors([matrix], order, 4)
    assert np.isfinite(t).all()
    assert (t > 0).all()
    assert np.median(t) == pytest.approx(1)


@given(st.integers(2, 80), st.integers(2, 80), st.integers(0, 2**32))
def test_it_never_gets_worse(rows: int, columns: int, seed: int) -> None:
    matrix = uneven(rows, columns, seed)
    across, down = sinkhorn.balance(matrix, 16)
    assert imbalance(matrix / across / down[:, None]) <= imbalance(matrix.astype(np.float64)) * (1 + 1e-5)


def test_columns_that_differ_are_evened_out() -> None:
    draw = np.random.default_rng(1)
    spread = np.exp(draw.normal(0, 0.6, 64))
    matrix = (draw.normal(0, 0.03, (2000, 64)) * spread).astype(np.float32)
    t = sinkhorn.column_factors([matrix], 16, 64)
    assert np.log((matrix / t).std(axis=0)).std() < 0.2 * np.log(matrix.std(axis=0)).std()


def test_tiles_do_not_see_each_other_and_matrices_count_together() -> None:
    matrix = uneven(40, 10, seed=3)
    t = sinkhorn.column_factors([matrix], 16, 4)
    last = sinkhorn.balance(matrix[:, 8:], 16)[0]  # it has two columns
    np.testing.assert_allclose(t[8:] / t[8], last / last[0])
    np.testing.assert_array_equal(t, sinkhorn.column_factors([matrix[:7], matrix[7:]], 16, 4))
