"""One file that carries models to a machine without a network.

An uncompressed tar archive of plain files: first `manifest.json`, then `blobs/sha256/DIGEST` for every file. Reading
is by hand, block by block: nothing of the archive decides where bytes go, and whatever is not on that short list of
names is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import IO

from ondevice_sdk.errors import ConfigurationError, ModelCorrupt, ModelNotInstalled, StoreError
from ondevice_sdk.store import compiled, folders, formats, manifest
from ondevice_sdk.store.files import CHUNK, create, private_dir, require_room, split_name, store_errors
from ondevice_sdk.store.manifest import Manifest
from ondevice_sdk.store.results import InstalledModel
from ondevice_sdk.store.store import Store, now
from ondevice_sdk.types import Progress

_VERSION = 1
_BLOCK = 512
_HEAD = "manifest.json"
_BLOBS = "blobs/sha256/"
_MAX_MODELS = 100
_MAX_HEAD = 8 << 20  # bytes

OnProgress = Callable[[Progress], None]


def write(store: Store, names: Sequence[str], path: Path, on_progress: OnProgress | None = None) -> Path:
    """Write models (all variants of a bare name) into a new file, hashing them on the way.

    Raises:
        ConfigurationError: no names, or the file exists. ModelNotInstalled, ModelCorrupt, StoreError.
    """
    chosen = _choose(store, names)
    path = path.absolute()
    if path.exists():
        raise ConfigurationError(f"{path} exists", hint="choose another file name")
    sizes = {file.digest: file.size for model in chosen for file in model.files}
    head = {"bundle": _VERSION, "models": [model.to_mapping() for model in chosen], "blobs": sizes}
    encoded = json.dumps(head, sort_keys=True).encode()
    require_room(path.parent, sum(sizes.values()) + len(encoded))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with store_errors("write a bundle", path.parent):
            with os.fdopen(create(temporary), "wb") as file:
                _write_member(file, _HEAD, len(encoded), [encoded])
                for digest, size in sizes.items():
                    _write_member(file, _BLOBS + digest, size, _checked(store.space.blob(digest), digest))
                    if on_progress is not None:
                        on_progress(Progress("export", file.tell(), sum(sizes.values()), "bytes"))
                file.write(bytes(2 * _BLOCK))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read(
    store: Store, path: Path, on_progress: OnProgress | None = None, pin: Mapping[str, str] | None = None
) -> tuple[InstalledModel, ...]:
    """Install every model of a bundle, or none. `pin`: SHA-256 by the names of files; of all that is native code.

    Raises:
        ModelNotInstalled: there is no such file. ModelCorrupt: it is not a whole bundle, or not as it should be, or has
            code that is not pinned. ConfigurationError: a digest for a file that it does not have.
        StoreError: another model has one of the names, or there is no room.
    """
    pin = compiled.pins(pin or {}, pin or {})
    path = path.absolute()
    if not path.is_file():
        raise ModelNotInstalled(f"there is no bundle {path}", model=str(path))
    with ExitStack() as stack:
        with store_errors("read a bundle", path.parent):
            file = stack.enter_context(path.open("rb"))
        size, models, blobs = _read_head(file, path, pin)
        for word in sorted({f"{model.name}--{model.variant}" for model in models}):  # one order: no deadlock
            stack.enter_context(store.space.lock(word))
        for model in models:
            store.refuse_other(model)
        work = stack.enter_context(store.space.session())
        require_room(work, sum(blobs.values()))

        def on_bytes(done: int) -> None:
            if on_progress is not None:
                on_progress(Progress("import", done, size, "bytes"))

        files = _read_blobs(file, blobs, work, on_bytes)
        for model in models:
            _check_content(model, {each.name: files[each.digest] for each in model.files})
        models = [_marked(store, model) for model in models]
        store.commit(models, files, work)
    made = {(model.name, model.variant) for model in models}
    return tuple(each for each in store.installed(adapters=True) if (each.name, each.variant) in made)


def _choose(store: Store, names: Sequence[str]) -> list[Manifest]:
    if isinstance(names, str) or not names:
        raise ConfigurationError("a bundle needs a list of model names")
    chosen: dict[tuple[str, str], Manifest] = {}
    for word in names:
        name, variant = split_name(word)
        here = [m for m in store.installed(adapters=True) if m.name == name and variant in (None, m.variant)]
        if not here:
            raise ModelNotInstalled(f"the model {word} is not installed", model=word)
        for each in here:
            store.resolve(each.name, each.variant)  # whole?
            found = store.manifest(each.name, each.variant)
            files = tuple(replace(file, mark=None) for file in found.files)  # a mark is for this installation only
            found = replace(found, files=files, recipe=None)
            if "file:" in found.source:  # where it lay on this machine is nobody's business elsewhere
                found = replace(found, source=f"file:{found.files[0].name}")
            chosen[each.name, each.variant] = found
    return list(chosen.values())


def _write_member(file: IO[bytes], name: str, size: int, chunks: Sequence[bytes] | Iterator[bytes]) -> None:
    info = tarfile.TarInfo(name)
    info.size = size
    file.write(info.tobuf(tarfile.GNU_FORMAT, "ascii", "strict"))
    for chunk in chunks:
        file.write(chunk)
    file.write(bytes(-size % _BLOCK))


def _checked(blob: Path, digest: str) -> Iterator[bytes]:
    hasher = hashlib.sha256()
    with blob.open("rb") as file:
        while chunk := file.read(CHUNK):
            hasher.update(chunk)
            yield chunk
    if hasher.hexdigest() != digest:
        raise ModelCorrupt("a model of the store has changed on the disk", expected=digest, actual=hasher.hexdigest())


# --- reading what may be hostile --------------------------------------------------------------------------------------


def _bad(reason: str) -> ModelCorrupt:
    return ModelCorrupt(f"not a good bundle: {reason}")


def _read_exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise _bad("it ends too early")
    return data


def _read_member(file: IO[bytes]) -> tuple[str, int] | None:
    """The next header; None at the end of the archive."""
    block = _read_exactly(file, _BLOCK)
    if not any(block):
        return None
    try:
        info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
    except (tarfile.HeaderError, ValueError) as error:  # a name that is not ASCII is a ValueError
        raise _bad("a damaged header") from error
    if info.type != tarfile.REGTYPE or info.linkname:
        raise _bad("an entry that is not a plain file")
    if info.size < 0:
        raise _bad("a negative size")
    return info.name, info.size


def _check_content(model: Manifest, files: Mapping[str, Path]) -> None:
    """Raise ModelCorrupt where the files are not what their names and the model's format say."""
    for each in model.files:
        code = formats.is_code(files[each.name], raw=folders.is_raw(model.format, each.name))
        if code and each.code is None:
            raise _code(each.name)
        if each.code is not None and not code:
            raise _bad(f"{each.name} is no compiled library")
        if model.format not in folders.FORMATS and formats.inspect(files[each.name]).format != model.format:
            raise _bad(f"{each.name} is not of the format {model.format}")
    if model.format in folders.FORMATS:
        found = folders.inspect(files, model.name)
        if found.format != model.format or found.files.keys() != files.keys():
            raise _bad(f"{model.name} is not of the format {model.format}")


