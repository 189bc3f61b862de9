"""The result of an evaluation: figures with intervals, what made them, and no text of the data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ondevice_sdk.intervals import Interval
from ondevice_sdk.types import ModelInfo

_COLUMNS = ("set", "rows", "metric", "SDK", "best naive prompt", "worst", "trivial", "SDK - best naive", "seconds")


@dataclass(frozen=True, slots=True)
class Baseline:
    """What something simpler than the SDK reaches on the same rows. `name` is that of a prompt or a rule."""

    name: str
    figure: Interval


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one set.

    `difference` is the SDK less the best naive prompt, paired case by case. That prompt is the best on these very
    rows, which favours it. `sdk` is None where the SDK has no such task, and `note` says why.
    """

    set: str
    family: str
    metric: str
    rows: int
    sdk: Interval | None = None
    best_naive: Baseline | None = None
    worst_naive: Baseline | None = None
    trivial: Baseline | None = None
    difference: Interval | None = None
    better: str = "higher"
    seconds: float = 0.0  # of the SDK's own calls
    naive_seconds: float = 0.0  # of all naive prompts
    note: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A set that was not measured, and why."""

    set: str
    reason: str


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it was measured."""

    system: str
    machine: str
    cpu_name: str
    usable_cores: int


@dataclass(frozen=True, slots=True)
class Report:
    """All figures of one run."""

    rows: tuple[Row, ...]
    skipped: tuple[Skipped, ...]
    model: str  # name:variant
    backend: str
    sha256: str
    sdk_version: str
    machine: Machine
    date: str  # ISO 8601, UTC
    command: str
    seconds: float

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read what `to_json` wrote; a report of another form raises `ValueError`."""
        from pydantic import TypeAdapter

        return TypeAdapter(cls).validate_json(text)

    def to_markdown(self) -> str:
        """The report as a Markdown page: a table, what was left out, and what made it."""
        machine = self.machine
        made_by = (
            f"`{self.command}`, {self.date}, SDK {self.sdk_version}, {self.model} ({self.backend}, sha256 "
            f"{self.sha256[:12]}), {machine.cpu_name}, {machine.usable_cores} cores, {self.seconds:.0f} s. In brackets "
            "95 % intervals; the difference is paired."
        )
        lines = [
            made_by,
            "",
            "| " + " | ".join(_COLUMNS) + " |",
            "|---|--:|---|--:|--:|--:|--:|--:|--:|",
            *("| " + " | ".join(cell.replace("|", "\\|") for cell in cells(row)) + " |" for row in self.rows),
        ]
        notes = [f"* {row.set}, {row.metric}: {row.note}" for row in self.rows if row.note]
        notes += [f"* {skipped.set}: skipped, {skipped.reason}" for skipped in self.skipped]
        return "\n".join([*lines, "", *notes]) + "\n" if notes else "\n".join(lines) + "\n"


def cells(row: Row) -> tuple[str, ...]:
    """A row as words, for tables."""
    arrow = " ↓" if row.better == "lower" else ""
    return (
        row.set,
        str(row.rows),
        row.metric + arrow,
        "not available" if row.sdk is None else shown(row.sdk),
        _baseline(row.best_naive),
        _baseline(row.worst_naive),
        _baseline(row.trivial),
        "" if row.difference is None else shown(row.difference, signed=True),
        f"{row.seconds:.0f}" if row.seconds else "",
    )


def columns() -> Sequence[str]:
    """The names of what `cells` gives."""
    return _COLUMNS


def shown(interval: Interval, *, signed: bool = False) -> str:
    """A figure and its interval, to three places; small ones to two digits."""
    low, high = _number(interval.low, signed), _number(interval.high, signed)
    return f"{_number(interval.value, signed)} [{low}, {high}]"


def _number(value: float, signed: bool) -> str:
    sign = "+" if signed else ""
    return f"{value:{sign}.2g}" if 0 < abs(value) < 0.01 else f"{value:{sign}.3f}"


def model_name(model: ModelInfo) -> str:
    """The name that chooses this model again."""
    return f"{model.name}:{model.variant}" if model.variant else model.name


def _baseline(baseline: Baseline | None) -> str:
    return "" if baseline is None else f"{baseline.figure.value:.3f} {baseline.name}"
