"""Figures beside the goals that they are to reach, a line of a markdown table each."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ondevice_sdk import intervals
from ondevice_sdk.intervals import Interval

Unit = Literal["x", "s", "share"]
Verdict = Literal["reached", "reached, not beyond doubt", "missed, not beyond doubt", "missed", ""]

HEADER: Final = (
    "| measure | model | figure | 95 % interval | goal | | ours | against | n |\n|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound of a figure: at least so much, or at most. `unit` is that of the figure, "x" for a ratio."""

    bound: float
    at_least: bool = True
    unit: Unit = "x"

    def verdict(self, figure: Interval) -> Verdict:
        """Whether the figure keeps the bound, and whether its whole interval lies on that side."""
        sign = 1 if self.at_least else -1
        inside = [sign * value >= sign * self.bound for value in (figure.value, figure.low, figure.high)]
        if inside[0]:
            return "reached" if all(inside) else "reached, not beyond doubt"
        return "missed, not beyond doubt" if any(inside) else "missed"

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {_said(self.bound, self.unit)}"


@dataclass(frozen=True, slots=True)
class Row:
    """A figure of one model. `ours` and `against` are the two sides of a ratio, for people; `samples` how many."""

    measure: str
    model: str
    figure: Interval
    samples: int
    goal: Goal | None = None
    ours: str = ""
    against: str = ""
    unit: Unit = "x"  # where there is no goal

    def markdown(self) -> str:
        """A line below `HEADER`."""
        unit = self.goal.unit if self.goal else self.unit
        figure, verdict = self.figure, self.goal.verdict(self.figure) if self.goal else ""
        between = f"{_said(figure.low, unit)} to {_said(figure.high, unit)}"
        cells = (self.measure, self.model, _said(figure.value, unit), between, self.goal or "", verdict)
        return f"| {' | '.join(map(str, (*cells, self.ours, self.against, self.samples)))} |"


def compared(
    measure: str,
    model: str,
    ours: Sequence[float],
    against: Sequence[float],
    *,
    unit: str,
    goal: Goal | None = None,
    whom: str = "",
    less_is_better: bool = False,
) -> Row:
    """The ratio of two sides that were measured in pairs, so that more than 1 speaks for ours.

    Args:
        measure: what was measured.
        model: of which model.
        ours: samples.
        against: the other side's, pair by pair.
        unit: of the samples.
        goal: what the ratio is to reach.
        whom: the other side.
        less_is_better: they are times or sizes, not speeds.
    """
    ratio = intervals.ratio(against, ours) if less_is_better else intervals.ratio(ours, against)
    mine, other = (f"{statistics.median(side):.3g} {unit}" for side in (ours, against))
    return Row(measure, model, ratio, len(ours), goal, mine, f"{whom} {other}".strip())


def _said(value: float, unit: Unit) -> str:
    if unit == "share":
        return f"{value:.2f}"
    if unit == "s":
        return f"{value:.3g} s"
    return f"{value:.3g}x" if value >= 10 else f"{value:.3f}x"
