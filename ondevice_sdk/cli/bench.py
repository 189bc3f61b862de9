"""The `bench` command."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from ondevice_sdk.cli import output
from ondevice_sdk.types import PrivacyLevel

if TYPE_CHECKING:
    from ondevice_sdk.bench import Report
    from ondevice_sdk.types import Progress


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
    context: Annotated[Optional[int], typer.Option(help="Tokens of the context.")] = None,  # noqa: UP045
    threads: Annotated[Optional[int], typer.Option(help="Threads, for both sides.")] = None,  # noqa: UP045
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
            for model in made:
                print(f"{'removed ' if clean else ''}random model {model.name}  {output.size(model.size)}")
        return
    with _progress(quiet=as_json) as on_progress:
        report = benchmark.run(
            models or (),
            measures=benchmark.check_measures(measure.split(",")) if measure is not None else benchmark.MEASURES,
            pairs=pairs if pairs is not None else benchmark.QUICK_PAIRS if quick else benchmark.PAIRS,
            sizes=benchmark.QUICK if quick else benchmark.Sizes(),
            conditions=benchmark.Conditions(context, threads, privacy, against_library),
            command=shlex.join(["ondevice", *sys.argv[1:]]),
            on_progress=on_progress,
        )
    if html is not None:
        _write(html, benchmark.to_html(report))
    if as_json:
        output.show_json(report)
    else:
        _show(report)


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[Progress], None] | None]:
    """A bar on a terminal, else a line for each new stage; both on standard error."""
    with output.progress("bench", quiet=quiet) as bar:
        stages: set[str] = set()

        def line(event: Progress) -> None:
            if event.stage not in stages:
                stages.add(event.stage)
                print(f"bench: {event.stage}", file=sys.stderr, flush=True)

        yield bar or (None if quiet else line)


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
