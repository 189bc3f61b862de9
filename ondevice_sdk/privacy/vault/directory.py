"""The directory of a cache: private, with files that appear whole or not at all, and never more bytes than agreed.

Several processes may use it at once, and nobody waits for anybody: a worker that a model has taken over cannot hold the
app up. Names are relative to the open directory, and no link is followed. Nothing here changes modes, owners or times
of files, which a sealed worker may not.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from ondevice_sdk.errors import StoreError, Unsupported
from ondevice_sdk.privacy.vault.stream import EntryRefused, disk_errors

Place = str | os.PathLike[str] | int

_ENTRY: Final = re.compile(r"[0-9a-f]{64}")
_PARTIAL: Final = re.compile(r"[0-9a-f]{32}\.part")
_ODD: Final = frozenset({errno.ELOOP, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENXIO})  # opening no file of ours
_ROUNDS: Final = 100


@dataclass(frozen=True, slots=True)
class Usage:
    """What a cache holds."""

    entries: int
    bytes: int


class CacheDirectory:
    """A cache seen from outside: how much is in it, and an end of it. Needs no key."""

    def __init__(self, directory: Place) -> None:
        """Open it, make it if there is none, and sweep out what crashed processes left.

        Args:
            directory: its path, or a descriptor of it, which stays the caller's.

        Raises:
            StoreError: it cannot be made or opened, is a symbolic link, or others than this user may enter it.
            Unsupported: this system has no such directories.
        """
        if os.name != "posix":
            raise Unsupported("encrypted caches need a POSIX file system", capability="encrypted cache")
        with disk_errors("open the cache"):
            self._directory = _open_private(directory)
        try:
            self._sweep()
        except BaseException:
            self.close()
            raise

    def usage(self) -> Usage:
        """Entries, of all models and keys, and the bytes of their files.

        Raises:
            StoreError: the directory cannot be read.
        """
        found = self._entries()
        return Usage(len(found), sum(size for *_, size in found))

    def trim(self, max_bytes: int, newest: str = "") -> int:
        """Remove the entries that were not used for longest until no more than so many bytes are left.

        Args:
            max_bytes: how much may stay.
            newest: the entry that counts as the newest among those of the same time.

        Returns:
            How many were removed.

        Raises:
            StoreError: the directory cannot be read, or a file not be removed.
        """
        found = sorted(self._entries(), key=lambda entry: (entry[1], entry[0] == newest))
        total = sum(size for *_, size in found)
        removed = 0
        for name, _, size in found:
            if total <= max_bytes:
                break
            self.remove(name)
            total -= size
            removed += 1
        return removed

    def purge(self) -> int:
        """Remove all entries, of all models and keys, and what is being written; other files are let be.

        Returns:
            How many files were removed.

        Raises:
            StoreError: a file cannot be removed, or somebody goes on writing.
        """
        removed = 0
        for _ in range(_ROUNDS):  # a file that was being written can have got its name since the last look
            names = [name for name in self._names() if _ENTRY.fullmatch(name) or _PARTIAL.fullmatch(name)]
            if not names:
                return removed
            removed += sum(self.remove(name) for name in names)
        raise StoreError("the cache is written to while it is purged", hint="close its clients and purge again")

    def remove(self, name: str) -> bool:
        """Remove a file if it is there."""
        with disk_errors("remove an entry of the cache"):
            try:
                os.unlink(name, dir_fd=self._fd)
            except FileNotFoundError:
                return False
            return True

    def open(self, name: str) -> tuple[int, int] | None:
        """Descriptor, for the caller to close, and size of a file; None if there is none.

        Raises:
            EntryRefused: it is no plain file that only this user can reach.
            StoreError: it cannot be opened.
        """
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with disk_errors("open an entry of the cache"):
            try:
                file = os.open(name, flags, dir_fd=self._fd)
            except FileNotFoundError:
                return None
            except OSError as error:
                if error.errno in _ODD:
                    raise EntryRefused("private") from error
                raise
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or not _only_ours(status, 0o600) or status.st_nlink > 1:
            os.close(file)
            raise EntryRefused("private")
        return file, status.st_size

    def touch(self, file: int) -> None:
        """Let an open entry count as used just now: its first byte is written again, which sets its time."""
        with contextlib.suppress(OSError):
            os.pwrite(file, os.pread(file, 1, 0), 0)

    def add(self, name: str, write: Callable[[int], int | None], *, durable: bool) -> bool:
        """Have a file written and show it when it is whole, in the place of an older one.

        Args:
            name: of the entry.
            write: gets a descriptor; returns None to give up.
            durable: wait until it is on the disk.

        Returns:
            Whether it is there: not if it was given up, or the cache was purged meanwhile.

        Raises:
            StoreError: the disk is full, or the directory cannot be written to. Nothing is left of it then.
        """
        with disk_errors("write an entry of the cache"):
            partial, file = self._create()
        try:
            if write(file) is None:
                return False
            with disk_errors("write an entry of the cache"):
                if durable:
                    os.fsync(file)
                try:
                    os.rename(partial, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
                except FileNotFoundError:
                    return False
                if durable:
                    self._sync(name)
            return True
        finally:
            with contextlib.suppress(OSError, StoreError):
                os.unlink(partial, dir_fd=self._fd)
            os.close(file)  # and with it the lock, after the file has its name or is gone

    def close(self) -> None:
        """Let go of the directory. Idempotent."""
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # --- files --------------------------------------------------------------------------------------------------------

    @property
    def _fd(self) -> int:
        if self._directory < 0:
            raise StoreError("the cache is closed")
        return self._directory

    def _create(self) -> tuple[str, int]:
        """A new file with a lock on it that ends with its writer, in whatever way that ends."""
        import fcntl

        while True:
            name = f"{secrets.token_hex(16)}.part"
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(name, flags, 0o600, dir_fd=self._fd)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(file).st_nlink:
                    return name, file
            except BlockingIOError:
                pass  # somebody sweeps it out, between these two calls
            except BaseException:
                os.unlink(name, dir_fd=self._fd)
                os.close(file)
                raise
            os.close(file)

    def _sync(self, name: str) -> None:
        try:
            os.fsync(self._fd)
        except OSError:
            self.remove(name)
            raise

    def _sweep(self) -> None:
        """Remove files whose writers are no more: their locks are free."""
        import fcntl

        for name in filter(_PARTIAL.fullmatch, self._names()):
            with contextlib.suppress(OSError):
                file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._fd)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(name, dir_fd=self._fd)
                finally:
                    os.close(file)

    def _names(self) -> list[str]:
        with disk_errors("list the cache"):
            return os.listdir(self._fd)  # noqa: PTH208 - by descriptor

    def _entries(self) -> list[tuple[str, int, int]]:
        """Name, time of last use and bytes of each."""
        found = []
        for name in filter(_ENTRY.fullmatch, self._names()):
            with disk_errors("look at an entry of the cache"), contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
                found.append((name, status.st_mtime_ns, status.st_size))
        return found


def _open_private(directory: Place) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    if isinstance(directory, int):
        opened = os.open(".", flags, dir_fd=directory)
    else:
        _make(Path(directory))
        opened = os.open(directory, flags)
    if not _only_ours(os.fstat(opened), 0o700):
        os.close(opened)
        raise StoreError(
            "the directory of the cache is not private",
            hint="name a new one, or one that you own and that has mode 0700",
        )
    return opened


def _make(path: Path) -> None:
    """Make a directory and the parents that are missing, all of them private."""
    missing = [path, *itertools.takewhile(lambda parent: not parent.exists(), path.parents)]
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)


def _only_ours(status: os.stat_result, mode: int) -> bool:
    return status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) & 0o777 == mode
