"""Folders in Hugging Face's form become models of the store, converted in a sealed worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ondevice_sdk.call import ProgressCallback
from ondevice_sdk.catalogue import gguf
from ondevice_sdk.errors import LoadFailed
from ondevice_sdk.quantise import workers
from ondevice_sdk.quantise.hugging_face import architecture, safetensors, settings
from ondevice_sdk.store import InstalledModel, Store, folders
from ondevice_sdk.store.files import slug, split_name, store_errors

_WRITER: Final = "ondevice_sdk.quantise.hugging_face.write:write"
_SPARE: Final = 1 << 26  # bytes: vectors that become 32 bits wide, and what of the metadata is written twice
VARIANTS: Final = {0: "f32", 1: "f16", 32: "bf16"}  # by llama.cpp's number of the type of most weights


@dataclass(frozen=True, slots=True)
class Converted:
    """What a folder was made into: the precision of the matrices (`bf16`, `f16` or `f32`), and the card's licence."""

    variant: str
    licence: str | None


def files_of(folder: Path) -> Mapping[str, Path] | None:
    """The files of a model that `convert` can be asked for; None if the folder holds a model of another kind.

    Raises:
        ModelNotInstalled: there is no such folder. ModelCorrupt: no model is in it, or it is not whole. StoreError.
    """
    found = folders.find(folder.absolute())
    if found.format != "safetensors":
        return None
    with store_errors("read a folder", folder):
        config = safetensors.load_object(found.files["config.json"], settings.MOST_JSON)
    return found.files if architecture.is_known(config) else None


def convert(
    files: Mapping[str, Path], target: Path, *, name: str, on_progress: ProgressCallback | None = None
) -> Converted:
    """Make one GGUF file of the files of a folder, in a sealed worker.

    Args:
        files: as `files_of` gives them.
        target: a new file, alone in its folder, which is made if it is missing.
        name: of the model, for the metadata.
        on_progress: hears how far it is.

    Raises:
        ModelUnsupported, ModelCorrupt. LoadFailed: a file cannot be read. StoreError: no room. WorkerCrashed.
    """
    with store_errors("read a folder", target.parent):
        real = {each: path.resolve(strict=True) for each, path in files.items()}
        size = sum(path.stat().st_size for path in real.values())
    licence = settings.licence(next(iter(files.values())).parent / "README.md")
    workers.write(
        _WRITER,
        target,
        {"files": {each: str(path) for each, path in real.items()}, "name": name, "licence": licence},
        read=list(real.values()),
        room=size + _SPARE,
        on_progress=workers.percent("convert", on_progress),
    )
    with store_errors("read a model", target.parent):
        kind = gguf.read_header(target).file_type
    if kind not in VARIANTS:
        raise LoadFailed("what was written is not the file that was asked for")
    return Converted(VARIANTS[kind], licence)


def add(
    store: Store,
    folder: Path,
    files: Mapping[str, Path],
    *,
    name: str | None = None,
    variant: str | None = None,
    licence: str | None = None,
    on_progress: ProgressCallback | None = None,
) -> InstalledModel:
    """Convert a folder and install what it became; see `models.add`.

    Raises:
        As `convert`; ConfigurationError: an unusable name. StoreError: another model has this name.
    """
    folder = folder.absolute()
    name, variant = split_name(slug(folder.name) if name is None else name, variant)
    with store.space.lock(f"{name}--{variant or 'any'}"), store.space.session() as work:
        target = work / "converted" / "model.gguf"
        made = convert(files, target, name=name, on_progress=on_progress)
        variant = variant or made.variant
        return store.install(
            {f"{name}-{variant}.gguf": target},
            work,
            name=name,
            variant=variant,
            source=f"file:{folder}",
            licence=licence or made.licence or "unknown",
        )