def _marked(store: Store, model: Manifest) -> Manifest:
    """With the marks of this installation, for code that the caller has pinned."""
    key = compiled.own_key(store.space) if any(file.code for file in model.files) else b""
    files = [replace(file, mark=compiled.mark(key, model, file)) if file.code else file for file in model.files]
    return replace(model, files=tuple(files))


def _vouched(value: object, pin: Mapping[str, str]) -> object:
    """The description of a model with its code as the caller vouches for it: what a bundle claims counts for nothing.

    Raises:
        ModelCorrupt: code that is not pinned, or a file that is not the pinned one.
    """
    if not isinstance(value, dict) or not isinstance(value.get("files"), list):
        return value
    files = []
    for file in value["files"]:
        if isinstance(file, dict) and isinstance(name := file.get("name"), str):
            code = file.get("code") is not None or formats.is_code_name(name)
            if code and name not in pin:
                raise _code(name)
            if pin.get(name, file.get("digest")) != file.get("digest"):
                raise ModelCorrupt(
                    f"{name[:80]} of the bundle is not the file that was pinned",
                    expected=pin[name],
                    actual=str(file.get("digest"))[:64],
                )
            file = {**file, "code": "pinned" if code else None, "mark": "0" * 64 if code else None}
        files.append(file)
    return {**value, "files": files, "recipe": None}


