"""Models that lie outside the store and are used where they are: files and folders without native code."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ondevice_sdk.backends.api import LocalModel
from ondevice_sdk.catalogue import lora
from ondevice_sdk.errors import ModelCorrupt, ModelUnsupported
from ondevice_sdk.store import folders, formats
from ondevice_sdk.store.files import hash_file, joint_digest, store_errors
from ondevice_sdk.store.workspace import Workspace


def resolve(space: Workspace, path: Path) -> LocalModel:
    """The model at an absolute path; see `Store.from_path`."""
    if path.is_dir():
        return _from_folder(space, path)
    paths = siblings(path)
    digests, kinds = [], []
    for each in paths:
        kinds.append(formats.inspect(each))
        digests.append(digest_of(space, each))
    if kinds[0].format == lora.FORMAT:
        hint = f"install it with `ondevice models add {path}`, and name it as adapter="
        raise ModelUnsupported(f"{path.name} is an adapter and no model", hint=hint)
    files = tuple(str(each) for each in paths)
    return LocalModel(path.stem, kinds[0].precision, kinds[0].format, files[0], joint_digest(digests), files)


def is_path(word: str) -> bool:
    """Whether a word is the path of a model and not its name."""
    try:
        return os.sep in word or Path(word).is_file()
    except OSError:  # too long for a file name
        return False


def siblings(path: Path) -> tuple[Path, ...]:
    """The files that a model file belongs to, by its name."""
    return tuple(path.with_name(name) for name in formats.split_names(path.name))


def digest_of(space: Workspace, path: Path) -> str:
    """SHA-256 of a file; hashed again only when it has changed since it was last hashed.

    Raises:
        StoreError: it cannot be read.
    """
    key = _key(path)
    with store_errors("read a model file", path):
        digest = space.stamped(key, path)
        if digest is None:
            digest = hash_file(path)
            space.stamp(key, path, digest)
    return digest


def forget(space: Workspace, path: Path) -> None:
    """Remember no digest of a file that is gone for good."""
    space.unstamp(_key(path))


def _key(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()


def _from_folder(space: Workspace, path: Path) -> LocalModel:
    found = folders.find(path)
    for name, file in found.files.items():
        with store_errors("read a model file", file):
            code = formats.is_code(file, raw=folders.is_raw(found.format, name))
        if code or formats.is_code_name(name):
            hint = f"ondevice models add {path} --pin {name}=SHA256"
            raise ModelCorrupt(f"{name} of {path} is native code, which is loaded from the store only", hint=hint)
    digests = [digest_of(space, file) for file in found.files.values()]
    files = tuple(map(str, found.files.values()))
    return LocalModel(path.name, found.variant, found.format, files[0], joint_digest(digests), files)
