"""Confidence intervals by resampling, for figures of speed and quality.

The percentile bootstrap: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. Two things that
were measured on the same cases are compared case by case: the pairs are drawn again, never one side alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

T = TypeVar("T")

ROUNDS: Final = 1000
LEVEL: Final = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the range in which it lies with 95 % confidence, as far as the cases are typical."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


def bootstrap(
    cases: Sequence[T], figure: Callable[[Sequence[T]], float], *, rounds: int = ROUNDS, seed: int = 1
) -> Interval:
    """The interval of `figure` over cases drawn again with replacement. The same seed gives the same interval.

    Raises:
        ValueError: there are no cases.
    """
    import random  # not at the top, like `statistics`: apps and workers import this module when they start

    if not cases:
        raise ValueError("an interval needs at least one case")
    draw = random.Random(seed)  # noqa: S311 - statistics, no secret
    drawn = sorted(figure(draw.choices(cases, k=len(cases))) for _ in range(rounds))
    outside = (1 - LEVEL) / 2
    return Interval(figure(cases), drawn[int(rounds * outside)], drawn[min(rounds - 1, int(rounds * (1 - outside)))])


def median(values: Sequence[float], *, rounds: int = ROUNDS) -> Interval:
    """The interval of the median."""
    return bootstrap(values, middle, rounds=rounds)


def middle(values: Sequence[float]) -> float:
    """The median of at least one value."""
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2


def ranked(values: Sequence[float]) -> Interval:
    """The interval of the median between two of the values themselves: exact, cheap, and right for a few of them.

    The sign test turned round (Conover, Practical Nonparametric Statistics, 3rd edition, section 3.2). Of fewer than
    six values it is their whole range, which covers the median less often than `LEVEL`: 94 % of the time for five.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("an interval needs at least one case")
    ordered, count = sorted(values), len(values)
    outside, left_out = 0.0, 0  # chance that the median lies beyond so many of the values at one end
    while left_out < (count - 1) // 2:
        outside += math.comb(count, left_out) / 2**count
        if outside + math.comb(count, left_out + 1) / 2**count > (1 - LEVEL) / 2:
            break
        left_out += 1
    return Interval(middle(ordered), ordered[left_out], ordered[count - 1 - left_out])


def mean(values: Sequence[float], *, rounds: int = ROUNDS) -> Interval:
    """The interval of the mean."""
    import statistics

    return bootstrap(values, statistics.fmean, rounds=rounds)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """The interval of the median of `ours / theirs`, pair by pair.

    Raises:
        ValueError: the lengths differ, or there are no pairs.
    """
    return median([mine / other for mine, other in zip(ours, theirs, strict=True)])


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """The interval of the mean of `ours - theirs`, pair by pair.

    Raises:
        ValueError: the lengths differ, or there are no pairs.
    """
    return mean([mine - other for mine, other in zip(ours, theirs, strict=True)])
