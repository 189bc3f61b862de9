"""The `plugin` commands: a new backend from a template that works as it is."""

from __future__ import annotations

import contextlib
import keyword
import re
import shutil
import string
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ondevice_sdk import __version__
from ondevice_sdk.cli import output
from ondevice_sdk.errors import BackendUnavailable, ConfigurationError, StoreError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

app = typer.Typer(help="Backends for other chips and runtimes.", no_args_is_help=True)

_NAME = re.compile(r"[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*")
_MOST = 40  # characters: the name is part of a package's, a command's and a file's
_SUFFIX = ".template"


@dataclass(frozen=True, slots=True)
class NewPlugin:
    """What was written. `next` are lines to type."""

    name: str
    distribution: str
    package: str
    folder: str
    files: tuple[str, ...]
    next: tuple[str, ...]


@app.callback()
def _plugin() -> None:
    """Backends for other chips and runtimes."""


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Of the backend: a short word such as that of the chip, in lower case.")],
    directory: Annotated[Path, typer.Option("--dir", help="Where the package's folder is made.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write a plugin package with a toy engine whose contract tests pass; put your runtime in its place."""
    made = write(name, directory)
    if as_json:
        output.show_json(made)
        return
    print(f"{made.folder}: the backend {made.name!r}, {len(made.files)} files")
    for line in made.next:
        print(f"  {line}")


def write(name: str, directory: Path) -> NewPlugin:
    """Write the package into a folder of its own, which must not be there yet.

    Raises:
        ConfigurationError: the name cannot be used, or the folder is there. StoreError: it cannot be written.
    """
    _check(name)
    word = name.replace("-", "_")
    distribution, package = f"ondevice-{word.replace('_', '-')}", f"ondevice_{word}"
    words = {
        "name": word,
        "distribution": distribution,
        "package": package,
        "class_name": "".join(part.capitalize() for part in word.split("_")),
        "sdk_version": __version__,
    }
    folder = directory / distribution
    try:
        directory.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except FileExistsError as error:
        raise ConfigurationError(
            f"{folder} is there already", hint="nothing was written; choose another name or --dir"
        ) from error
    except OSError as error:
        raise StoreError(f"{folder} cannot be made: {error.strerror}") from error
    written: list[str] = []
    try:
        for path, text in _templates(files("ondevice_sdk.cli") / "plugin_template"):
            path = path.replace("package/", f"{package}/", 1).removesuffix(_SUFFIX)
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(string.Template(text).substitute(words), encoding="utf-8")
            written.append(path)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)  # made by us a moment ago
        if isinstance(error, OSError):
            raise StoreError(f"{folder} cannot be written: {error.strerror}") from error
        raise
    shown = str(folder)
    steps = (f"pip install -e {shown}", f"pytest {shown}", "ondevice backends")
    return NewPlugin(word, distribution, package, shown, tuple(sorted(written)), steps)


def _check(name: str) -> None:
    """Refuse what cannot be the name of a module, or would hide another one.

    Raises:
        ConfigurationError.
    """
    from ondevice_sdk.backends import registry

    word = name.replace("-", "_")
    hint = "a short word in lower case, such as acme_npu"
    if len(name) > _MOST or _NAME.fullmatch(name) is None:
        raise ConfigurationError(f"{name[:60]!r} cannot be the name of a backend", hint=hint)
    if word.startswith("ondevice"):
        raise ConfigurationError(f"{name!r} would repeat the prefix: the package is called ondevice-NAME", hint=hint)
    if keyword.iskeyword(word) or word in sys.stdlib_module_names or word in ("test", "tests", "sdk"):
        raise ConfigurationError(f"{name!r} is a word that Python or the SDK needs for itself", hint=hint)
    if word in {form.replace("-", "_") for form in _formats()}:
        raise ConfigurationError(f"{name!r} is a format of models that is known already", hint="name it after the chip")
    if (known := registry.installed().get(word)) is not None:
        raise ConfigurationError(f"{known.distribution} has a backend of this name already", hint="choose another one")


def _formats() -> set[str]:
    """Formats of models that the store or a backend knows: the new backend gets one of its own, named like it."""
    from ondevice_sdk.backends import registry
    from ondevice_sdk.catalogue import lora
    from ondevice_sdk.store import folders

    found = {"gguf", lora.FORMAT, *folders.FORMATS}
    for registration in registry.installed().values():
        with contextlib.suppress(BackendUnavailable):
            found.update(map(str, registration.create().formats))
    return found


def _templates(folder: Traversable, before: str = "") -> list[tuple[str, str]]:
    """Relative paths and texts."""
    found = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _templates(entry, f"{before}{entry.name}/")
        elif entry.name.endswith(_SUFFIX):
            found.append((f"{before}{entry.name}", entry.read_text(encoding="utf-8")))
    return found
