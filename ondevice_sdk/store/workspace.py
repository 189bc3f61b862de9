"""The store's directories, its locks, and temporary directories that the next process clears up after a crash."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ondevice_sdk.errors import StoreError
from ondevice_sdk.store.files import create, private_dir, store_errors

if TYPE_CHECKING:
    from filelock import BaseFileLock


class Workspace:
    """Where things lie below the root of a store.

    ```
    blobs/sha256/DIGEST            the files, by content
    manifests/NAME/VARIANT.json    what is installed
    optimised/NAME/VARIANT.json    of which models there are copies that are faster here
    recipes/DIGEST.json            how models were quantised here; DIGEST.quality.json: what it cost them
    sets/KEY/FILE-NAME             links to the blobs of a model in several files, under the names that it needs
    stamps/KEY.json                which files have been hashed, by inode, size and times
    locks/  tmp/  partial/         one writer at a time; work in progress; downloads to be resumed
    ```
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs" / "sha256"
        self.manifests = root / "manifests"
        self.optimised = root / "optimised"
        self.recipes = root / "recipes"
        self.sets = root / "sets"

    def blob(self, digest: str) -> Path:
        """The place of a file with that SHA-256."""
        return self.blobs / digest

    def manifest(self, name: str, variant: str) -> Path:
        """The place of a manifest."""
        return self.manifests / name / f"{variant}.json"

    def partial(self, source: str) -> Path:
        """Where the unfinished download of a source is kept between attempts."""
        return self.root / "partial" / hashlib.sha256(source.encode()).hexdigest()[:32]

    @contextlib.contextmanager
    def lock(self, word: str) -> Iterator[None]:
        """Wait until no other thread or process holds the lock of that name; a dead holder does not count."""
        with store_errors("take a lock", self.root):
            held = _acquire(private_dir(self.root / "locks") / f"{word}.lock", blocking=True)
        assert held is not None
        try:
            yield
        finally:
            held.release()

    def held(self, start: str) -> bool:
        """Whether somebody holds a lock whose name begins so."""
        with store_errors("look at the locks", self.root):
            for path in (self.root / "locks").glob(f"{glob.escape(start)}*.lock"):
                lock = _acquire(path, blocking=False)
                if lock is None:
                    return True
                lock.release()
        return False

    @contextlib.contextmanager
    def session(self) -> Iterator[Path]:
        """A temporary directory that goes away with the block, or, if the process dies, with the next session."""
        with self.lock("tmp"), store_errors("make a temporary directory", self.root):
            temporary = private_dir(self.root / "tmp")
            _sweep(temporary)
            directory = temporary / uuid.uuid4().hex
            directory.mkdir(mode=0o700)
            alive = _acquire(_life_lock(directory), blocking=True)
        assert alive is not None
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)
            alive.release()
            _life_lock(directory).unlink(missing_ok=True)

    # --- stamps: a file that has not changed since it was hashed need not be hashed again ---------------------------

    def stamped(self, key: str, path: Path) -> str | None:
        """The SHA-256 that `path` had when it was last hashed, if nothing about the file has changed since."""
        try:
            value = json.loads(self._stamp(key).read_bytes())
            known = isinstance(value, dict) and value.get("file") == _identity(path)
        except (OSError, ValueError):
            return None
        digest = value.get("sha256") if known else None
        return digest if isinstance(digest, str) else None

    def stamp(self, key: str, path: Path, digest: str) -> None:
        """Remember the SHA-256 of a file; a store that cannot be written to just forgets it."""
        target = self._stamp(key)
        temporary = target.with_suffix(f".{uuid.uuid4().hex}")
        with contextlib.suppress(OSError):
            private_dir(target.parent)
            with os.fdopen(create(temporary), "w") as file:
                json.dump({"file": _identity(path), "sha256": digest}, file)
            temporary.replace(target)

    def unstamp(self, key: str) -> None:
        """Forget what was known of a file, so that the next look hashes it."""
        with contextlib.suppress(OSError):
            self._stamp(key).unlink()

    def _stamp(self, key: str) -> Path:
        return self.root / "stamps" / f"{key}.json"


def _identity(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _life_lock(directory: Path) -> Path:
    return directory.with_suffix(".lock")


def _sweep(temporary: Path) -> None:
    """Delete what processes left behind that are no more: their locks are free."""
    for entry in sorted(temporary.iterdir()):
        directory = entry.with_suffix("")
        held = _acquire(_life_lock(directory), blocking=False)
        if held is not None:
            shutil.rmtree(directory, ignore_errors=True)
            held.release()
            _life_lock(directory).unlink(missing_ok=True)


def _acquire(path: Path, *, blocking: bool) -> BaseFileLock | None:
    from filelock import FileLock, Timeout  # on first use: not everybody who imports the SDK installs models

    lock = FileLock(path, mode=0o600)
    try:
        lock.acquire(blocking=blocking)
    except Timeout:
        return None
    except NotImplementedError as error:
        hint = "set ONDEVICE_HOME to a directory on a local disk"
        raise StoreError(f"the file system of {path.parent} has no locks", hint=hint) from error
    return lock
