"""One model in several precisions, measured in turns: what compressing it gains on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from ondevice_sdk import intervals
from ondevice_sdk.bench import filled
from ondevice_sdk.bench.conditions import PAIRS, Conditions, Sizes
from ondevice_sdk.bench.filled import FILLED_PAIRS
from ondevice_sdk.bench.measures import Measure, cold_start, decode, new_token, prompt
from ondevice_sdk.bench.precisions import (
    Contender,
    LeftOut,
    Origin,
    PrecisionName,
    check_precisions,
    contender,
    family,
    writing_backend,
)
from ondevice_sdk.bench.published import Published, beside
from ondevice_sdk.bench.report import Figure, Report, SubjectResult
from ondevice_sdk.bench.run import check, device_seen, take
from ondevice_sdk.bench.stations import Target, loaded, nothing_loaded
from ondevice_sdk.bench.subjects import OnProgress
from ondevice_sdk.catalogue import ModelSpec
from ondevice_sdk.errors import ConfigurationError, NoModelFits
from ondevice_sdk.intervals import Interval
from ondevice_sdk.selection import usable_memory
from ondevice_sdk.store import Store, elsewhere
from ondevice_sdk.store.files import readable
from ondevice_sdk.types import DeviceProfile

COLUMNS: Final = (
    "file_bytes",
    "peak_memory_bytes",
    "first_token_warm_s",
    "prompt_tokens_per_s",
    "decode_tokens_per_s",
)
_SHORT: Final = (
    (
        Measure("prompt", loaded, prompt),
        Measure("decode", loaded, decode),
        Measure("first_token", loaded, new_token),
    ),
    (Measure("cold", nothing_loaded, cold_start, 0.5),),
)
_DEFAULT_SIZES: Final = Sizes()
_DEFAULT_CONDITIONS: Final = Conditions()


@dataclass(frozen=True, slots=True)
class Row:
    """The model in one precision.

    `figures` are those of `COLUMNS` (and others, by the names of `KINDS`); `ratios` the same against the first row,
    round by round, empty for that row itself. What `made_from` and `requantised` say: see `precisions.Contender`.
    """

    precision: PrecisionName
    quantisation: str
    origin: Origin
    made_from: str | None
    requantised: bool
    random: bool
    backend: str
    sha256: str
    context_tokens: int
    threads: int
    figures: Mapping[str, Figure]
    ratios: Mapping[str, Interval] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """The table, with where and under which conditions it was measured.

    `filled` says whether the prompt fills the context. `published` is what was measured elsewhere: it is no part of
    `rows`.
    """

    date: str  # ISO 8601, UTC
    command: str
    sdk_version: str
    library_versions: Mapping[str, str]
    device: DeviceProfile
    conditions: Conditions
    sizes: Sizes
    pairs: int
    seconds: float
    model: str
    parameters: int | None
    filled: bool
    rows: tuple[Row, ...]
    left_out: tuple[LeftOut, ...]
    published: tuple[Published, ...]
    warnings: tuple[str, ...]


def compare(
    precisions: Sequence[str] = ("bf16", "int8", "int4"),
    *,
    model: str | None = None,
    pairs: int | None = None,
    sizes: Sizes = _DEFAULT_SIZES,
    conditions: Conditions = _DEFAULT_CONDITIONS,
    store: Store | None = None,
    command: str = "",
    on_progress: OnProgress | None = None,
    specs: Sequence[ModelSpec] | None = None,
) -> Comparison:
    """Measure one model in several precisions: file, memory, first token, prompt, decode, each against the first.

    Precisions that are not here are made for this run, in a sealed worker, and removed when it ends, however it ends.
    All are run by the same backend: `conditions.backend`, else the one that can make them.
    With `conditions.context_tokens` the prompt fills the context; else prompts are as in `run`. What does not fit into
    memory is left out, and said.

    Args:
        precisions: two or more of f32, f16, bf16, int8, int4. The first is what the others are compared with.
        model: a name, whose installed variants all count; `name:variant`, of which others are made; the path of a file;
            `random:SHAPE`; None: the one that a client takes.
        pairs: samples of each figure; None: as many as `run` takes, and few where the prompt fills the context.
        sizes: lengths of prompts and answers.
        conditions: settings of the client; the bare library does not run.
        store: another store of models.
        command: noted in the result.
        on_progress: told of each sample.
        specs: another catalogue.

    Raises:
        ConfigurationError: a wrong argument. NoModelFits: none of the precisions fits into memory.
        Unsupported: one of them cannot be made of what is here.
        ModelNotInstalled, ModelCorrupt, StoreError, PrivacyUnavailable, LoadFailed, ...
    """
    wanted = check_precisions(precisions)
    context = conditions.context_tokens
    if context is not None and context < 1:
        raise ConfigurationError("context must be at least 1")
    pairs = pairs if pairs is not None else PAIRS if context is None else FILLED_PAIRS
    check(pairs, conditions)
    sizes = sizes if context is None else filled.filling(context, sizes)
    sizes = replace(sizes, batch_sizes=(1,))  # loaded as a client loads it
    conditions = replace(conditions, against_library=False)
    store = store or Store.open()
    device = device_seen(conditions)
    if conditions.backend is None and (writer := writing_backend(device)) is not None:
        conditions = replace(conditions, backend=writer[0])
    with ExitStack() as stack:
        places: list[Path] = []

        def work() -> Path:
            if not places:
                places.append(stack.enter_context(store.space.session()))
            return places[0]

        models = family(model, store=store, device=device, conditions=conditions, specs=specs)
        found: list[tuple[Contender, Target]] = []
        left_out: list[LeftOut] = []
        refused: NoModelFits | None = None
        for precision in wanted:
            try:
                _require_memory(models.bytes_at_least(precision), device)
                made = contender(
                    models, precision, store=store, device=device, work=work, specs=specs, on_progress=on_progress
                )
                if made.origin == "made":
                    stack.callback(elsewhere.forget, store.space, Path(made.subject.model))
                found.append((made, Target.of(made.subject, device, conditions, sizes, store)))
            except NoModelFits as error:
                refused = error
                left_out.append(LeftOut(precision, error.message))
        if not found:
            assert refused is not None
            raise refused
        groups = _SHORT if context is None else filled.GROUPS
        report = take([target for _, target in found], groups, pairs, command, on_progress)
    return _compared(report, found, left_out, models.label, filled=context is not None)


def _require_memory(weights: int, device: DeviceProfile) -> None:
    room = usable_memory(device)
    if weights > room:
        raise NoModelFits(f"its weights alone need {readable(weights)}, {readable(room)} of memory can be used")


def _compared(
    report: Report,
    found: Sequence[tuple[Contender, Target]],
    left_out: Sequence[LeftOut],
    label: str,
    *,
    filled: bool,
) -> Comparison:
    """The rows of a report whose subjects are these."""
    first: Row | None = None
    rows: list[Row] = []
    for (made, target), result in zip(found, report.subjects, strict=True):
        row = _row(made, target, result, first)
        first = first or row
        rows.append(row)
    shape = found[0][1].shape
    contexts = {row.context_tokens for row in rows}
    differ = "the precisions were measured with contexts of different size: ask for one (context_tokens, --context)"
    return Comparison(
        report.date,
        report.command,
        report.sdk_version,
        report.library_versions,
        report.device,
        report.conditions,
        report.sizes,
        report.pairs,
        report.seconds,
        label,
        None if shape is None else shape.parameters,
        filled,
        tuple(rows),
        tuple(left_out),
        () if shape is None else beside(shape.parameters),
        (*([differ] if len(contexts) > 1 else []), *report.warnings),
    )


def _row(made: Contender, target: Target, result: SubjectResult, first: Row | None) -> Row:
    figures = {"file_bytes": Figure.of("file_bytes", (float(result.file_bytes),), ()), **result.figures}
    ratios = {} if first is None else {name: _ratio(figures, first.figures, name) for name in COLUMNS}
    notes = list(result.notes)
    if target.chosen.options.kv_type != "f16":
        notes.append(f"its KV cache is in {target.chosen.options.kv_type}, so that it fits into memory")
    return Row(
        made.precision,
        result.quantisation,
        made.origin,
        made.made_from,
        made.requantised,
        result.random,
        result.backend,
        result.sha256,
        result.context_tokens,
        result.threads,
        figures,
        {name: ratio for name, ratio in ratios.items() if ratio is not None},
        tuple(notes),
    )


def _ratio(mine: Mapping[str, Figure], its: Mapping[str, Figure], name: str) -> Interval | None:
    """Of samples that were taken in the same round; None where one side lacks some."""
    if name not in mine or name not in its:
        return None
    ours, others = mine[name].samples, its[name].samples
    return intervals.ratio(ours, others) if len(ours) == len(others) and all(others) else None
