"""What the store does to the disk: private directories, hashing, durable writes, room, and errors said in words."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ondevice_sdk.errors import ConfigurationError, StoreError

CHUNK = 1 << 20  # bytes
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,98}[a-z0-9])?")
_FILE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._+ -]{0,198}[A-Za-z0-9_])?")
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # not usable as file names on Windows
DIGEST = re.compile(r"[0-9a-f]{64}")


@contextlib.contextmanager
def store_errors(doing: str, place: Path) -> Iterator[None]:
    """Turn what the operating system says into a `StoreError` that tells what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise full(place) from error
        denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        raise StoreError(
            f"{'may' if denied else 'could'} not {doing} in {place}: {error.strerror or type(error).__name__}",
            hint="set ONDEVICE_HOME to a directory that you may write to",
        ) from error


def full(place: Path) -> StoreError:
    """The error for a disk, a quota or a file-size limit that is used up."""
    return StoreError(
        f"no room left in {place}", hint="free some space, or set ONDEVICE_HOME to a directory on another disk"
    )


def require_room(place: Path, needed: int) -> None:
    """Refuse work that cannot fit.

    Raises:
        StoreError: fewer than `needed` bytes are free where `place` lies.
    """
    with store_errors("look for free space", place):
        free = shutil.disk_usage(place).free
    if free < needed:
        raise StoreError(
            f"{readable(needed)} are needed, {readable(free)} are free in {place}",
            hint="free some space, or set ONDEVICE_HOME to a directory on another disk",
        )


def readable(size: int) -> str:
    """Bytes for people, in powers of ten."""
    amount = float(size)
    for unit in ("bytes", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.4g} {unit}"
        amount /= 1000
    return f"{amount:.4g} GB"


def private_dir(path: Path) -> Path:
    """Make a directory, and the parents that are missing, so that only this user may enter."""
    if not path.is_dir():
        private_dir(path.parent)  # `parents=True` would give them the default mode
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def create(path: Path) -> int:
    """Make a new private file; a descriptor to write to. FileExistsError if there is one."""
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0), 0o600)


def hash_file(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """SHA-256 of a file; `on_bytes` hears how many bytes have been read so far."""
    digest = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if on_bytes is not None:
                on_bytes(done)
    return digest.hexdigest()


def joint_digest(digests: Sequence[str]) -> str:
    """One digest for all files of a model, in their order; that of an only file is its own."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def copy_file(source: Path, target: Path, on_bytes: Callable[[int], None] | None = None) -> None:
    """Copy the bytes of a file into a new private one."""
    done = 0
    with source.open("rb") as reader, os.fdopen(create(target), "wb") as writer:
        while chunk := reader.read(CHUNK):
            writer.write(chunk)
            done += len(chunk)
            if on_bytes is not None:
                on_bytes(done)


def sync_file(path: Path) -> None:
    """Wait until the bytes of a file are on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def make_read_only(path: Path) -> None:
    """Let nobody write to a file by accident, where a file that may not be written to can still be removed."""
    if os.name == "posix":
        path.chmod(0o400)


def settle(path: Path) -> None:
    """Make a finished file private and read-only, with its bytes on the disk."""
    path.chmod(0o600)
    sync_file(path)
    make_read_only(path)


def sync_dir(path: Path) -> None:
    """Wait until the names in a directory are on the disk; systems that cannot do that for directories are let be."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, data: bytes, temporary: Path) -> None:
    """Replace a small file so that a crash leaves the old or the new one, never a mixture."""
    with os.fdopen(create(temporary), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_dir(path.parent)


def check_name(name: str, what: str = "model name") -> str:
    """A word that is a safe file name on every system, and the same on those that ignore case.

    Raises:
        ConfigurationError: it is not.
    """
    if not _NAME.fullmatch(name) or _DEVICES.fullmatch(name):
        raise ConfigurationError(
            f"not a {what}: {name[:80]!r}", hint="use small letters, digits, '.', '-' and '_', at most 100 of them"
        )
    return name


def is_file_name(name: str) -> bool:
    """Whether a name from outside may be used for a file inside a directory of ours."""
    return _FILE_NAME.fullmatch(name) is not None and _DEVICES.fullmatch(name) is None


def slug(text: str) -> str:
    """The nearest model name to some words; "model" if nothing is left of them."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-")[:99].strip("._-") or "model"


def split_name(name: str, variant: str | None = None) -> tuple[str, str | None]:
    """Take `"model:int4"` apart and check both words.

    Raises:
        ConfigurationError: a word is unusable, or two different variants are named.
    """
    base, colon, suffix = name.partition(":")
    if colon and variant is not None and suffix != variant:
        raise ConfigurationError(f"two variants are named: {suffix[:80]!r} and {variant[:80]!r}")
    chosen = suffix if colon else variant
    return check_name(base), None if chosen is None else check_name(chosen, "variant")
