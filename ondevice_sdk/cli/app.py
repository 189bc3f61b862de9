"""The commands for tasks and facts; those for models are in `models.py`."""

from __future__ import annotations

import json
import sys
from enum import Enum
from typing import Annotated, Any, Literal, Optional, cast

import typer

from ondevice_sdk import Client, __version__, errors
from ondevice_sdk.cli import bench, cache, doctor, evaluate, output, perplexity, plugin, quantise, replay
from ondevice_sdk.cli import models as model_commands
from ondevice_sdk.cli.calibrate import calibrate as calibrate_command
from ondevice_sdk.cli.calibrate import measure_device
from ondevice_sdk.cli.plugin_commands import PluginCommands
from ondevice_sdk.cli.replay import ReceiptFile, ReceiptText
from ondevice_sdk.types import Length, Prefer, PrivacyLevel, Style, TaskName

app = typer.Typer(
    name="ondevice",
    cls=PluginCommands,
    help="Private AI on this device: summarise, analyse and generate with no network.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(model_commands.app, name="models")
app.add_typer(cache.app, name="cache")
app.add_typer(plugin.app, name="plugin")
app.command()(calibrate_command)
app.command()(doctor.doctor)
app.command()(bench.bench)
app.command()(evaluate.evaluate)
app.command()(perplexity.perplexity)
app.command()(quantise.quantise)
app.command()(replay.replay)


Text = Annotated[str, typer.Argument(metavar="FILE", help="A text file, or - for standard input.")]
Model = Annotated[
    Optional[str],  # noqa: UP045  # typer reads the annotation
    typer.Option("--model", "-m", help="A catalogue name, name:int4, or a path. Default: the best that is installed."),
]
Adapter = Annotated[
    Optional[str],  # noqa: UP045  # typer reads the annotation
    typer.Option("--adapter", metavar="NAME", help="An installed LoRA adapter; `ondevice models list` shows them."),
]
Privacy = Annotated[PrivacyLevel, typer.Option(help="strict: the kernel refuses the network.")]
Json = Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")]
Seed = Annotated[Optional[int], typer.Option(help="Sample with this seed.")]  # noqa: UP045  # see above


def _client(model: str | None, privacy: PrivacyLevel, **options: Any) -> Client:
    return Client(model, privacy=privacy, **options)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def summarise(
    file: Text,
    style: Annotated[Style, typer.Option()] = "key_points",
    length: Annotated[str, typer.Option(help="short, medium, long, or a limit of words.")] = "medium",
    markdown: Annotated[bool, typer.Option("--markdown", help="Write markdown.")] = False,
    language: Annotated[Optional[str], typer.Option(help="Language of the summary.")] = None,  # noqa: UP045
    context: Annotated[Optional[str], typer.Option(help="What the reader wants to know.")] = None,  # noqa: UP045
    seed: Seed = None,
    sources: Annotated[bool, typer.Option("--sources", help="Show the sentences each point stands on.")] = False,
    model: Model = None,
    adapter: Adapter = None,
    privacy: Privacy = "strict",
    receipt: ReceiptFile = None,
    receipt_text: ReceiptText = False,
    as_json: Json = False,
) -> None:
    """Summarise a document of any length."""
    text = output.read_text(file)
    with (
        output.progress("summarise", quiet=as_json) as on_progress,
        _client(model, privacy, adapter=adapter, on_load=on_progress, receipt_text=receipt_text) as ai,
    ):
        summary = ai.summarise(
            text,
            style=style,
            length=_length(length),
            format="markdown" if markdown else "plain",
            language=language,
            context=context,
            seed=seed,
            on_progress=on_progress,
        )
    replay.write(receipt, summary.receipt)
    if as_json:
        output.show_json(summary)
        return
    print(summary.text)
    if sources:
        for number, point in enumerate(summary.points, 1):
            print(f"\n[{number}] {point.status}: {point.text}")
            for span in point.sources:
                print(f"    {span.start}-{span.end}: {' '.join(span.text.split())}")
    for warning in summary.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _length(word: str) -> Length:
    try:
        return int(word)
    except ValueError:  # a word, which the task checks
        return cast("Length", word)


@app.command()
def analyse(
    file: Text,
    form: Annotated[
        str, typer.Option(help="sentiment, topics, entities, key_phrases, personal_data or languages.")
    ] = "sentiment",
    labels: Annotated[Optional[str], typer.Option(help="Labels to choose from, with commas between.")] = None,  # noqa: UP045
    schema: Annotated[Optional[str], typer.Option(help="A file with a JSON schema.")] = None,  # noqa: UP045
    seed: Seed = None,
    model: Model = None,
    adapter: Adapter = None,
    privacy: Privacy = "strict",
    receipt: ReceiptFile = None,
    receipt_text: ReceiptText = False,
    as_json: Json = False,
) -> None:
    """Find the sentiment, topics, entities ... of a text, a label of your own, or fill a JSON schema."""
    text = output.read_text(file)
    wanted = _form(form, labels, schema)
    with (
        output.progress("analyse", quiet=as_json) as on_progress,
        _client(model, privacy, adapter=adapter, on_load=on_progress, receipt_text=receipt_text) as ai,
    ):
        analysis: Any = ai.analyse(text, wanted, seed=seed, on_progress=on_progress)
    replay.write(receipt, analysis.receipt)
    if as_json:
        output.show_json(analysis)
        return
    if isinstance(analysis.output, Enum | str):
        print(analysis.output.value if isinstance(analysis.output, Enum) else analysis.output)
        for label, probability in sorted((analysis.probabilities or {}).items(), key=lambda item: -item[1]):
            print(f"  {probability:6.1%}  {label}")
    else:
        output.show_json(analysis.output)
    for warning in analysis.warnings:
        print(f"warning: {warning}", file=sys.stderr)


@app.command()
def redact(
    file: Text,
    kinds: Annotated[Optional[str], typer.Option(help="Take out only these, with commas between.")] = None,  # noqa: UP045
    min_confidence: Annotated[float, typer.Option(help="What is less likely stays.")] = 0.3,
    model: Model = None,
    adapter: Adapter = None,
    privacy: Privacy = "strict",
    receipt: ReceiptFile = None,
    receipt_text: ReceiptText = False,
    as_json: Json = False,
) -> None:
    """Put placeholders in the place of personal data; with --json the map back too."""
    text = output.read_text(file)
    wanted = None if kinds is None else [kind.strip() for kind in kinds.split(",") if kind.strip()]
    with (
        output.progress("redact", quiet=as_json) as on_progress,
        _client(model, privacy, adapter=adapter, on_load=on_progress, receipt_text=receipt_text) as ai,
    ):
        redaction = ai.redact(text, kinds=wanted, min_confidence=min_confidence, on_progress=on_progress)
    replay.write(receipt, redaction.receipt)
    if as_json:
        output.show_json(redaction)
        return
    print(redaction.text)
    for warning in redaction.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _form(form: str, labels: str | None, schema: str | None) -> Any:
    from ondevice_sdk.tasks import forms

    if labels is not None:
        words = [word.strip() for word in labels.split(",") if word.strip()]
        if len(words) < 2:
            raise errors.ConfigurationError("at least two labels are needed", hint="--labels invoice,letter,contract")
        return Literal[tuple(words)]
    if schema is not None:
        return _schema(schema)
    built_in = {
        "sentiment": forms.Sentiment,
        "topics": forms.Topics,
        "entities": forms.Entities,
        "key_phrases": forms.KeyPhrases,
        "personal_data": forms.PersonalData,
        "languages": forms.Languages,
    }
    if form not in built_in:
        raise errors.ConfigurationError(f"{form!r} is no built-in form", hint=f"one of {', '.join(built_in)}")
    return built_in[form]


def _schema(path: str) -> Any:
    try:
        schema = json.loads(output.read_text(path))
    except json.JSONDecodeError as error:
        raise errors.ConfigurationError(f"{path} is not JSON (line {error.lineno})") from error
    except RecursionError as error:
        raise errors.ConfigurationError(f"{path} is nested too deeply") from error
    if not isinstance(schema, dict):
        raise errors.ConfigurationError(f"{path} holds no JSON schema: that is an object")
    return schema


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What to write; - reads it from standard input.")],
    instructions: Annotated[Optional[str], typer.Option(help="What the model shall be and do.")] = None,  # noqa: UP045
    max_tokens: Annotated[int, typer.Option(help="Most tokens written.")] = 512,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.7,
    schema: Annotated[Optional[str], typer.Option(help="A file with a JSON schema for the output.")] = None,  # noqa: UP045
    stop: Annotated[Optional[list[str]], typer.Option(help="A string that ends the text.")] = None,  # noqa: UP045
    seed: Seed = None,
    model: Model = None,
    adapter: Adapter = None,
    privacy: Privacy = "strict",
    receipt: ReceiptFile = None,
    receipt_text: ReceiptText = False,
    as_json: Json = False,
) -> None:
    """Write text, shown as it comes."""
    text = output.read_text("-") if prompt == "-" else prompt
    form = _schema(schema) if schema else None
    options: Any = {
        "instructions": instructions,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "stop": stop or (),
        "seed": seed,
        "output_type": form,
    }
    with _client(model, privacy, adapter=adapter, receipt_text=receipt_text) as ai:
        if as_json:
            answer = ai.generate(text, **options)
            output.show_json(answer)
        else:
            with ai.stream(text, **options) as stream:
                for delta in stream:
                    print(delta, end="", flush=True)
                print()
                answer = stream.result()
    replay.write(receipt, answer.receipt)


