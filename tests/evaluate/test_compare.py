"""Rows from outcomes: the best prompt, the paired difference, rows that belong together."""

from __future__ import annotations

import pytest

from ondevice_sdk.evaluate import metrics
from ondevice_sdk.evaluate.compare import About, Metric, Outcomes, compare
from ondevice_sdk.evaluate.metrics import Counts

SHARE = Metric("share", metrics.mean)
FEWER = Metric("share of bad", metrics.mean, "lower")
ABOUT = About("set", "family")

OURS = [1.0, 1.0, 1.0, 0.0]
NAIVE = {"good": [1.0, 1.0, 0.0, 0.0], "bad": [0.0, 0.0, 0.0, 0.0], "middling": [1.0, 0.0, 0.0, 0.0]}


def test_best_and_worst_prompt() -> None:
    row = compare(ABOUT, SHARE, Outcomes(OURS, NAIVE, ("rule", [1.0, 0.0, 1.0, 0.0])))
    assert row.sdk is not None
    assert row.best_naive is not None
    assert row.worst_naive is not None
    assert row.trivial is not None
    assert row.difference is not None
    assert (row.sdk.value, row.best_naive.name, row.worst_naive.name) == (0.75, "good", "bad")
    assert (row.trivial.name, row.trivial.figure.value) == ("rule", 0.5)
    assert row.difference.value == pytest.approx(0.25)
    assert row.rows == 4


def test_where_less_is_better_the_best_prompt_is_the_lowest() -> None:
    row = compare(ABOUT, FEWER, Outcomes(OURS, NAIVE))
    assert row.best_naive is not None
    assert row.worst_naive is not None
    assert (row.best_naive.name, row.worst_naive.name) == ("bad", "good")


def test_one_figure_can_decide_for_another() -> None:
    counts = {"says nothing": [Counts(0, 0, 4)], "tries": [Counts(3, 4, 4, invented=1)]}
    found, invented = Metric("f1", metrics.f1), Metric("invented", metrics.invented, "lower")
    alone = compare(ABOUT, invented, Outcomes([Counts(4, 4, 4)], counts))
    row = compare(ABOUT, invented, Outcomes([Counts(4, 4, 4)], counts), ranked_by=found)
    assert alone.best_naive is not None
    assert row.best_naive is not None
    assert row.difference is not None
    assert (alone.best_naive.name, row.best_naive.name) == ("says nothing", "tries")
    assert row.difference.value == -0.25


def test_the_difference_is_paired() -> None:
    """Two systems that are right on the very same rows do not differ at all, however few the rows."""
    row = compare(ABOUT, SHARE, Outcomes(OURS, {"same": OURS}))
    assert row.difference is not None
    assert row.sdk is not None
    assert (row.difference.low, row.difference.high) == (0, 0)
    assert row.sdk.low < row.sdk.high
    assert row.worst_naive is None


def test_rows_of_a_group_are_drawn_together() -> None:
    rows = [1.0] * 50 + [0.0] * 50
    alone = compare(ABOUT, SHARE, Outcomes(rows)).sdk
    grouped = compare(ABOUT, SHARE, Outcomes(rows, groups=["a"] * 50 + ["b"] * 50)).sdk
    assert alone is not None
    assert grouped is not None
    assert alone.value == grouped.value == 0.5
    assert (grouped.low, grouped.high) == (0, 1)  # two cases, not a hundred
    assert alone.high - alone.low < 0.3


def test_without_a_task_of_the_sdk_the_baselines_stand() -> None:
    row = compare(ABOUT, SHARE, Outcomes(None, NAIVE))
    assert row.sdk is None
    assert row.difference is None
    assert row.best_naive is not None
