"""The `evaluate` command."""

from __future__ import annotations

import shlex
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from ondevice_sdk.cli import output
from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.types import PrivacyLevel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ondevice_sdk.evaluate import Report
    from ondevice_sdk.types import Progress

Task = Literal["sentiment", "labels", "entities", "extract", "summarise", "schema"]


def evaluate(
    file: Annotated[Optional[str], typer.Argument(help="Labelled JSONL of your own.")] = None,  # noqa: UP045  # typer
    task: Annotated[Optional[Task], typer.Option(help="What FILE is labelled for.")] = None,  # noqa: UP045
    text: Annotated[str, typer.Option(help="Field of the text.")] = "text",
    label: Annotated[Optional[str], typer.Option(help="Field of what is right.")] = None,  # noqa: UP045
    labels: Annotated[Optional[str], typer.Option(help="Labels to choose from, with commas between.")] = None,  # noqa: UP045
    words: Annotated[int, typer.Option(help="Limit of a summary.")] = 60,
    data: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="DIR", help="Folder of evaluation sets. Default: ONDEVICE_EVAL_DATA."),
    ] = None,
    only: Annotated[Optional[str], typer.Option(help="Families or sets, with commas between.")] = None,  # noqa: UP045
    rows: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The first so many rows (fewer where texts are long), or all."),
    ] = None,
    naive: Annotated[bool, typer.Option("--naive/--no-naive", help="Ask the model with plain prompts too.")] = True,
    minutes: Annotated[Optional[float], typer.Option(help="Begin no set of a folder after so many.")] = None,  # noqa: UP045
    model: Annotated[Optional[str], typer.Option("--model", "-m", help="A name, name:int4, or a path.")] = None,  # noqa: UP045
    privacy: Annotated[PrivacyLevel, typer.Option(help="strict: the kernel refuses the network.")] = "strict",
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown page.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
) -> None:
    """Measure tasks on labelled data, with intervals, beside naive prompts to the same model."""
    from ondevice_sdk import Client
    from ondevice_sdk import evaluate as evaluation

    if file is not None and task is None:
        raise ConfigurationError("a file of your own needs --task", hint="for example --task sentiment")
    if file is None and task is not None:
        raise ConfigurationError("--task needs a file", hint="ondevice evaluate FILE --task ...")
    command = shlex.join(["ondevice", *sys.argv[1:]])
    limit = parse_rows(rows)
    with _progress() as on_progress, Client(model, privacy=privacy) as ai:
        if file is not None and task is not None:
            report = evaluation.evaluate_file(
                ai, file, task, text=text, label=label, labels=parse_list(labels), words=words, rows=limit, naive=naive,
                command=command, on_progress=on_progress,
            )  # fmt: skip
        else:
            report = evaluation.evaluate(
                ai,
                data=data,
                only=parse_list(only),
                rows=limit,
                naive=naive,
                minutes=minutes,
                command=command,
                on_progress=on_progress,
            )
    if as_json:
        print(report.to_json())
    elif markdown:
        print(report.to_markdown(), end="")
    else:
        _show(report)


def parse_rows(word: str | None) -> int | Literal["all"] | None:
    """What follows `--rows`."""
    if word is None:
        return None
    if word == "all":
        return "all"
    if not word.isascii() or not word.isdigit() or int(word) < 1:
        raise ConfigurationError("--rows is a number from 1, or all")
    return int(word)


def parse_list(words: str | None) -> tuple[str, ...]:
    """Words with commas between."""
    return tuple(word.strip() for word in (words or "").split(",") if word.strip())


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal, else a line when a set begins; both on standard error."""
    with output.progress("evaluate") as bar:

        def line(event: Progress) -> None:
            if event.done == 1:
                print(f"evaluate: {event.stage}", file=sys.stderr, flush=True)

        yield bar or line


def _show(report: Report) -> None:
    from ondevice_sdk.evaluate.report import cells, columns

    made = output.table(*(name if name in ("set", "metric") else f">{name}" for name in columns()))
    for row in report.rows:
        made.add_row(*cells(row))
    output.show(made)
    for row in report.rows:
        if row.note:
            print(f"{row.set}, {row.metric}: {row.note}")
    for skipped in report.skipped:
        print(f"{skipped.set}: skipped, {skipped.reason}")
    print(f"\n{report.model} ({report.backend}, sha256 {report.sha256[:12]}), SDK {report.sdk_version}, "
          f"{report.machine.cpu_name}, {report.seconds:.0f} s")  # fmt: skip
