"""`ondevice models ...`: the store of models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ondevice_sdk import models
from ondevice_sdk.cli import output
from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.models import Provenance

app = typer.Typer(help="Models on this machine.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Pin = Annotated[
    Optional[list[str]],  # noqa: UP045  # typer reads the annotation
    typer.Option(metavar="FILE=SHA256", help="Native code that may be loaded, by the digest that you know it by."),
]
Name = Annotated[str, typer.Argument(help="A model, or model:variant.")]


@app.command("list")
def list_models(as_json: Json = False) -> None:
    """List the installed models, then the adapters."""
    installed, adapters = models.list(), models.adapters()
    if as_json:
        output.show_json([*installed, *adapters])
        return
    if not installed and not adapters:
        print("no models are installed; `ondevice explain` shows what fits, `ondevice models pull NAME` installs")
        return
    made = output.table("model", "variant", "format", ">size", "licence", "sha256", "optimised copy", "quantised here")
    for model in installed:
        copy = "" if model.optimised is None else f"{model.optimised.layout}, {output.size(model.optimised.size)}"
        size, digest = output.size(model.size), model.sha256[:12]
        origins = sorted({f"{code.origin} code" for code in model.code})
        form = ", ".join([model.format, *origins])
        made.add_row(model.name, model.variant, form, size, model.licence, digest, copy, _how(model.quantised))
    if installed:
        output.show(made)
    if adapters:
        made = output.table("adapter", "for models like", ">rank", ">matrices", ">size", "licence", "sha256")
        for each in adapters:
            figures = (str(each.rank), str(each.matrices), output.size(each.size))
            made.add_row(each.name, each.architecture or "(damaged)", *figures, each.licence, each.sha256[:12])
        output.show(made)


def _how(known: Provenance | None) -> str:
    """How a model was quantised here, and how far it strays from its source."""
    if known is None:
        return ""
    return known.recipe.words + ("" if known.quality is None else f", KL {known.quality.kl.value:.3g}")


@app.command()
def pull(
    name: Name,
    accept_licence: Annotated[bool, typer.Option("--accept-licence", help="Say yes to the model's terms.")] = False,
    as_json: Json = False,
) -> None:
    """Download a model of the catalogue: the only command that opens connections."""
    with output.progress(f"pull {name}", quiet=as_json) as on_progress:
        model = models.pull(name, accept_licence=accept_licence, on_progress=on_progress)
    if as_json:
        output.show_json(model)
        return
    print(f"{model.name}:{model.variant}  {output.size(model.size)}  sha256 {model.sha256}")


@app.command()
def add(
    path: Annotated[Path, typer.Argument(help="A model file or folder, or a LoRA adapter, on this disk.")],
    name: Annotated[Optional[str], typer.Option(help="Name in the store; default: the file's.")] = None,  # noqa: UP045  # typer
    variant: Annotated[Optional[str], typer.Option(help="int4, int8, ...")] = None,  # noqa: UP045  # typer
    pin: Pin = None,
    as_json: Json = False,
) -> None:
    """Copy a model file or folder into the store; one of Hugging Face's becomes a GGUF file."""
    with output.progress("add", quiet=as_json) as on_progress:
        model = models.add(path, name=name, variant=variant, pin=_pins(pin), on_progress=on_progress)
    if as_json:
        output.show_json(model)
        return
    print(f"{model.name}:{model.variant}  {output.size(model.size)}  sha256 {model.sha256}")


