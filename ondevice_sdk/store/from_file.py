"""Source `file:PATH`: a copy of a local file; with `/` at its end, one file made of a sentence embedder's folder."""

from __future__ import annotations

from pathlib import Path

from ondevice_sdk.catalogue.spec import Artifact
from ondevice_sdk.errors import DownloadFailed, ModelCorrupt
from ondevice_sdk.store import from_sentence_bert
from ondevice_sdk.store.files import copy_file, require_room, store_errors
from ondevice_sdk.store.place import Fetched, Place


def fetch(rest: str, artifact: Artifact, place: Place) -> tuple[Fetched, ...]:
    """Copy the file; a relative path counts from the current directory."""
    source = Path(rest.removeprefix("//"))
    if rest.endswith("/"):
        if not source.is_dir():
            raise DownloadFailed(f"there is no folder {source}")
        target = place.work / "converted"
        from_sentence_bert.convert(source, target, source.name, place.on_converted)
        return (Fetched(target, from_sentence_bert.file_name(source.name)),)
    try:
        size = source.stat().st_size
        readable = source.is_file()
    except (OSError, ValueError):
        readable = False
    if not readable:
        raise DownloadFailed(f"there is no file {source}")
    if artifact.size is not None and size != artifact.size:
        raise ModelCorrupt(
            f"{source.name} has not the size that it should have",
            expected=f"{artifact.size} bytes",
            actual=f"{size} bytes",
        )
    require_room(place.work, size)
    target = place.work / "copy"
    with store_errors("copy a model", place.work):
        copy_file(source, target, lambda done: place.on_bytes(done, size))
    return (Fetched(target, source.name),)
