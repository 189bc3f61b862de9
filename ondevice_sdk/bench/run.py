"""Takes the samples in turns, so that what else the machine does meets all subjects and the bare library alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from ondevice_sdk import __version__
from ondevice_sdk.bench import machine
from ondevice_sdk.bench.conditions import (
    MEASURES,
    PAIRS,
    Conditions,
    MeasureName,
    Sizes,
    check_measures,
    device_with,
)
from ondevice_sdk.bench.measures import COLD, LOADED, SERVED, Measure, Sample, rounds
from ondevice_sdk.bench.report import Figure, Report, SubjectResult
from ondevice_sdk.bench.stations import Station, Target
from ondevice_sdk.bench.subjects import Subject, find
from ondevice_sdk.device import detect
from ondevice_sdk.errors import ConfigurationError, Unsupported
from ondevice_sdk.selection import usable_memory
from ondevice_sdk.store import Store
from ondevice_sdk.types import DeviceProfile, Progress

S = TypeVar("S", bound=Station)
OnProgress = Callable[[Progress], None]

_DEFAULT_SIZES: Final = Sizes()
_DEFAULT_CONDITIONS: Final = Conditions()


def measure(
    subject: Subject | str,
    *,
    measures: Sequence[MeasureName] = MEASURES,
    pairs: int = PAIRS,
    sizes: Sizes = _DEFAULT_SIZES,
    conditions: Conditions = _DEFAULT_CONDITIONS,
    store: Store | None = None,
    on_progress: OnProgress | None = None,
) -> SubjectResult:
    """Measure one model; see `run`."""
    report = run(
        [subject],
        measures=measures,
        pairs=pairs,
        sizes=sizes,
        conditions=conditions,
        store=store,
        on_progress=on_progress,
    )
    return report.subjects[0]


def run(
    subjects: Sequence[Subject | str] = (),
    *,
    measures: Sequence[MeasureName] = MEASURES,
    pairs: int = PAIRS,
    sizes: Sizes = _DEFAULT_SIZES,
    conditions: Conditions = _DEFAULT_CONDITIONS,
    store: Store | None = None,
    command: str = "",
    on_progress: OnProgress | None = None,
) -> Report:
    """Measure models side by side, in turns, each beside the bare library.

    Models that fit into memory together are all loaded, and a turn takes one sample of each. Otherwise they come one
    after another.

    Args:
        subjects: models, or the words of `find`; all installed models for none.
        measures: what to measure.
        pairs: samples of each figure (of long ones fewer, see `measures.rounds`).
        sizes: lengths of prompts and answers.
        conditions: settings of the client.
        store: another store of models.
        command: noted in the report.
        on_progress: told of each sample.

    Raises:
        ConfigurationError: a wrong argument. ModelNotInstalled, NoModelFits, PrivacyUnavailable, LoadFailed, ...
    """
    wanted = check_measures(measures)
    check(pairs, conditions)
    store = store or Store.open()
    words = [each for each in subjects if isinstance(each, str)]
    found = iter(find(words, store=store, on_progress=on_progress) if words or not subjects else ())
    chosen = [next(found) if isinstance(each, str) else each for each in subjects] or list(found)
    device = device_seen(conditions)
    targets = [Target.of(subject, device, conditions, sizes, store) for subject in chosen]
    groups = [[each for each in group if each.name in wanted] for group in (LOADED, SERVED, COLD)]
    return take(targets, groups, pairs, command, on_progress)


def check(pairs: int, conditions: Conditions) -> None:
    """Raise ConfigurationError for numbers that are none."""
    if pairs < 1:
        raise ConfigurationError("pairs must be at least 1")
    if conditions.threads is not None and conditions.threads < 1:
        raise ConfigurationError("threads must be at least 1")


def device_seen(conditions: Conditions) -> DeviceProfile:
    """This machine as the client under test sees it."""
    return device_with(conditions.threads) or detect(measure=True)


def take(
    targets: Sequence[Target],
    groups: Sequence[Sequence[Measure[Any]]],
    pairs: int,
    command: str,
    on_progress: OnProgress | None,
) -> Report:
    """Take the samples of all measures. The stations of a group are open together; those of the next come after it.

    Args:
        targets: at least one; all have the same conditions and sizes.
        groups: of measures that share their kind of station.
        pairs: samples of each figure.
        command: noted in the report.
        on_progress: told of each sample.
    """
    start = time.monotonic()
    date = datetime.now(UTC).isoformat(timespec="seconds")
    device = detect(measure=True)
    warnings = machine.disturbances(device)
    tallies = [_Tally(target) for target in targets]
    together = sum(target.memory_bytes for target in targets) <= usable_memory(device)
    if not together and len(targets) > 1:
        warnings += ("the models do not fit into memory together: they were measured one after another, not in turns",)
    for some in [tallies] if together else [[tally] for tally in tallies]:
        for group in groups:
            _Turns(group, some, pairs, on_progress).take()
    results = tuple(tally.result() for tally in tallies)
    return Report(
        date,
        command,
        __version__,
        machine.versions(),
        device,
        targets[0].conditions,
        targets[0].sizes,
        pairs,
        round(time.monotonic() - start, 1),
        results,
        (*warnings, *machine.noise(results)),
    )


@dataclass(slots=True)
class _Tally:
    """The samples of one target so far."""

    target: Target
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            self.samples.setdefault(sample.figure, []).append(sample)

    def result(self) -> SubjectResult:
        target, model = self.target, self.target.chosen.model
        figures = {
            name: Figure.of(
                name,
                tuple(sample.ours for sample in samples),
                tuple(sample.library for sample in samples if sample.library is not None),
            )
            for name, samples in self.samples.items()
        }
        if target.conditions.against_library and not target.compared:
            self.notes.append(f"there is no bare library to compare {target.chosen.backend} with")
        return SubjectResult(
            label=target.subject.label,
            name=model.name,
            variant=model.variant,
            quantisation=target.quantisation,
            backend=target.chosen.backend,
            sha256=model.sha256,
            file_bytes=target.file_bytes,
            random=target.subject.random,
            context_tokens=target.context_tokens,
            threads=target.device.threads,
            weights_read_bytes=target.weights_read_bytes,
            figures=figures,
            notes=tuple(self.notes),
        )


class _Turns:
    """Measures that share their stations, over some targets that are open together."""

    def __init__(
        self, measures: Sequence[Measure[S]], tallies: Sequence[_Tally], pairs: int, on_progress: OnProgress | None
    ) -> None:
        self._measures = measures
        self._tallies = tallies
        self._pairs = pairs
        self._on_progress = on_progress

    def take(self) -> None:
        """Open the stations and take all samples."""
        if not self._measures:
            return
        with ExitStack() as stack:
            stations = [(stack.enter_context(self._measures[0].open(tally.target)), tally) for tally in self._tallies]
            for each in self._measures:
                self._one(each, stations)

    def _one(self, measure: Measure[S], stations: Sequence[tuple[S, _Tally]]) -> None:
        count = rounds(measure, self._pairs)
        total = count * len(stations)
        able = list(stations)
        for turn in range(-1 if measure.warm_up else 0, count):
            for place in range(len(able)):  # another one goes first each time
                station, tally = able[(place + turn) % len(able)]
                if self._on_progress is not None:
                    done = max(0, turn) * len(stations) + place
                    self._on_progress(Progress(f"{measure.name} {tally.target.subject.label}", done, total, "samples"))
                try:
                    samples = measure.sample(station, turn)
                except Unsupported as error:  # such as documents for a model without a chat template
                    tally.notes.append(f"{measure.name}: {error.message}")
                    continue
                if turn >= 0:
                    tally.add(samples)
            able = [pair for pair in able if not any(n.startswith(f"{measure.name}: ") for n in pair[1].notes)]
