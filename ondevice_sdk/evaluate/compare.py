"""From outcomes to rows: a figure for the SDK, for naive prompts, for a trivial rule, and what lies between."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from ondevice_sdk.evaluate.report import Baseline, Row
from ondevice_sdk.intervals import Interval, bootstrap

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Metric(Generic[T]):
    """A figure of outcomes."""

    name: str
    figure: Callable[[Sequence[T]], float]
    better: Literal["higher", "lower"] = "higher"


@dataclass(frozen=True, slots=True)
class Outcomes(Generic[T]):
    """What every system made of the same rows, in their order.

    `groups` names what rows have in common (a document, a template): rows of a group are drawn together, since they
    are not independent. Empty: every row is a case of its own.
    """

    sdk: Sequence[T] | None
    naive: Mapping[str, Sequence[T]] = field(default_factory=dict)
    trivial: tuple[str, Sequence[T]] | None = None
    groups: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class About:
    """What a row says beside its figures."""

    set: str
    family: str
    seconds: float = 0.0
    naive_seconds: float = 0.0
    note: str = ""


def compare(about: About, metric: Metric[T], outcomes: Outcomes[T], *, ranked_by: Metric[T] | None = None) -> Row:
    """One row of the report. The best and the worst naive prompt are those on these very rows.

    Args:
        about: what the row says beside its figures.
        metric: the figure.
        outcomes: of all systems.
        ranked_by: the figure that decides which prompt is the best, where `metric` says only half of it: a prompt
            whose answers hold nothing has invented nothing.
    """
    all_of = [
        *([] if outcomes.sdk is None else [outcomes.sdk]),
        *outcomes.naive.values(),
        *([] if outcomes.trivial is None else [outcomes.trivial[1]]),
    ]
    count = len(all_of[0])
    assert all(len(each) == count for each in all_of)

    def interval(rows: Sequence[T]) -> Interval:
        return bootstrap(_grouped(rows, outcomes.groups), lambda cases: metric.figure(_flat(cases)))

    main = ranked_by or metric
    upwards = main.better == "higher"
    ranked = sorted(outcomes.naive, key=lambda name: main.figure(outcomes.naive[name]), reverse=upwards)
    sdk, trivial = outcomes.sdk, outcomes.trivial
    best = outcomes.naive[ranked[0]] if ranked else None
    return Row(
        set=about.set,
        family=about.family,
        metric=metric.name,
        rows=count,
        sdk=None if sdk is None else interval(sdk),
        best_naive=None if best is None else Baseline(ranked[0], interval(best)),
        worst_naive=Baseline(ranked[-1], interval(outcomes.naive[ranked[-1]])) if len(ranked) > 1 else None,
        trivial=None if trivial is None else Baseline(trivial[0], interval(trivial[1])),
        difference=None if sdk is None or best is None else _difference(metric, sdk, best, outcomes.groups),
        better=metric.better,
        seconds=round(about.seconds, 2),
        naive_seconds=round(about.naive_seconds, 2),
        note=about.note,
    )


def _difference(metric: Metric[T], ours: Sequence[T], theirs: Sequence[T], groups: Sequence[str]) -> Interval:
    def figure(cases: Sequence[Sequence[tuple[T, T]]]) -> float:
        pairs = _flat(cases)
        return metric.figure([mine for mine, _ in pairs]) - metric.figure([other for _, other in pairs])

    return bootstrap(_grouped(list(zip(ours, theirs, strict=True)), groups), figure)


def _grouped(rows: Sequence[T], groups: Sequence[str]) -> list[list[T]]:
    if not groups:
        return [[row] for row in rows]
    held: dict[str, list[T]] = {}
    for row, group in zip(rows, groups, strict=True):
        held.setdefault(group, []).append(row)
    return list(held.values())


def _flat(cases: Sequence[Sequence[T]]) -> list[T]:
    return [row for case in cases for row in case]
