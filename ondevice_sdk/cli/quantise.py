"""The `quantise` command."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from ondevice_sdk import Client, models
from ondevice_sdk.cli import output
from ondevice_sdk.cli.evaluate import parse_list, parse_rows

if TYPE_CHECKING:
    from ondevice_sdk.evaluate import Report
    from ondevice_sdk.models import Quantised


def quantise(
    model: Annotated[str, typer.Argument(help="An installed model, name:variant, a GGUF file, or a folder.")],
    to: Annotated[Literal["int4", "int8"], typer.Option(help="The precision.")] = "int4",
    method: Annotated[
        Literal["plain", "presinq", "imatrix", "presinq+imatrix"],
        typer.Option(help="presinq: scale the weights first; imatrix: round by what a text drives."),
    ] = "presinq+imatrix",
    quantisation: Annotated[
        Optional[str],  # noqa: UP045  # typer reads the annotation
        typer.Option(help="In llama.cpp's words, such as Q4_K_M or Q3_K_S. Default: Q4_0 or Q8_0."),
    ] = None,
    text: Annotated[
        Optional[str],  # noqa: UP045  # see above
        typer.Option(metavar="FILE", help="What the model will read; for imatrix. Default: a mixture of kinds."),
    ] = None,
    name: Annotated[Optional[str], typer.Option(help="Name in the store; default: the model's.")] = None,  # noqa: UP045
    again: Annotated[bool, typer.Option("--again", help="Make it anew although it is here.")] = False,
    evaluate: Annotated[
        Optional[str],  # noqa: UP045  # see above
        typer.Option(metavar="DIR", help="Also measure tasks, with it and with its source, on these evaluation sets."),
    ] = None,
    only: Annotated[Optional[str], typer.Option(help="Of these families or sets, with commas between.")] = None,  # noqa: UP045
    rows: Annotated[Optional[str], typer.Option(help="The first so many rows of each, or all.")] = None,  # noqa: UP045
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")] = False,
) -> None:
    """Make a model in fewer bits on this machine, and measure what that costs it; takes minutes."""
    limit = parse_rows(rows)
    given = None if text is None else output.read_text(text)
    with output.progress(f"quantise {Path(model).name}", quiet=as_json) as on_progress:
        made = models.quantise(
            model,
            to=to,
            method=method,
            quantisation=quantisation,
            text=given,
            name=name,
            again=again,
            on_progress=on_progress,
        )
    reports = {} if evaluate is None else _evaluated(made, model, evaluate, parse_list(only), limit, quiet=as_json)
    if as_json:
        fields = {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}
        output.show_json({**fields, "evaluation": reports} if reports else fields)
        return
    _show(made)
    if reports:
        _show_tasks(reports)


def _evaluated(
    made: Quantised, model: str, data: str, only: tuple[str, ...], rows: int | Literal["all"] | None, *, quiet: bool
) -> dict[str, Report]:
    """Task scores with what was made, and with its source, where a client can run that."""
    from ondevice_sdk.evaluate import evaluate as measure

    path = Path(model)
    subjects = {"made": f"{made.name}:{made.variant}"}
    if not path.is_dir():
        subjects["source"] = model if path.is_file() else made.source
    reports = {}
    for word, subject in subjects.items():
        with output.progress(f"evaluate {word}", quiet=quiet) as on_progress, Client(subject) as ai:
            reports[word] = measure(ai, data=data, only=only, rows=rows, naive=False, on_progress=on_progress)
    return reports


def _show(made: Quantised) -> None:
    quality = made.quality
    if quality is not None:
        table = output.table("figure", ">value and 95 % interval", ">source")
        table.add_row("perplexity", str(quality.perplexity), str(quality.source_perplexity))
        table.add_row("perplexity / source's", str(quality.perplexity_ratio), "")
        table.add_row("KL(source || made), nats/token", str(quality.kl), "")
        table.add_row("same most likely token, share", str(quality.top1_agreement), "")
        output.show(table)
        print(f"{quality.tokens} tokens scored in {quality.windows} windows of {quality.window}, "
              f"against {made.source}")  # fmt: skip
        if quality.self_check is not None:
            print(f"pre-SINQ computes the same: logits differ by {quality.self_check:.1g} at most, relatively")
        if quality.trial is not None:
            verdict = "kept" if quality.trial.kept else "left out"
            print(f"pre-SINQ {verdict}: KL {quality.trial.with_presinq} with it, {quality.trial.without} without, "
                  "rounded plainly, on the calibration text")  # fmt: skip
    if made.requantised:
        print(f"requantised: {made.source} was quantised before, and what is made of it cannot be better than it")
    print(f"{made.name}:{made.variant}  {made.quantisation}  {output.size(made.size)}  sha256 {made.sha256}")
    if not made.made:
        print("it was made before by the same recipe; --again makes it anew")


def _show_tasks(reports: dict[str, Report]) -> None:
    from ondevice_sdk.evaluate.report import shown

    table = output.table("set", "metric", ">rows", *(f">{word}" for word in reports))
    rows = {word: {(row.set, row.metric): row for row in report.rows} for word, report in reports.items()}
    for place, row in rows["made"].items():
        found = [rows[word].get(place) for word in reports]
        cells = ["" if each is None or each.sdk is None else shown(each.sdk) for each in found]
        table.add_row(row.set, row.metric, str(row.rows), *cells)
    output.show(table)
    for word, report in reports.items():
        for skipped in report.skipped:
            print(f"{skipped.set}, {word}: skipped, {skipped.reason}")
