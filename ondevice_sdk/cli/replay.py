"""The `replay` command, and the option of the other commands that writes what it reads."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from ondevice_sdk import errors
from ondevice_sdk.cli import output
from ondevice_sdk.receipt import Receipt
from ondevice_sdk.types import Message, PrivacyLevel

if TYPE_CHECKING:
    from ondevice_sdk.replay import Replay


def _writable(path: Path | None) -> Path | None:
    """Refuse it before the work is done."""
    if path is not None and (path.is_dir() or not os.access(path.parent, os.W_OK)):
        raise errors.ConfigurationError(f"the receipt cannot be written: {path}", hint="name a file in your own folder")
    return path


ReceiptFile = Annotated[
    Optional[Path],  # noqa: UP045  # typer reads the annotation
    typer.Option("--receipt", metavar="FILE", help="Write what produced the result.", callback=_writable),
]
ReceiptText = Annotated[bool, typer.Option("--receipt-text", help="With the texts in the receipt.")]


def write(path: Path | None, receipt: Receipt | None) -> None:
    """Write a receipt for its owner alone, if one is wanted.

    Raises:
        ConfigurationError: it cannot be written.
    """
    if path is None or receipt is None:
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(receipt.to_json() + "\n")
    except OSError as error:
        raise errors.ConfigurationError(f"the receipt cannot be written: {path}: {error.strerror}") from error


def replay(
    receipt: Annotated[Path, typer.Argument(metavar="RECEIPT", help="A receipt, as `--receipt` writes it.")],
    source: Annotated[
        Optional[str],  # noqa: UP045  # typer reads the annotation
        typer.Option("--input", metavar="FILE", help="The input, or - for standard input; messages as JSON."),
    ] = None,
    instructions: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="FILE", help="The instructions."),
    ] = None,
    context: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="FILE", help="What the reader of a summary wanted to know."),
    ] = None,
    schema: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="FILE", help="The JSON schema of the output."),
    ] = None,
    labels: Annotated[Optional[str], typer.Option(help="The labels, with commas between.")] = None,  # noqa: UP045
    examples: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="FILE", help="The examples: JSON, a list of pairs."),
    ] = None,
    stop: Annotated[Optional[list[str]], typer.Option(help="The strings that ended the text.")] = None,  # noqa: UP045
    model: Annotated[Optional[str], typer.Option("--model", "-m", help="Where the model is now.")] = None,  # noqa: UP045
    privacy: Annotated[PrivacyLevel, typer.Option(help="strict: the kernel refuses the network.")] = "strict",
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")] = False,
) -> None:
    """Make the call of a receipt again: what changed, and whether the answer is the same (exit code 0) or not (1)."""
    from ondevice_sdk.replay import client_for, is_option
    from ondevice_sdk.replay import replay as run

    then = Receipt.from_json(output.read_text(str(receipt)))
    given: dict[str, Any] = {}
    for name, path in (("instructions", instructions), ("context", context)):
        if path is not None:
            given[name] = _as_given(output.read_text(path), partial(is_option, then, name))
    if stop:
        given["stop"] = stop
    if examples is not None:
        given["examples"] = _pairs(_json(examples), examples)
    if schema is not None:
        given[_form_of(then)] = _json(schema)
    if labels is not None:
        given[_form_of(then)] = Literal[tuple(label.strip() for label in labels.split(",") if label.strip())]
    wanted = None if source is None else _input(then, source)
    with (
        output.progress("replay", quiet=as_json) as on_progress,
        client_for(then, model=model, privacy=privacy, on_load=on_progress) as ai,
    ):
        found = run(then, ai, input=wanted, on_progress=on_progress, **given)
    _show(then, found, as_json=as_json)
    if not found.same:
        raise typer.Exit(1)


def _show(then: Receipt, found: Replay, *, as_json: bool) -> None:
    if as_json:
        fields = ("verdict", "same", "changes", "reasons", "receipt", "result")
        output.show_json({name: getattr(found, name) for name in fields})
        return
    print(f"{then.task} by {then.model.name}:{then.model.variant}, {then.created_at}")
    for change in found.changes:
        print(f"{change.what}: {change.then} -> {change.now}")
    if not found.changes:
        print("nothing changed: model, adapter, template, backend, library, SDK and device are the same")
    print(found.verdict)


def _form_of(receipt: Receipt) -> str:
    return "form" if receipt.task == "analyse" else "output_type"


def _input(receipt: Receipt, path: str) -> Any:
    """The input as the call had it."""
    text = output.read_text(path)
    if receipt.input_form == "texts":
        return output.lines_of(text)
    if receipt.input_form == "messages":
        try:
            return [Message(each["role"], each["content"]) for each in json.loads(text)]
        except (ValueError, TypeError, LookupError, RecursionError):
            hint = '[{"role": "user", "content": "..."}, ...], as `ondevice chat --json` prints it'
            raise errors.ConfigurationError("the input was messages, and is no such JSON", hint=hint) from None
    from ondevice_sdk.replay import is_input

    return _as_given(text, partial(is_input, receipt))


def _as_given(text: str, is_it: Callable[[str], bool]) -> str:
    """A text that was typed has no end of line, the same in a file has."""
    return next((each for each in (text, text.removesuffix("\n")) if is_it(each)), text)


def _json(path: str) -> Any:
    try:
        return json.loads(output.read_text(path))
    except (json.JSONDecodeError, RecursionError):
        raise errors.ConfigurationError(f"{path} is not JSON") from None


def _pairs(value: Any, path: str) -> list[tuple[str, Any]]:
    try:
        return [(text, answer) for text, answer in value]
    except (TypeError, ValueError):
        raise errors.ConfigurationError(f"{path} is no list of pairs of text and answer") from None