@app.command()
def optimise(
    name: Name,
    variant: Annotated[Optional[str], typer.Option(help="int4, int8, ...")] = None,  # noqa: UP045  # typer
    again: Annotated[bool, typer.Option("--again", help="Measure anew although that was done here before.")] = False,
    as_json: Json = False,
) -> None:
    """Make the copy of an installed model that is fastest on this processor and as exact; takes minutes."""
    with output.progress(f"optimise {name}", quiet=as_json) as on_progress:
        found = models.optimise(name, variant=variant, again=again, on_progress=on_progress)
    if as_json:
        output.show_json(found)
        return
    if found.tried:
        made = output.table("layout", ">size", ">prompt", ">one stream", ">eight streams", ">all", ">KL", "verdict")
        for each in found.tried:
            speed = each.speed_up
            figures = () if speed is None else (speed.prompt, speed.decode, speed.batched, speed.score)
            times = [f"{figure.value:.2f}x" for figure in figures] or [""] * 4
            kl = "" if each.kl is None else f"{each.kl.value:.4f}"
            made.add_row(each.layout, output.size(each.size), *times, kl, each.verdict)
        output.show(made)
    print(f"{found.name}:{found.variant}  {output.size(found.size)}  {found.path}")
    print(found.reason)


@app.command()
def build(
    name: Name,
    backend: Annotated[str, typer.Option(help="The backend that makes it, such as mlc.")],
    to: Annotated[str, typer.Option(help="The precision: int4 or int8.")] = "int4",
    target: Annotated[Optional[str], typer.Option(help="What for, in the backend's words; default: here.")] = None,  # noqa: UP045  # typer
    again: Annotated[bool, typer.Option("--again", help="Make it anew although it is here.")] = False,
    as_json: Json = False,
) -> None:
    """Make the form of an installed model that a backend runs, by that backend's converter or compiler."""
    with output.progress(f"build {name}", quiet=as_json) as on_progress:
        model = models.build(name, backend=backend, to=to, target=target, again=again, on_progress=on_progress)
    if as_json:
        output.show_json(model)
        return
    print(f"{model.name}:{model.variant}  {output.size(model.size)}  sha256 {model.sha256}")


@app.command()
def remove(name: Name, as_json: Json = False) -> None:
    """Remove a model, or one variant of it."""
    removed = models.remove(name)
    if as_json:
        output.show_json(removed)


@app.command()
def verify(
    name: Annotated[Optional[str], typer.Argument(help="A model; default: all.")] = None,  # noqa: UP045  # typer
    as_json: Json = False,
) -> None:
    """Read installed files again and compare them with their digests; exit code 1 if one differs."""
    results = models.verify(name)
    if as_json:
        output.show_json(results)
    else:
        for result in results:
            print(f"{'ok     ' if result.ok else 'CORRUPT'}  {result.name}:{result.variant}  {result.reason}")
    if not all(result.ok for result in results):
        raise typer.Exit(1)


@app.command("export")
def export_bundle(
    names: Annotated[list[str], typer.Argument(help="Models to pack.")],
    to: Annotated[Path, typer.Option("--to", help="The file to write.")],
    as_json: Json = False,
) -> None:
    """Pack models into one file for a machine without a network."""
    path = models.export_bundle(names, to)
    chosen = [model for model in models.list() if {model.name, f"{model.name}:{model.variant}"} & set(names)]
    pins = [f"{code.name}={code.sha256}" for model in chosen for code in model.code]
    if as_json:
        output.show_json({"path": str(path), "size": path.stat().st_size, "pins": pins})
        return
    print(f"{path}  {output.size(path.stat().st_size)}")
    if pins:
        print("it holds native code, which is imported only with:", *(f"--pin {each}" for each in pins))


@app.command("import")
def import_bundle(
    path: Annotated[Path, typer.Argument(help="A file made by `export`.")], pin: Pin = None, as_json: Json = False
) -> None:
    """Install the models of a bundle, each checked against its digest."""
    installed = models.import_bundle(path, pin=_pins(pin))
    if as_json:
        output.show_json(installed)
        return
    for model in installed:
        print(f"{model.name}:{model.variant}  {output.size(model.size)}  sha256 {model.sha256}")


def _pins(words: list[str] | None) -> dict[str, str]:
    pins = {}
    for word in words or []:
        name, equals, digest = word.rpartition("=")
        if not equals or not name:
            raise ConfigurationError(f"not FILE=SHA256: {word[:80]!r}", hint="sha256sum FILE shows that of a file")
        pins[name] = digest
    return pins
