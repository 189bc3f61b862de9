"""Run measures: a folder of sets, or a file of one's own."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal, get_args

from ondevice_sdk._version import __version__
from ondevice_sdk.client import Client
from ondevice_sdk.device import detect
from ondevice_sdk.errors import ClientClosed, ConfigurationError, OnDeviceError
from ondevice_sdk.evaluate import sets
from ondevice_sdk.evaluate.data import Rows, data_folder, read_records, select
from ondevice_sdk.evaluate.measures.entities import EntityMeasure
from ondevice_sdk.evaluate.measures.extraction import ObjectMeasure
from ondevice_sdk.evaluate.measures.labels import LabelMeasure
from ondevice_sdk.evaluate.measures.measure import Measure, Sample
from ondevice_sdk.evaluate.measures.missing import Missing
from ondevice_sdk.evaluate.measures.schemas import SchemaMeasure
from ondevice_sdk.evaluate.measures.summaries import SummaryMeasure
from ondevice_sdk.evaluate.report import Machine, Report, Row, Skipped, model_name
from ondevice_sdk.evaluate.session import Session
from ondevice_sdk.types import Progress

Task = Literal["sentiment", "labels", "entities", "extract", "summarise", "schema"]
OnProgress = Callable[[Progress], None]

_OWN_ROWS: Final = 200  # of a file of one's own
_FIELDS: Final = {
    "sentiment": "label",
    "labels": "label",
    "entities": "entities",
    "extract": "fields",
    "summarise": "references",
    "schema": "schema",
}


def evaluate(
    client: Client,
    *,
    data: str | Path | None = None,
    only: Sequence[str] = (),
    rows: Rows = None,
    naive: bool = True,
    minutes: float | None = None,
    command: str = "",
    on_progress: OnProgress | None = None,
) -> Report:
    """Measure the sets of a folder. One during which the worker keeps crashing is skipped, and the report says so.

    Args:
        client: whose model is measured.
        data: the folder; None: that of `ONDEVICE_EVAL_DATA`.
        only: families or names of sets; empty: all.
        rows: the first so many of each set, fewer of long texts; "all"; None: 40.
        naive: ask the same model with plain prompts too.
        minutes: sets that have not begun by then are skipped, and named.
        command: how the run was started, for the report.
        on_progress: told of every finished call, with the set as the stage; the number of calls is not known before.

    Raises:
        ConfigurationError: no folder, an unknown word in `only`, or a row with a wrong form.
        ModelNotInstalled, BackendUnavailable, ...: the model cannot be used.
    """
    _check_packages()
    folder = data_folder(data)
    _check_rows(rows)
    wanted = sets.chosen(tuple(only))
    samples: list[tuple[Measure, Sample]] = []
    skipped: list[Skipped] = []
    for each in wanted:
        path = folder / f"{each.name}.jsonl"
        others = {name: folder / f"{name}.jsonl" for name in each.beside}
        if path.is_file() and all(other.is_file() for other in others.values()):
            whole = read_records(path)
            records = select(whole, rows, quick=sets.QUICK, weight=each.weight, spread=each.spread)
            beside = {name: read_records(other) for name, other in others.items()}
            samples.append((each.measure, Sample(each.name, records, whole, beside)))
        else:
            skipped.append(Skipped(each.name, "the folder has no such file"))
    if not samples:
        raise ConfigurationError(f"{folder} has none of the sets", hint="each set is a file, <name>.jsonl")
    return _measure(client, samples, skipped, naive, command, on_progress, minutes)


def evaluate_file(
    client: Client,
    path: str | Path,
    task: Task,
    *,
    text: str = "text",
    label: str | None = None,
    labels: Sequence[str] = (),
    words: int = 60,
    rows: Rows = None,
    naive: bool = True,
    command: str = "",
    on_progress: OnProgress | None = None,
) -> Report:
    """Measure a task on labelled data of one's own: JSONL, one object a line.

    Args:
        client: whose model is measured.
        path: the file. Its name is in the report, its text is not.
        task: "sentiment" or "labels" (a label each), "entities" (`[{type, start, end}]`), "extract" (an object of
            fields and values), "summarise" (one reference or several), "schema" (a JSON schema; needs no text).
        text: the field of the text.
        label: the field of what is right; None: `label`, `entities`, `fields`, `references` or `schema`.
        labels: what to choose from; empty: all labels of the file.
        words: the limit of a summary.
        rows: the first so many; "all"; None: 200.
        naive: ask the same model with plain prompts too.
        command: how the run was started, for the report.
        on_progress: as `evaluate`.

    Raises:
        ConfigurationError: a wrong option, or a row with a wrong form (file and line are named).
    """
    _check_packages()
    _check_rows(rows)
    if task not in get_args(Task):
        raise ConfigurationError(f"task must be one of {', '.join(get_args(Task))}, not {task!r:.40}")
    if words < 1:
        raise ConfigurationError("words must be at least 1")
    whole = read_records(Path(path))
    measure = _measure_of(task, text, label or _FIELDS[task], tuple(labels), words)
    sample = Sample(Path(path).stem, select(whole, rows, quick=_OWN_ROWS), whole)
    return _measure(client, [(measure, sample)], [], naive, command, on_progress)


def _measure_of(task: Task, text: str, label: str, labels: tuple[str, ...], words: int) -> Measure:
    match task:
        case "sentiment":
            return LabelMeasure("sentiment", text, label, labels)
        case "labels":
            return LabelMeasure("labels", text, label, labels)
        case "entities":
            return EntityMeasure(text=text, entities=label)
        case "extract":
            return ObjectMeasure(text=text, values=label)
        case "summarise":
            return SummaryMeasure(words, text, label)
        case "schema":
            return SchemaMeasure(schema=label)


def _measure(
    client: Client,
    samples: Sequence[tuple[Measure, Sample]],
    skipped: Sequence[Skipped],
    naive: bool,
    command: str,
    on_progress: OnProgress | None,
    minutes: float | None = None,
) -> Report:
    started = time.perf_counter()
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    client.prewarm()  # a model that cannot be used is an error here, not failed rows
    rows: list[Row] = []
    left_out = list(skipped)
    for number, (measure, sample) in enumerate(samples, 1):
        late = minutes is not None and time.perf_counter() - started > 60 * minutes
        if late and not isinstance(measure, Missing):  # what the SDK lacks is said in no time
            left_out.append(Skipped(sample.set, "the time was up"))
            continue
        session = Session(client, naive, _ticker(on_progress, sample, number, len(samples)))
        try:
            rows.extend(measure.rows(session, sample))
        except (ConfigurationError, ClientClosed):
            raise
        except OnDeviceError as error:
            if len(samples) == 1:
                raise
            left_out.append(Skipped(sample.set, f"{error.code}: {error.message}"))
    model, device = client.model, detect()
    return Report(
        rows=tuple(rows),
        skipped=tuple(left_out),
        model=model_name(model),
        backend=model.backend,
        sha256=model.sha256,
        sdk_version=__version__,
        machine=Machine(device.system, device.machine, device.cpu_name, device.usable_cores),
        date=date,
        command=command,
        seconds=round(time.perf_counter() - started, 1),
    )


def _ticker(on_progress: OnProgress | None, sample: Sample, number: int, count: int) -> Callable[[], None]:
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(Progress(f"{sample.set} ({number} of {count})", done, None, "calls"))

    return tick


def _check_rows(rows: Rows) -> None:
    if rows is None or rows == "all":
        return
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise ConfigurationError("rows must be a number from 1, or 'all'")


def _check_packages() -> None:
    import importlib.util

    missing = [name for name in ("rouge_score", "jsonschema") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(f"not installed: {', '.join(missing)}", hint="pip install 'ondevice-sdk[evaluate]'")