@app.command()
def chat(
    instructions: Annotated[Optional[str], typer.Option(help="What the model shall be and do.")] = None,  # noqa: UP045
    max_tokens: Annotated[int, typer.Option(help="Most tokens of an answer.")] = 512,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.7,
    model: Model = None,
    adapter: Adapter = None,
    privacy: Privacy = "strict",
    as_json: Json = False,
) -> None:
    """Talk with the model: one line, one turn. /undo forgets the last turn, /quit or the end of input leaves.

    Ctrl-C ends an answer, and the turn is forgotten. At a terminal the talk goes on, also after an error.
    """
    talking = sys.stdin is not None and sys.stdin.isatty()
    with _client(model, privacy, adapter=adapter) as ai:
        conversation = ai.chat(instructions)
        while True:
            try:
                line = input("> " if talking else "")
            except (EOFError, RuntimeError):  # RuntimeError: there is no standard input
                break
            if line.strip() == "/quit":
                break
            if line.strip() == "/undo":
                conversation.undo()
            elif line.strip():
                try:
                    with conversation.stream(line, max_tokens=max_tokens, temperature=temperature) as stream:
                        for delta in stream:
                            if not as_json:
                                print(delta, end="", flush=True)
                except KeyboardInterrupt:
                    if not talking:
                        raise
                    print(" [stopped]", end="", file=sys.stderr)
                except errors.OnDeviceError as error:
                    if not talking:
                        raise
                    output.show_error(error, as_json=False)
                if not as_json:
                    print()
        if as_json:
            output.show_json(conversation.messages)


