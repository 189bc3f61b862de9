"""What is measured: models of the store, files, and models with random weights that are made on demand."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ondevice_sdk import catalogue
from ondevice_sdk.catalogue import ModelSpec, layout
from ondevice_sdk.errors import ConfigurationError, ModelNotInstalled
from ondevice_sdk.store import Store
from ondevice_sdk.store.files import private_dir, require_room, store_errors
from ondevice_sdk.types import Progress

OnProgress = Callable[[Progress], None]

RANDOM: Final = "random:"
_FOLDER: Final = "random"  # in the store's root


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to measure. `model` is what a client takes: a name, name:variant or a path."""

    label: str
    model: str
    random: bool = False


@dataclass(frozen=True, slots=True)
class RandomModel:
    """A file with random weights that was made for a benchmark."""

    name: str
    path: str
    size: int


def find(
    words: Sequence[str],
    *,
    store: Store | None = None,
    specs: Sequence[ModelSpec] | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[Subject, ...]:
    """The subjects of these words; all installed models for none.

    A word is a catalogue name, `name:variant`, a path, or `random:SHAPE:QUANTISATION` for random weights in the shape
    of a catalogue model (its name, or a beginning that only one has), which are written if they are not there yet.

    Raises:
        ConfigurationError: a word that is none of these. ModelNotInstalled: no words, and nothing is installed.
        StoreError, BackendUnavailable: a random model cannot be made.
    """
    store = store or Store.open()
    if not words:
        words = [f"{model.name}:{model.variant}" for model in store.installed()]
    if not words:
        hint = f"ondevice models pull {catalogue.DEFAULT}, or measure random:llama-3.2-1b:Q4_0"
        raise ModelNotInstalled("no model is installed", model=catalogue.DEFAULT, hint=hint)
    if len(set(words)) < len(words):
        raise ConfigurationError("a model is named twice")
    plans = [random_plan(word, specs or catalogue.load()) if word.startswith(RANDOM) else None for word in words]
    return tuple(
        Subject(Path(word).name if _is_file(word) else word, word)
        if plan is None
        else Subject(word, str(_made(*plan, store, on_progress)), random=True)
        for word, plan in zip(words, plans, strict=True)
    )


def random_models(store: Store | None = None) -> tuple[RandomModel, ...]:
    """The random models that were made and are still here."""
    folder = (store or Store.open()).root / _FOLDER
    with store_errors("read", folder):
        files = sorted(folder.glob("*.gguf"))
        return tuple(RandomModel(path.stem, str(path), path.stat().st_size) for path in files)


def remove_random_models(store: Store | None = None) -> tuple[RandomModel, ...]:
    """Delete them; which they were.

    Raises:
        StoreError: one cannot be deleted.
    """
    gone = random_models(store)
    for model in gone:
        path = Path(model.path)
        with store_errors("remove a random model", path.parent):
            path.unlink(missing_ok=True)
    return gone


def _is_file(word: str) -> bool:
    return "/" in word or "\\" in word or word.endswith((".gguf", ".echo"))


def random_plan(word: str, specs: Sequence[ModelSpec]) -> tuple[ModelSpec, str]:
    """The shape and the quantisation of `random:SHAPE:QUANTISATION`.

    Raises:
        ConfigurationError: one of them is not known.
    """
    parts = word.split(":")
    if len(parts) != 3 or not all(parts):
        raise ConfigurationError(
            f"{word!r} is no random model", hint="random:SHAPE:QUANTISATION, as in random:llama-3.2-1b:Q4_0"
        )
    _, shape, quantisation = parts
    names = [spec.name for spec in specs]
    fitting = [name for name in names if name == shape] or [name for name in names if name.startswith(shape)]
    if len(fitting) != 1:
        near = fitting or difflib.get_close_matches(shape, names, n=3, cutoff=0.4) or names
        problem = "several models have" if fitting else "no model of the catalogue has"
        raise ConfigurationError(f"{problem} a shape called {shape!r}", hint=f"one of {', '.join(near)}")
    if not layout.is_known(quantisation):
        raise ConfigurationError(f"{quantisation!r} is no known quantisation", hint="such as Q4_0, Q4_K_M, Q8_0, BF16")
    return next(spec for spec in specs if spec.name == fitting[0]), quantisation


def _made(spec: ModelSpec, quantisation: str, store: Store, on_progress: OnProgress | None) -> Path:
    """The file with random weights in this shape, written now if it is not there."""
    folder = store.root / _FOLDER
    name = f"{spec.name}-{quantisation}"
    path = folder / f"{name}.gguf"
    if path.exists():
        return path
    total = sum(tensor.size for tensor in layout.tensors(spec.shape, quantisation))
    with store_errors("make a directory", store.root):
        private_dir(folder)
    with store.space.lock(f"random-{name}"):
        if path.exists():  # another process was faster
            return path
        for left in folder.glob(f".{path.name}.*"):  # by a process that was killed: nobody else holds the lock
            left.unlink(missing_ok=True)
        require_room(folder, total + 32_000_000)  # and its vocabulary

        def report(share: float) -> None:
            if on_progress is not None:
                on_progress(Progress(f"write {name}", int(share * total), total, "bytes"))

        from ondevice_sdk.backends.llama_cpp import synthetic

        synthetic.write(path, spec.shape, quantisation, on_progress=report)
    return path
