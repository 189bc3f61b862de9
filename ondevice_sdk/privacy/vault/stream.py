"""The format of an entry: a header, then chunks of AES-256-GCM, each of which knows its place, and the last is marked.

```
magic and version (8) | bytes per chunk (4, big-endian) | salt (32) | chunk 0 + tag (16) | chunk 1 + tag | ...
```

All chunks but the last are full; the last is not empty unless it is the only one. Each file has a cipher of its own
(key and beginning of the nonces from HKDF with the file's salt), so that no nonce is ever used twice. The nonce goes on
with the number of the chunk and whether it is the last; header, entry, model and purpose are associated data of every
chunk. So a chunk is valid at one place of one file of one entry of one model, and a file that was cut, at a border of
chunks too, has no last one.

Source: Hoang, Reyhanitabar, Rogaway, Vizár, "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance"
(2015), the construction STREAM.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import struct
from collections.abc import Iterable, Iterator
from typing import Final, Literal

from ondevice_sdk.errors import StoreError
from ondevice_sdk.privacy.vault.keys import ScopedKey

Bytes = bytes | bytearray | memoryview
Reason = Literal["header", "version", "length", "authentication", "private", "size"]

_MAGIC: Final = b"odcache"
VERSION: Final = 1
_HEADER: Final = struct.Struct(">7sBI32s")
HEADER_BYTES: Final = _HEADER.size
TAG_BYTES: Final = 16
SMALLEST_CHUNK: Final = 1 << 12
LARGEST_CHUNK: Final = 1 << 24  # what a header can make a reader allocate
DEFAULT_CHUNK: Final = 1 << 18
_MOST_CHUNKS: Final = 1 << 32  # the counter in the nonce, and the limit of SP 800-38D for one key
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_WORDS: Final[dict[Reason, str]] = {
    "header": "it is no entry of a cache",
    "version": "it has the format of another version",
    "length": "it was cut or extended",
    "authentication": "it was changed, or belongs to another entry, model or key",
    "private": "it is no plain file that only this user can reach",
    "size": "it is larger than the whole cache may be",
}


class EntryRefused(StoreError):
    """An entry of a cache is not what was written."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"an entry of the cache was refused: {_WORDS[reason]}")
        self.reason = reason