def _code(name: str) -> ModelCorrupt:
    return ModelCorrupt(
        f"not a good bundle: its {name[:80]} is native code, which is bound to the installation that built it",
        hint="build the model here, or import it with the digest that its maker tells you: "
        f"pin={{{name[:80]!r}: SHA256}} (--pin {name[:80]}=SHA256)",
    )


def _read_head(file: IO[bytes], path: Path, pin: Mapping[str, str]) -> tuple[int, list[Manifest], dict[str, int]]:
    """Size of the file, the models, and the sizes of the blobs by digest."""
    size = path.stat().st_size
    member = _read_member(file)
    if member is None or member[0] != _HEAD or not 0 < member[1] <= _MAX_HEAD:
        raise _bad("it does not begin with its manifest")
    data = _read_exactly(file, member[1])
    _read_padding(file, member[1])
    try:
        head = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _bad("its manifest cannot be read") from error
    if not isinstance(head, dict) or head.get("bundle") != _VERSION:
        raise _bad("its manifest is of an unknown version")
    listed, blobs = head.get("models"), head.get("blobs")
    if not isinstance(listed, list) or not 0 < len(listed) <= _MAX_MODELS or not isinstance(blobs, dict):
        raise _bad("its manifest names no models, or too many")
    try:
        # a bundle vouches for nothing but itself
        models = [
            replace(manifest.from_value(_vouched(value, pin)), digest_origin="first_use", installed_at=now())
            for value in listed
        ]
    except StoreError as error:
        raise _bad(error.message) from error
    if len({(model.name, model.variant) for model in models}) != len(models):
        raise _bad("a model is named twice")
    compiled.pins(pin, [file.name for model in models for file in model.files])
    named: dict[str, int] = {}
    for each in (each for model in models for each in model.files):
        if named.setdefault(each.digest, each.size) != each.size:
            raise _bad("one file with two sizes")
    if blobs != named:
        raise _bad("the files of its models are not those that it carries")
    if sum(named.values()) > size:
        raise _bad("its files are larger than it is itself")
    return size, models, named


def _read_padding(file: IO[bytes], size: int) -> None:
    if any(_read_exactly(file, -size % _BLOCK)):
        raise _bad("something lies between its files")


def _read_blobs(file: IO[bytes], blobs: dict[str, int], work: Path, on_bytes: Callable[[int], None]) -> dict[str, Path]:
    directory = private_dir(work / "bundle")
    files: dict[str, Path] = {}
    while (member := _read_member(file)) is not None:
        name, size = member
        digest = name.removeprefix(_BLOBS)
        if name != _BLOBS + digest or blobs.get(digest) != size:
            raise _bad("an entry that its manifest does not name, or of another size")
        if digest in files:
            raise _bad("a file that comes twice")
        files[digest] = directory / digest  # 64 hexadecimal digits: `blobs` holds nothing else
        _read_blob(file, size, digest, files[digest], on_bytes)
    if files.keys() != blobs.keys():
        raise _bad("a file is missing")
    while rest := file.read(CHUNK):
        if any(rest):
            raise _bad("something follows its end")
    return files


def _read_blob(file: IO[bytes], size: int, digest: str, target: Path, on_bytes: Callable[[int], None]) -> None:
    hasher = hashlib.sha256()
    with store_errors("import a model", target.parent), os.fdopen(create(target), "wb") as writer:
        left = size
        while left:
            chunk = _read_exactly(file, min(CHUNK, left))
            hasher.update(chunk)
            writer.write(chunk)
            left -= len(chunk)
            on_bytes(file.tell())
    if hasher.hexdigest() != digest:
        raise ModelCorrupt("a file of the bundle is damaged", expected=digest, actual=hasher.hexdigest())
    _read_padding(file, size)
