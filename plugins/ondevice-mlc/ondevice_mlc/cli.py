"""`ondevice mlc`: models compiled for this processor."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from typing import Annotated, Optional

import typer

from ondevice_sdk import models
from ondevice_sdk.types import Progress

app = typer.Typer(help="Models compiled for this processor with TVM.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Models compiled for this processor with TVM."""


@app.command("compile")
def compile_model(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="An installed model, GGUF or safetensors; or a path.")],
    to: Annotated[str, typer.Option(help="The precision of the weights: int4 or int8.")] = "int4",
    target: Annotated[
        Optional[str],  # noqa: UP045  # typer reads the annotation
        typer.Option(help="A TVM target instead of this processor, as JSON or a tag; handed on as it is, untested."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Compile although this was done here before.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Compile a model, and install it beside the one that it is made of; takes minutes."""
    report = None if as_json or not sys.stderr.isatty() else _reporter()
    made = models.build(name, backend="mlc", to=to, target=target, again=again, on_progress=report)
    if report is not None:
        sys.stderr.write("\r\033[K")
    if as_json:
        print(json.dumps(dataclasses.asdict(made), ensure_ascii=False, indent=2, default=str))
    else:
        print(f"{made.name}:{made.variant}  {made.size / 1e6:.0f} MB  sha256 {made.sha256}")


def _reporter() -> Callable[[Progress], None]:
    """Shows on one line of the terminal what is being done."""

    def report(event: Progress) -> None:
        share = f" {100 * event.done // event.total} %" if event.total else ""
        sys.stderr.write(f"\r\033[K{event.stage}{share}")
        sys.stderr.flush()

    return report
