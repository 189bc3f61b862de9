"""Bring the files of a variant onto the store's disk, whatever kind of source they come from, and check them."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from ondevice_sdk.catalogue.spec import Artifact
from ondevice_sdk.errors import ConfigurationError, ModelCorrupt
from ondevice_sdk.store.files import CHUNK, hash_file, is_file_name, private_dir, require_room, slug, store_errors
from ondevice_sdk.store.formats import split_names
from ondevice_sdk.store.manifest import DigestOrigin
from ondevice_sdk.store.place import Fetched, Fetcher, OnBytes, Place
from ondevice_sdk.store.workspace import Workspace
from ondevice_sdk.types import Progress

# One module for a kind, imported when it is needed: an app that never pulls loads no client of any network.
_KINDS = {"pypi": "from_pypi", "hf": "from_hub", "https": "from_https", "http": "from_https", "file": "from_file"}

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Delivery:
    """Checked files by the names that they are to have, and who vouches for their digests."""

    files: dict[str, Path]
    origin: DigestOrigin


def fetch_artifacts(
    artifacts: tuple[Artifact, ...],
    space: Workspace,
    work: Path,
    *,
    whole_name: str,
    on_progress: OnProgress | None = None,
) -> Delivery:
    """Fetch all artifacts and check sizes and digests.

    Several files that are not named as the splits of a GGUF file are the pieces of one file, in order; it gets
    `whole_name`.

    Raises:
        DownloadFailed, ModelCorrupt, LicenceNotAccepted, BackendUnavailable, StoreError, ConfigurationError.
    """
    sizes = [artifact.size for artifact in artifacts]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    require_room(work, total or 0)
    arrived: list[Fetched] = []
    before = 0
    vouched = bool(artifacts)
    for number, artifact in enumerate(artifacts):
        tell, converted = _report(on_progress, before, total), _report(on_progress, 0, None, "convert")
        fetched = _fetch_one(artifact, space, private_dir(work / f"a{number}"), tell, converted)
        vouched = vouched and artifact.sha256 is not None and len(fetched) == 1
        with store_errors("read a download", work):
            before += sum(each.path.stat().st_size for each in fetched)
        arrived.extend(fetched)
    if not arrived:
        raise ConfigurationError("this variant has no source")
    if len(arrived) > 1 and any(len(split_names(each.name)) == 1 for each in arrived):
        arrived = [Fetched(_join(arrived, work), whole_name)]
    files = {_file_name(each.name): each.path for each in arrived}
    if len(files) != len(arrived):
        raise ModelCorrupt("two files of the model have one name")
    return Delivery(files, "catalogue" if vouched else "first_use")


def _fetch_one(
    artifact: Artifact, space: Workspace, work: Path, on_bytes: OnBytes, on_converted: OnBytes
) -> list[Fetched]:
    kind, _, rest = artifact.source.partition(":")
    if kind not in _KINDS or not rest:
        kinds = ", ".join(sorted(set(_KINDS) - {"http"}))
        raise ConfigurationError(
            f"not a source: {artifact.source[:120]!r}", hint=f"a source begins with one of {kinds}"
        )
    fetch = cast("Fetcher", importlib.import_module(f"ondevice_sdk.store.{_KINDS[kind]}").fetch)
    partial = space.partial(artifact.source)
    with space.lock(f"partial-{partial.name}"):
        fetched = fetch(rest, artifact, Place(work, partial, on_bytes, on_converted))
        try:
            moved = [_take(each, artifact, work, only=len(fetched) == 1) for each in fetched]
        except ModelCorrupt:  # there is nothing to go on from
            shutil.rmtree(partial, ignore_errors=True)
            raise
        shutil.rmtree(partial, ignore_errors=True)
    return moved


def _take(fetched: Fetched, artifact: Artifact, work: Path, *, only: bool) -> Fetched:
    """Check a file and move it to where the session's end deletes it."""
    expected = (artifact.sha256 if only else None) or fetched.sha256
    with store_errors("read a download", work):
        size = fetched.path.stat().st_size
        if only and artifact.size is not None and size != artifact.size:
            raise ModelCorrupt(
                f"{fetched.name} has not the size that it should have",
                expected=f"{artifact.size} bytes",
                actual=f"{size} bytes",
            )
        if expected is not None and (actual := hash_file(fetched.path)) != expected:
            raise ModelCorrupt(f"{fetched.name} is not the file that was promised", expected=expected, actual=actual)
        target = private_dir(work / "checked") / str(len(list((work / "checked").iterdir())))
        fetched.path.replace(target)
    return Fetched(target, fetched.name)


def _join(pieces: list[Fetched], work: Path) -> Path:
    """Append the pieces to the first; each goes as soon as it has been copied, so that little room is needed."""
    whole = pieces[0].path
    with store_errors("join the pieces of a model", work), whole.open("ab") as writer:
        for piece in pieces[1:]:
            with piece.path.open("rb") as reader:
                shutil.copyfileobj(reader, writer, CHUNK)
            piece.path.unlink()
    return whole


def _report(on_progress: OnProgress | None, before: int, total: int | None, stage: str = "download") -> OnBytes:
    def on_bytes(done: int, of: int | None) -> None:
        if on_progress is not None:
            on_progress(Progress(stage, before + done, total if total is not None or before else of, "bytes"))

    return on_bytes


def _file_name(name: str) -> str:
    return name if is_file_name(name) else slug(name)
