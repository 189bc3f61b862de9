"""Prefixes on the disk, as an app asks for them: off unless a client is given a `PrefixCache`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.privacy.vault import CacheDirectory, CallerKey, KeyringKey, MemoryKey, Usage

if TYPE_CHECKING:
    from ondevice_sdk.runtime.executor import Executor
    from ondevice_sdk.runtime.prefixes import Prefixes

DEFAULT_BYTES: Final = 2_000_000_000


@dataclass(frozen=True, slots=True, eq=False)
class PrefixCache:
    """What models have read, kept on the disk, so that a later process need not read it again.

    Entries are encrypted and authenticated (AES-256-GCM) in the worker and bound to the model, its vocabulary and the
    version of the runtime. Several clients and processes may share a directory.

    Args:
        key: whose they are. With a `CallerKey` or `KeyringKey` they outlive the app, with a `MemoryKey` its workers
            only.
        directory: where they lie: private, of this user; None: `prefixes` in the store of models.
        limit_bytes: how many bytes of files may stay, of all models together; what was not used for longest goes first.

    Raises:
        ConfigurationError: a wrong argument.
    """

    key: CallerKey | KeyringKey | MemoryKey
    directory: Path | None = None
    limit_bytes: int = DEFAULT_BYTES
    _users: WeakSet[Executor] = field(default_factory=WeakSet, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.key, CallerKey | KeyringKey | MemoryKey):
            raise ConfigurationError(
                f"key is a CallerKey, KeyringKey or MemoryKey, not {type(self.key).__name__}",
                hint="they are in ondevice_sdk.privacy.vault",
            )
        if not isinstance(self.directory, Path | None):
            raise ConfigurationError(f"directory must be a Path, not {type(self.directory).__name__}")
        if isinstance(self.limit_bytes, bool) or not isinstance(self.limit_bytes, int) or self.limit_bytes <= 0:
            raise ConfigurationError("limit_bytes must be a whole number above 0")

    @property
    def path(self) -> Path:
        """The directory."""
        return default_directory() if self.directory is None else self.directory.expanduser().absolute()

    def usage(self) -> Usage:
        """How many entries there are, of all models and keys, and the bytes of their files.

        Raises:
            StoreError: the directory cannot be read, or is not private.
        """
        return usage(self.path)

    def purge(self) -> int:
        """Delete everything, of all models and keys, and have the workers of this process's clients forget it too.

        What the disk keeps of deleted files can be read with the key only: `key.forget()`, for one in the keyring
        `key.destroy()`, makes that impossible, and ends this cache. Workers of other processes keep what they hold in
        memory.

        Returns:
            How many files were deleted.

        Raises:
            StoreError: a file cannot be deleted, or another process goes on writing.
        """
        with self._lock:
            users = list(self._users)
        for executor in users:
            executor.forget()
        return purge(self.path)


def start_with(cache: PrefixCache, model_digest: str, start: Callable[[Prefixes], Executor]) -> Executor:
    """Start an executor that keeps the prefixes of one model in a cache, and is told of its purges.

    Raises:
        StoreError: the directory cannot be used, or the key was forgotten.
        BackendUnavailable: `cryptography` is not installed.
    """
    from ondevice_sdk.runtime.prefixes import PURPOSE, Prefixes

    path = cache.path
    with cache.key.scoped(PURPOSE, model_digest) as key:
        CacheDirectory(path).close()  # made, and looked at, before a worker may reach it
        executor = start(Prefixes(str(path), key, cache.limit_bytes))
    with cache._lock:
        cache._users.add(executor)
    return executor


def default_directory() -> Path:
    """Where prefixes lie if an app names no other place.

    Raises:
        StoreError: there is no place for a store.
    """
    from ondevice_sdk.store import Store

    return Store.open().root / "prefixes"


def usage(directory: Path) -> Usage:
    """See `PrefixCache.usage`; needs no key."""
    if not directory.exists():
        return Usage(0, 0)
    with CacheDirectory(directory) as opened:
        return opened.usage()


def purge(directory: Path) -> int:
    """Delete everything there; needs no key.

    Raises:
        StoreError: see `PrefixCache.purge`.
    """
    if not directory.exists():
        return 0
    with CacheDirectory(directory) as opened:
        return opened.purge()