@app.command()
def embed(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A text on each line, or - for standard input.")],
    model: Annotated[
        Optional[str],  # noqa: UP045  # typer reads the annotation
        typer.Option("--model", "-m", help="An embedding model: a catalogue name or a path. Default: the best here."),
    ] = None,
    privacy: Privacy = "strict",
    receipt: ReceiptFile = None,
    receipt_text: ReceiptText = False,
    as_json: Json = False,
) -> None:
    """Turn each line into a vector; empty lines are left out. Plain output has one vector on each line."""
    lines = output.lines_of(output.read_text(file))
    with (
        output.progress("embed", quiet=as_json) as on_progress,
        Client(embedder=model, privacy=privacy, on_load=on_progress, receipt_text=receipt_text) as ai,
    ):
        found = ai.embed(lines, on_progress=on_progress)
    replay.write(receipt, found.receipt)
    if as_json:
        output.show_json(found)
    else:
        for vector in found.vectors:
            print(" ".join(f"{value:.6g}" for value in vector))
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)


@app.command()
def explain(
    task: Annotated[Optional[TaskName], typer.Option(help="For which task.")] = None,  # noqa: UP045
    tokens: Annotated[Optional[int], typer.Option(help="Tokens of the input.")] = None,  # noqa: UP045
    prefer: Annotated[Prefer, typer.Option(help="What matters.")] = "balanced",
    calibrate: Annotated[bool, typer.Option(help="Measure this device first if that was never done.")] = True,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Show which model, variant and backend fit this device, and why the others do not."""
    with Client(model, privacy="off", prefer=prefer) as ai:  # no text is at hand, so nothing to protect
        if calibrate:
            try:
                measure_device(ai, again=False)
            except errors.OnDeviceError as error:  # the choice can be explained all the same
                print(f"note: speeds are rough: {error.message}", file=sys.stderr)
        selection = ai.explain(task, tokens)
    if as_json:
        output.show_json(selection)
        return
    output.show(output.selection_table(selection))
    output.show_measured(selection)
    print(selection.reason)


@app.command()
def backends(as_json: Json = False) -> None:
    """List the backends with what each can do, and for one that cannot be used the reason and the line to type."""
    from ondevice_sdk.backends import registry
    from ondevice_sdk.device import detect

    status = registry.status(detect())
    if as_json:
        fields = ("name", "usable", "reason", "hint", "capabilities")  # what other programs were promised
        output.show_json([{field: getattr(each, field) for field in fields} for each in status])
        return
    for table in output.backend_tables(status):
        output.show(table)
