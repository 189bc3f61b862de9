"""The `perplexity` command."""

from __future__ import annotations

import os
from typing import Annotated, Optional

import typer

from ondevice_sdk import errors
from ondevice_sdk.cli import output
from ondevice_sdk.types import PrivacyLevel

_SET = "text_state_union.jsonl"
_TOKENS = 8192
_WINDOW = 512


def perplexity(
    model: Annotated[str, typer.Argument(help="A catalogue name, name:int4, or a path.")],
    against: Annotated[
        Optional[str],  # noqa: UP045  # typer reads the annotation
        typer.Option(metavar="SOURCE", help="Compare with this model, of which MODEL is a variant."),
    ] = None,
    text: Annotated[
        Optional[str],  # noqa: UP045  # see above
        typer.Option(metavar="FILE", help="The text to predict; - for standard input."),
    ] = None,
    data: Annotated[
        Optional[str],  # noqa: UP045  # see above
        typer.Option(metavar="DIR", help=f"A folder of evaluation sets: {_SET} is predicted."),
    ] = None,
    tokens: Annotated[int, typer.Option(help="Most tokens that are read; half of them are scored.")] = _TOKENS,
    window: Annotated[int, typer.Option(help="Tokens that are read with one context.")] = _WINDOW,
    privacy: Annotated[PrivacyLevel, typer.Option(help="strict: the kernel refuses the network.")] = "strict",
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")] = False,
) -> None:
    """Measure how well a model predicts a text, and with --against how far it strays from its source."""
    from ondevice_sdk.evaluate.perplexity import Comparison, Perplexity, divergence, rows
    from ondevice_sdk.evaluate.perplexity import perplexity as measure
    from ondevice_sdk.evaluate.report import shown

    texts = _texts(text, data)
    result: Perplexity | Comparison
    with output.progress("perplexity", quiet=as_json) as on_progress:
        if against is None:
            result = measure(model, texts, tokens=tokens, window=window, privacy=privacy, on_progress=on_progress)
        else:
            result = divergence(
                model, against, texts, tokens=tokens, window=window, privacy=privacy, on_progress=on_progress
            )
    if as_json:
        output.show_json(result)
        return
    made = output.table("figure", ">value and 95 % interval", ">source")
    lines = rows(result, "text")
    for row in lines:
        assert row.sdk is not None
        made.add_row(row.metric, shown(row.sdk), "" if row.trivial is None else shown(row.trivial.figure))
    output.show(made)
    print(f"{lines[0].note}; {result.seconds:.0f} s")


def _texts(text: str | None, data: str | None) -> list[str]:
    from ondevice_sdk.evaluate.data import ENVIRONMENT, data_folder, read_records

    if text is not None and data is not None:
        raise errors.ConfigurationError("--text and --data say two things", hint="give one of them")
    if text is not None:
        return [output.read_text(text)]
    if data is None and not os.environ.get(ENVIRONMENT):
        raise errors.ConfigurationError(
            "there is no text to predict", hint=f"give --text FILE, or --data DIR, or set {ENVIRONMENT}"
        )
    return [record.string("text") for record in read_records(data_folder(data) / _SET)]
