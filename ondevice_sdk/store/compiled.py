"""Models that bring native code: a compiled library is a program, and runs only where this installation vouches for it.

The ways in are in `from_builder`. Both leave a mark in the manifest, made with a key that lies in this store and never
leaves it: a manifest from elsewhere, whatever it claims, has no such mark. Before a library is handed to a worker, it
is hashed and its mark is checked, every time.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.store import folders, formats
from ondevice_sdk.store.files import DIGEST, create, private_dir
from ondevice_sdk.store.manifest import Manifest, ModelFile
from ondevice_sdk.store.workspace import Workspace

_KEY_BYTES = 32


def pins(given: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """The digests that somebody vouches with, by the names of files, in small letters.

    Raises:
        ConfigurationError: what is given is no digest, or there is no such file.
    """
    checked = {name: digest.lower() for name, digest in given.items()}
    for name in sorted(checked.keys() - set(names)):
        raise ConfigurationError(f"a digest is given for {name[:80]!r}, and there is no such file")
    for name, digest in checked.items():
        if DIGEST.fullmatch(digest) is None:
            raise ConfigurationError(f"what is given for {name} is no SHA-256: {digest[:80]!r}")
    return checked


def key_path(space: Workspace) -> Path:
    """Where the key of this installation lies."""
    return space.root / "installation.key"


def check(space: Workspace, found: Manifest, file: ModelFile, path: Path) -> None:
    """Refuse a file of a model that is native code, unless this installation built or pinned it.

    Raises:
        ModelCorrupt: nobody here vouches for it. OSError: it cannot be read.
    """
    if file.code is None:
        if formats.is_code(path, raw=folders.is_raw(found.format, file.name)):
            raise formats.forbidden(f"{file.name} of {found.name}:{found.variant}", "compiled code without a mark")
        return
    try:
        key = key_path(space).read_bytes()
    except FileNotFoundError:
        key = b""
    if len(key) != _KEY_BYTES or not hmac.compare_digest(mark(key, found, file), file.mark or ""):
        raise formats.forbidden(
            f"{file.name} of {found.name}:{found.variant}", "a compiled library that was not built or pinned here"
        )


def mark(key: bytes, found: Manifest, file: ModelFile) -> str:
    """What only this installation can write: for this file of this model, and for no other."""
    words = [found.name, found.variant, found.format, file.digest, file.name, file.code]
    return hmac.new(key, json.dumps(words).encode(), hashlib.sha256).hexdigest()


def own_key(space: Workspace) -> bytes:
    """The key of this installation, made when it is first needed. Call with a lock of the store held."""
    path = key_path(space)
    with space.lock("installation-key"):
        try:
            key = path.read_bytes()
            if len(key) == _KEY_BYTES:
                return key
            path.unlink()
        except FileNotFoundError:
            private_dir(path.parent)
        key = secrets.token_bytes(_KEY_BYTES)
        with os.fdopen(create(path), "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        return key
