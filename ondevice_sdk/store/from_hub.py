"""Source `hf:OWNER/REPOSITORY[@REVISION]/FILE-PATTERN`: a file of a model hub, with the user's own settings.

`HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE` and the stored login apply; telemetry is off.
"""

from __future__ import annotations

import errno
import fnmatch
import json
import os
import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ondevice_sdk.catalogue.spec import Artifact
from ondevice_sdk.errors import (
    BackendUnavailable,
    ConfigurationError,
    DownloadFailed,
    LicenceNotAccepted,
    ModelCorrupt,
    OnDeviceError,
)
from ondevice_sdk.store import child
from ondevice_sdk.store.files import DIGEST, full, is_file_name, private_dir, require_room, store_errors
from ondevice_sdk.store.formats import refuse_name, split_names
from ondevice_sdk.store.place import Fetched, Place

_SOURCE = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+?))?/(?P<pattern>[^\0\\]+)")
_QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_XET_TELEMETRY_ENABLED": "0",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
}


@dataclass(frozen=True, slots=True)
class _Remote:
    name: str
    size: int | None
    sha256: str | None


def fetch(rest: str, artifact: Artifact, place: Place) -> tuple[Fetched, ...]:
    """Find the file (or all splits of it) and download it, going on where an earlier attempt was cut."""
    match = _SOURCE.fullmatch(rest)
    if match is None:
        raise ConfigurationError(f"not a source: 'hf:{rest[:120]}'", hint="hf:OWNER/REPOSITORY/FILE-PATTERN")
    repository = match["repository"]
    listing = _call([repository, match["revision"] or "main", ""], place, repository, lambda: None)
    commit = listing[-1].get("commit")
    remotes = _choose([_remote(line) for line in listing[:-1]], match["pattern"], repository)
    sizes = [remote.size for remote in remotes]
    total = sum(size or 0 for size in sizes) if None not in sizes else None
    if artifact.size is not None and total is not None and artifact.size != total:
        raise ModelCorrupt(
            f"the file of {repository} has not the size that it should have",
            expected=f"{artifact.size} bytes",
            actual=f"{total} bytes",
        )
    with store_errors("keep a download", place.partial):
        private_dir(place.partial)
    require_room(place.partial, total or artifact.size or 0)
    revision = commit if isinstance(commit, str) else "main"

    def look() -> None:
        place.on_bytes(_size_below(place.partial), total)

    _call([repository, revision, str(place.partial), *(r.name for r in remotes)], place, repository, look)
    return tuple(
        Fetched(place.partial.joinpath(*PurePosixPath(r.name).parts), PurePosixPath(r.name).name, r.sha256)
        for r in remotes
    )


def _choose(remotes: list[_Remote], pattern: str, repository: str) -> tuple[_Remote, ...]:
    by_name = {r.name: r for r in remotes if _is_safe(r.name)}
    names = sorted(name for name in by_name if fnmatch.fnmatchcase(name, pattern))
    if not names:
        raise DownloadFailed(f"{repository} has no file {pattern}", host=_host(), status=404)
    first = PurePosixPath(names[0])
    wanted = [str(first.with_name(name)) for name in split_names(first.name)]
    if sorted(names) != sorted(wanted) and names != [str(first)]:
        raise ConfigurationError(
            f"{len(names)} files of {repository} match {pattern}", hint="name one of: " + ", ".join(names[:8])
        )
    if missing := [name for name in wanted if name not in by_name]:
        raise DownloadFailed(f"{repository} lacks {len(missing)} of {len(wanted)} splits", host=_host(), status=404)
    for name in wanted:
        refuse_name(PurePosixPath(name).name)
    return tuple(by_name[name] for name in wanted)


def _is_safe(name: str) -> bool:
    """A path that stays inside the directory that it is joined to, on every system."""
    return all(is_file_name(part) or (part.startswith(".") and is_file_name(part[1:])) for part in name.split("/"))


def _remote(line: dict[str, object]) -> _Remote:
    name, size, digest = line.get("name"), line.get("size"), line.get("sha256")
    return _Remote(
        name if isinstance(name, str) else "",
        size if isinstance(size, int) else None,
        digest if isinstance(digest, str) and DIGEST.fullmatch(digest) else None,
    )


def _call(arguments: list[str], place: Place, repository: str, look: child.Look) -> list[dict[str, object]]:
    script = Path(__file__).with_name("hub_child.py")
    finished = child.run([child.python(), "-P", str(script), *arguments], place.work, _QUIET, look)
    try:
        lines = [json.loads(line) for line in finished.output.splitlines()]
        kind = lines[-1]["kind"]
    except (ValueError, LookupError, TypeError) as error:
        if finished.disk_full:
            raise full(place.partial) from error
        raise DownloadFailed(f"the hub client failed (exit code {finished.code})", host=_host()) from error
    if kind == "missing":
        raise BackendUnavailable(
            "the hub client is not installed", reason="no huggingface_hub", hint='pip install "ondevice-sdk[hub]"'
        )
    if kind == "error":
        raise _translate(lines[-1], repository, place.partial)
    return lines


def _translate(line: dict[str, object], repository: str, partial: Path) -> OnDeviceError:
    kinds, status, number = line.get("error"), line.get("status"), line.get("errno")
    names = kinds if isinstance(kinds, list) else []
    code = status if isinstance(status, int) else None
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return full(partial)
    if "GatedRepoError" in names:
        return LicenceNotAccepted(
            f"the hub gives {repository} only to users who accepted its terms there",
            licence=repository,
            hint="accept the terms on the page of the model, then: hf auth login",
        )
    if "OfflineModeIsEnabled" in names or os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return DownloadFailed("the hub client is set to offline", host=_host(), hint="unset HF_HUB_OFFLINE")
    if code in (401, 403):
        return DownloadFailed(
            f"the hub refuses access to {repository}", host=_host(), status=code, hint="hf auth login"
        )
    if code is not None:
        return DownloadFailed(f"the hub answered {code} for {repository}", host=_host(), status=code)
    return DownloadFailed(f"{repository} could not be downloaded ({names[0] if names else 'unknown'})", host=_host())


def _host() -> str:
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    return urllib.parse.urlsplit(endpoint).hostname or endpoint


def _size_below(directory: Path) -> int:
    size = 0
    for path in directory.rglob("*"):
        try:
            size += path.stat().st_size if path.is_file() and path.suffix in (".incomplete", ".gguf") else 0
        except OSError:  # renamed meanwhile
            continue
    return size
