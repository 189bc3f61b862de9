"""The arithmetic of labels: log-odds to probabilities, and what solved examples teach about them. Pure Python."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_ROUNDS: Final = 60  # of the descent; the figures no longer move then, with 4 examples as with 64


@dataclass(frozen=True, slots=True)
class Fit:
    """A correction of log-odds: `scale * odds + bias`."""

    scale: float
    bias: tuple[float, ...]

    def __call__(self, odds: Sequence[float]) -> list[float]:
        """The corrected log-odds."""
        return [self.scale * value + bias for value, bias in zip(odds, self.bias, strict=True)]


def softmax(odds: Sequence[float]) -> list[float]:
    """Log-odds as probabilities that sum to 1."""
    highest = max(odds)
    weights = [math.exp(value - highest) for value in odds]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def fit(rows: Sequence[Sequence[float]], right: Sequence[int], *, stiff_bias: float, stiff_scale: float) -> Fit:
    """The correction under which solved rows are likeliest, held near none at all.

    Logistic regression with a normal prior on every bias and on the logarithm of the scale: few examples move little,
    and without any the correction is none.
    """
    count = len(rows[0])
    bias, log_scale = [0.0] * count, 0.0
    pace = 1.0 / (len(rows) / 2 + stiff_bias)
    for _ in range(_ROUNDS):
        scale = math.exp(log_scale)
        slope = [stiff_bias * value for value in bias]
        tilt, bend = stiff_scale * log_scale, stiff_scale
        for odds, label in zip(rows, right, strict=True):
            chances = softmax([scale * value + shift for value, shift in zip(odds, bias, strict=True)])
            middle = math.fsum(chance * value for chance, value in zip(chances, odds, strict=True))
            spread = math.fsum(chance * (value - middle) ** 2 for chance, value in zip(chances, odds, strict=True))
            tilt += scale * (middle - odds[label])
            bend += scale * scale * spread + abs(scale * (middle - odds[label]))
            chances[label] -= 1.0
            for index, error in enumerate(chances):
                slope[index] += error
        bias = [value - pace * push for value, push in zip(bias, slope, strict=True)]
        log_scale -= min(max(tilt / bend, -0.5), 0.5)
    return Fit(math.exp(log_scale), tuple(bias))
