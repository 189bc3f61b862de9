"""The `bench` command."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Optional

import typer

from ondevice_sdk.cli import comparison, output
from ondevice_sdk.types import PrivacyLevel

if TYPE_CHECKING:
    from ondevice_sdk.bench import Report
    from ondevice_sdk.types import Progress

_QUIET_S: Final = 20.0  # so long nobody wonders whether it still runs


def bench(
    models: Annotated[
        Optional[list[str]],  # noqa: UP045  # typer reads the annotation
        typer.Argument(
            metavar="[MODEL]...", help="A name, name:int4, a path, random:llama-3.2-1b:Q4_0; default: all installed."
        ),
    ] = None,
    measure: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="With commas between: prompt, decode, first_token, batched, documents, streamed, sampled, schema, "
            "cold. Default: all."
        ),
    ] = None,
    against_library: Annotated[
        bool, typer.Option("--against-library/--no-against-library", help="Also the bare library, in turns.")
    ] = True,
    pairs: Annotated[Optional[int], typer.Option(help="Samples of each figure.")] = None,  # noqa: UP045
    quick: Annotated[bool, typer.Option("--quick", help="Short lengths and few samples: a first look.")] = False,
    compare: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="One model in several precisions, as in bf16,int8,int4; the others against the first."),
    ] = None,
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="With --compare: a name, a path, random:llama-3.2-1b; default: the best installed."),
    ] = None,
    context: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Tokens of the context; with --compare the prompt fills it."),
    ] = None,
    threads: Annotated[Optional[int], typer.Option(help="Threads, for both sides.")] = None,  # noqa: UP045
    backend: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Of the client under test; default: what it takes, and with --compare what writes models."),
    ] = None,
    html: Annotated[Optional[Path], typer.Option(help="Write a page with plots.")] = None,  # noqa: UP045
    list_random: Annotated[bool, typer.Option("--list-random", help="List the random models made so far.")] = False,
    clean: Annotated[bool, typer.Option("--clean", help="Remove the random models made so far.")] = False,
    privacy: Annotated[PrivacyLevel, typer.Option(help="Of the worker under test.")] = "strict",
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
) -> None:
    """Measure speed and memory of models here, beside the bare library, with intervals."""
    from ondevice_sdk import bench as benchmark

    if list_random or clean:
        made = benchmark.remove_random_models() if clean else benchmark.random_models()
        if as_json:
            output.show_json(made)
        else:
            for each in made:
                print(f"{'removed ' if clean else ''}random model {each.name}  {output.size(each.size)}")
        return
    if html is not None:
        _require_place(html)
    sizes = benchmark.QUICK if quick else benchmark.Sizes()
    conditions = benchmark.Conditions(context, threads, privacy, against_library, backend)
    command = shlex.join(["ondevice", *sys.argv[1:]])
    if compare is not None or model is not None:
        words = _precisions(compare, models, measure)
        with _progress(quiet=as_json) as on_progress:
            compared = benchmark.compare(
                words,
                model=model,
                pairs=_rounds(pairs, quick=quick, context=context),
                sizes=sizes,
                conditions=conditions,
                command=command,
                on_progress=on_progress,
            )
        if html is not None:
            _write(html, benchmark.comparison_to_html(compared))
        if as_json:
            output.show_json(compared)
        else:
            comparison.show(compared)
        return
    with _progress(quiet=as_json) as on_progress:
        report = benchmark.run(
            models or (),
            measures=benchmark.check_measures(measure.split(",")) if measure is not None else benchmark.MEASURES,
            pairs=pairs if pairs is not None else benchmark.QUICK_PAIRS if quick else benchmark.PAIRS,
            sizes=sizes,
            conditions=conditions,
            command=command,
            on_progress=on_progress,
        )
    if html is not None:
        _write(html, benchmark.to_html(report))
    if as_json:
        output.show_json(report)
    else:
        _show(report)


def _precisions(compare: str | None, models: Sequence[str] | None, measure: str | None) -> list[str]:
    """The words of --compare; refuses what does not go with it."""
    from ondevice_sdk.errors import ConfigurationError

    if compare is None:
        raise ConfigurationError("--model goes with --compare", hint="ondevice bench MODEL, or add --compare bf16,int4")
    if models:
        raise ConfigurationError(
            "--compare takes one model, not a list", hint=f"ondevice bench --compare {compare} --model {models[0]}"
        )
    if measure is not None:
        raise ConfigurationError("--compare has its own measures", hint="leave --measure out")
    return [word.strip() for word in compare.split(",")]


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[Progress], None] | None]:
    """A bar on a terminal, else a line for each new stage, and now and then in long ones; both on standard error."""
    with output.progress("bench", quiet=quiet) as bar:
        stages: set[str] = set()
        last = time.monotonic()

        def line(event: Progress) -> None:
            nonlocal last
            if event.stage not in stages:
                stages.add(event.stage)
                print(f"bench: {event.stage}", file=sys.stderr, flush=True)
            elif time.monotonic() - last > _QUIET_S:
                print(f"bench: {event.stage}, {event.done} of {event.total} {event.unit}", file=sys.stderr, flush=True)
            else:
                return
            last = time.monotonic()

        yield bar or (None if quiet else line)


def _rounds(pairs: int | None, *, quick: bool, context: int | None) -> int | None:
    """Of a comparison; None: as many as it takes by itself. One that fills the context is long."""
    from ondevice_sdk.bench import QUICK_PAIRS

    if pairs is not None or not quick:
        return pairs
    return QUICK_PAIRS if context is None else 1


def _require_place(path: Path) -> None:
    """Refuse a page that could not be written, before anything is measured."""
    from ondevice_sdk.errors import ConfigurationError

    folder = path.absolute().parent
    if not folder.is_dir() or path.is_dir():
        raise ConfigurationError(f"{path} cannot be written", hint="name a file in a directory that is there")


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    from ondevice_sdk.errors import ConfigurationError

    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        finally:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error


def _show(report: Report) -> None:
    from ondevice_sdk.bench import kind, shown

    device = report.device
    versions = ", ".join(f"{name} {version}" for name, version in report.library_versions.items())
    print(f"{device.cpu_name}, {device.usable_cores} cores, {output.size(device.memory_bytes)}; {versions}")
    for subject in report.subjects:
        about = f"{subject.quantisation}, {output.size(subject.file_bytes)}, {subject.threads} threads"
        print(f"\n{subject.label} ({about}{', random weights' if subject.random else ''})")
        made = output.table("", ">median", ">95 % interval", ">bare library", ">ratio", ">95 % interval", "")
        for name, figure in subject.figures.items():
            what, unit, median = kind(name), figure.unit, figure.median
            row = [what.title, shown(median.value, unit), f"{shown(median.low, unit)} to {shown(median.high, unit)}"]
            row.append("" if figure.library is None else shown(figure.library.value, unit))
            ratio = figure.ratio
            row += ["", ""] if ratio is None else [f"{ratio.value:.3f}", f"{ratio.low:.3f} to {ratio.high:.3f}"]
            made.add_row(*row, unit if unit in ("tokens/s", "documents/min") else "")
        output.show(made)
        for note in subject.notes:
            print(f"  note: {note}")
    print(f"{report.pairs} pairs in turns, {report.seconds:.0f} s; ratio: SDK / bare library, pair by pair")
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
