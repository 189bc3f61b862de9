"""An encrypted cache: names to bytes, of which the disk shows neither."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, Self

from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.privacy.vault import stream
from ondevice_sdk.privacy.vault.directory import CacheDirectory, Place, Usage
from ondevice_sdk.privacy.vault.keys import ScopedKey
from ondevice_sdk.privacy.vault.stream import Bytes, EntryRefused, Reason

DEFAULT_MAX_BYTES: Final = 1 << 30


class EncryptedCache:
    """Entries of one purpose and one model, encrypted and authenticated with AES-256-GCM.

    An entry that is not exactly what was written under this name with this key is refused: it is deleted, counted in
    `refused`, and missing from then on. What the disk shows: how many entries there are, their sizes, and when they
    were used. What is not found out: an entry of which an older version was put back.

    Threads and processes may share a directory, also with different keys; `max_bytes` is about all that is in it.
    """

    def __init__(
        self,
        directory: Place,
        key: ScopedKey,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        chunk_bytes: int = stream.DEFAULT_CHUNK,
        durable: bool = True,
    ) -> None:
        """Open or make the directory.

        Args:
            directory: its path, or a descriptor of it; mode 0700, of this user, not a symbolic link.
            key: of the scope; stays the caller's to forget.
            max_bytes: how many bytes of files may stay; the entries that were not used for longest go first. What is
                being written comes on top.
            chunk_bytes: plain bytes that are encrypted at a time, a power of two from 4 KiB to 16 MiB.
            durable: whether `put` waits for the disk. Without, a power cut may lose an entry, never falsify one.

        Raises:
            StoreError: the directory cannot be used, or is not private. ConfigurationError: a number is unusable.
            Unsupported: not on this system.
        """
        if not stream.SMALLEST_CHUNK <= chunk_bytes <= stream.LARGEST_CHUNK or chunk_bytes & (chunk_bytes - 1):
            raise ConfigurationError("chunk_bytes is a power of two from 4096 to 16777216")
        if max_bytes <= 0:
            raise ConfigurationError("max_bytes must be positive")
        self._key = key
        self._max_bytes, self._chunk_bytes, self._durable = max_bytes, chunk_bytes, durable
        self._refused: Counter[Reason] = Counter()
        self._directory = CacheDirectory(directory)

    @property
    def refused(self) -> Mapping[Reason, int]:
        """How many entries were refused, by reason. More than none means a failing disk or a tampering hand."""
        return MappingProxyType(self._refused)

    def put(self, name: bytes | str, content: Bytes | Iterable[Bytes]) -> bool:
        """Encrypt and keep an entry in the place of an older one of that name.

        Args:
            name: anything, the text itself too; the same as text and as its UTF-8 bytes.
            content: all of it, or pieces of any size. What their iterator raises passes through.

        Returns:
            Whether it is kept: not if it is larger than the whole cache may be, or the cache was purged meanwhile.

        Raises:
            StoreError: the disk is full or failed, and nothing is left of the entry; or the key was forgotten.
            BackendUnavailable: `cryptography` is not installed.
        """
        entry_id = self._key.entry_id(name)
        pieces = (content,) if isinstance(content, bytes | bytearray | memoryview) else content

        def write(file: int) -> int | None:
            return stream.write(file, self._key, entry_id, pieces, chunk=self._chunk_bytes, most=self._max_bytes)

        kept = self._directory.add(entry_id.hex(), write, durable=self._durable)
        if kept:
            self._directory.trim(self._max_bytes, newest=entry_id.hex())
        return kept

    def get(self, name: bytes | str) -> bytes | None:
        """The content of an entry, every byte of it authenticated; None if there is none, or it was refused.

        Raises:
            StoreError: the disk failed, or the key was forgotten.
        """
        reader = self.open_reader(name)
        if reader is None:
            return None
        with reader:
            try:
                return reader.whole()
            except EntryRefused:
                return None

    def open_reader(self, name: bytes | str) -> Reader | None:
        """Read an entry piece by piece; None if there is none, or what is there is refused at once.

        Raises:
            StoreError: the disk failed, or the key was forgotten.
        """
        entry_id = self._key.entry_id(name)
        with self._refusing(entry_id):
            found = self._directory.open(entry_id.hex())
            if found is None:
                return None
            file, size = found
            try:
                if size > self._max_bytes:
                    raise EntryRefused("size")
                entry = stream.Entry(file, self._key, entry_id, size)
            except BaseException:
                os.close(file)
                raise
            return Reader(self, entry_id, file, entry)
        return None  # refused

    def delete(self, name: bytes | str) -> bool:
        """Remove an entry; whether there was one.

        Raises:
            StoreError: the disk failed, or the key was forgotten.
        """
        return self._directory.remove(self._key.entry_id(name).hex())

    def usage(self) -> Usage:
        """What the directory holds, for other models and keys too.

        Raises:
            StoreError: it cannot be read.
        """
        return self._directory.usage()

    def purge(self) -> int:
        """Remove all entries, for other models and keys too. A key in memory is forgotten, and this cache is over.

        With it, what a disk keeps of removed files can be read by nobody. In a worker, and for keys that live longer,
        that is up to the app: see `Key.forget` and `KeyringKey.destroy`.

        Returns:
            How many files were removed.

        Raises:
            StoreError: a file cannot be removed, or somebody goes on writing; the key is forgotten all the same.
        """
        self._key.erase()
        return self._directory.purge()

    def close(self) -> None:
        """Let go of the directory; the key stays the caller's. Idempotent."""
        self._directory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _refusing(self, entry_id: bytes, *, tell: bool = False) -> Iterator[None]:
        try:
            yield
        except EntryRefused as refusal:
            self._refused[refusal.reason] += 1
            self._directory.remove(entry_id.hex())
            if tell:
                raise


class Reader:
    """An entry that is being read, by one consumer.

    Every piece was authenticated before it is handed out, at its place; but only the end tells that there is no more to
    come, so that what was read until then may be a beginning. `whole` gives all or nothing.
    """

    def __init__(self, cache: EncryptedCache, entry_id: bytes, file: int, entry: stream.Entry) -> None:
        self._cache, self._entry_id, self._file, self._entry = cache, entry_id, file, entry

    @property
    def size(self) -> int:
        """Bytes of the content, as far as the file's size can be believed: proved at the end."""
        return self._entry.size

    @property
    def used_ns(self) -> int:
        """When it was last used, in nanoseconds since the epoch."""
        return os.fstat(self._file).st_mtime_ns

    def __iter__(self) -> Iterator[bytes]:
        """The content in pieces, from its beginning.

        Raises:
            EntryRefused: it is not what was written; it was deleted. What was read of it is not to be used.
            StoreError: the disk failed.
        """
        with self._cache._refusing(self._entry_id, tell=True):
            yield from self._entry.pieces()
            self._cache._directory.touch(self._file)

    def whole(self) -> bytes:
        """The content, after its last byte was authenticated.

        Raises:
            EntryRefused: it is not what was written; it was deleted.
            StoreError: the disk failed.
        """
        with self._cache._refusing(self._entry_id, tell=True):
            content = self._entry.whole()
            self._cache._directory.touch(self._file)
        return content

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