@contextlib.contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """Turn what the operating system says into a `StoreError`, without names of files."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StoreError("no room left for the cache", hint="free some space, or purge the cache") from error
        raise StoreError(f"could not {doing}: {error.strerror or type(error).__name__}") from error


class Chunks:
    """The chunks of one file by their numbers: the one place where nonces are made."""

    def __init__(self, key: ScopedKey, entry_id: bytes, header: bytes) -> None:
        self._cipher, self._prefix = key.cipher(header[-32:])
        self._associated = header + entry_id + key.scope

    def encrypt(self, number: int, plain: Bytes, *, last: bool) -> bytes:
        """Encrypt a chunk and put its tag behind it."""
        return self._cipher.encrypt(self._nonce(number, last=last), plain, self._associated)

    def decrypt(self, number: int, data: Bytes, *, last: bool) -> bytes:
        """Decrypt a chunk.

        Raises:
            EntryRefused: it is not valid here.
        """
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(self._nonce(number, last=last), data, self._associated)
        except InvalidTag:
            raise EntryRefused("authentication") from None

    def _nonce(self, number: int, *, last: bool) -> bytes:
        if number >= _MOST_CHUNKS:
            raise StoreError("an entry has too many chunks")
        return self._prefix + struct.pack(">IB", number, last)


def write(file: int, key: ScopedKey, entry_id: bytes, content: Iterable[Bytes], *, chunk: int, most: int) -> int | None:
    """Write an entry into a new file.

    Args:
        file: a descriptor to write to.
        key: of the scope.
        entry_id: which entry it will be.
        content: the plain text in pieces of any size.
        chunk: plain bytes per chunk, at most `LARGEST_CHUNK`.
        most: bytes that the file may have.

    Returns:
        The size of the file; None if it would have more than `most` bytes.
    """
    header = _HEADER.pack(_MAGIC, VERSION, chunk, secrets.token_bytes(32))
    chunks = Chunks(key, entry_id, header)
    _write_all(file, header)
    written = HEADER_BYTES
    for number, (data, last) in enumerate(_in_chunks(content, chunk)):
        written += len(data) + TAG_BYTES
        if written > most:
            return None
        _write_all(file, chunks.encrypt(number, data, last=last))
    return written


def _in_chunks(content: Iterable[Bytes], size: int) -> Iterator[tuple[Bytes, bool]]:
    """Cut into chunks of one size and say which is the last; a full one is held back until more comes."""
    held = bytearray()
    for piece in content:
        view = memoryview(piece).cast("B")
        start = 0
        while start < len(view):
            if len(held) == size:
                yield held, False
                held = bytearray()
            if not held:  # whole chunks need no copy; the last of them could be the end
                while len(view) - start > size:
                    yield view[start : start + size], False
                    start += size
            taken = view[start : start + size - len(held)]
            held += taken
            start += len(taken)
    yield held, True


def _write_all(file: int, data: Bytes) -> None:
    view = memoryview(data)
    with disk_errors("write an entry of the cache"):
        while view:
            view = view[os.write(file, view) :]


class Entry:
    """The file of an entry that is being read. Nothing leaves it that was not authenticated."""

    def __init__(self, file: int, key: ScopedKey, entry_id: bytes, size: int) -> None:
        """Look at the header.

        Args:
            file: a descriptor, used here only; where it stands does not matter.
            key: of the scope.
            entry_id: which entry it must be.
            size: bytes of the file.

        Raises:
            EntryRefused: what is there is no entry of this version.
        """
        header = bytearray(HEADER_BYTES)
        if _read_at(file, 0, memoryview(header)) < HEADER_BYTES:
            raise EntryRefused("header")
        self._chunk: int
        magic, version, self._chunk, _ = _HEADER.unpack(header)
        if magic != _MAGIC:
            raise EntryRefused("header")
        if version != VERSION:
            raise EntryRefused("version")
        if not SMALLEST_CHUNK <= self._chunk <= LARGEST_CHUNK:
            raise EntryRefused("header")
        full, rest = divmod(size - HEADER_BYTES, self._chunk + TAG_BYTES)
        if 0 < rest < TAG_BYTES or (rest == TAG_BYTES and full) or not full + rest:
            raise EntryRefused("length")
        self._file = file
        self._count = full + (rest > 0)
        self.size = size - HEADER_BYTES - self._count * TAG_BYTES
        self._chunks = Chunks(key, entry_id, bytes(header))

    def pieces(self) -> Iterator[bytes]:
        """The plain chunks. Only the end tells that they are all there."""
        step = self._chunk + TAG_BYTES
        buffer = memoryview(bytearray(min(step, self.size + TAG_BYTES)))
        for number in range(self._count):
            data = buffer[: self.size - number * self._chunk + TAG_BYTES]
            if _read_at(self._file, HEADER_BYTES + number * step, data) < len(data):
                raise EntryRefused("length")
            yield self._chunks.decrypt(number, data, last=number == self._count - 1)

    def whole(self) -> bytes:
        """All of it, after the last byte was authenticated."""
        content = io.BytesIO()
        for piece in self.pieces():
            content.write(piece)
        return content.getvalue()  # its own buffer, not a copy


def _read_at(file: int, start: int, buffer: memoryview) -> int:
    """Fill the buffer from there; gives the number of bytes, fewer if the file ends before."""
    done = 0
    with disk_errors("read an entry of the cache"):
        os.lseek(file, start, os.SEEK_SET)
        while done < len(buffer) and (count := os.readv(file, [buffer[done:]])):
            done += count
    return done
