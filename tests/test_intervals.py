from __future__ import annotations

import random
import statistics

import pytest

from ondevice_sdk import intervals


def test_the_same_cases_give_the_same_interval() -> None:
    values = [1.0, 2.0, 4.0, 8.0, 16.0]
    assert intervals.median(values) == intervals.median(values)
    made = intervals.mean(values)
    assert made.low <= made.value == 6.2 <= made.high
    assert min(values) <= made.low < made.high <= max(values)


def test_one_case_has_no_width_and_none_is_refused() -> None:
    assert intervals.median([3.0]) == intervals.Interval(3.0, 3.0, 3.0)
    with pytest.raises(ValueError, match="at least one"):
        intervals.mean([])


def test_pairs_take_out_what_both_share() -> None:
    draw = random.Random(4)
    noise = [draw.uniform(10, 1000) for _ in range(50)]
    ratio = intervals.ratio([1.1 * value for value in noise], noise)
    assert ratio.low == pytest.approx(1.1)
    assert ratio.high == pytest.approx(1.1)
    assert intervals.difference([value + 5 for value in noise], noise).low == pytest.approx(5)
    with pytest.raises(ValueError, match="zip"):
        intervals.ratio([1.0, 2.0], [1.0])


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    draw = random.Random(7)
    covered = 0
    for _ in range(200):
        sample = [draw.gauss(10, 3) for _ in range(40)]
        made = intervals.bootstrap(sample, statistics.fmean, rounds=200)
        covered += made.low <= 10 <= made.high
    assert 0.88 <= covered / 200 <= 0.99
