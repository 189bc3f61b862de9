"""Prefixes on the disk: what the KV cache held for a text, encrypted, to be used again by a later process.

An entry has a place, one of `PLACES`, and holds its tokens, which adapter they were computed with, and the state behind
them. Places are the names of entries, so that the index is read from the entries themselves: there is no file about
files that could disagree with them, and processes that share the directory never wait for each other. Where two take
the same place at once the later one has it, and the earlier one finds out when it loads.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import secrets
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ondevice_sdk.engine.prefix import GRID
from ondevice_sdk.errors import OnDeviceError
from ondevice_sdk.privacy.vault import EncryptedCache, EntryRefused

PLACES: Final = 256
FORM: Final = 2  # of an entry; a part of every binding
_HEAD: Final = struct.Struct("<16sI")  # a digest of the adapter, all zeros for none, and the number of tokens
_NO_ADAPTER: Final = bytes(16)
_TOKEN_BYTES: Final = 4
_MOST_FAILURES: Final = 8  # writes in a row that failed, after which nothing is written any more

Chain = tuple[bytes, ...]  # a digest for each whole chunk of the grid, which stands for all tokens up to its end


@dataclass(slots=True)
class _Entry:
    """What is known of a place without reading its state."""

    chain: Chain
    tokens: int
    used_ns: int


class DiskPrefixes:
    """States of the KV cache in an encrypted cache. One thread; never raises for what the disk does or holds."""

    def __init__(self, cache: EncryptedCache, binding: str, *, limit_bytes: int) -> None:
        """Read the index from the entries that are there.

        Args:
            cache: whose key is of this model; closed with this object.
            binding: everything else that a state depends on. States of another binding are not found.
            limit_bytes: of the whole cache; a larger state is not kept. The cache itself removes what was not used for
                longest.
        """
        self._cache, self._limit = cache, limit_bytes
        self._names = [f"{binding} {place}" for place in range(PLACES)]
        self._entries: dict[int, _Entry] = {}
        self._failures = self._failing = 0
        for place in range(PLACES):
            self._look(place)

    @property
    def failures(self) -> int:
        """How often the disk failed, was full, or held something that was refused."""
        return self._failures + sum(self._cache.refused.values())

    def find(self, prompt: Sequence[int], adapter: str = "") -> int:
        """How many leading tokens of the prompt a stored state begins with, that was computed with the same adapter.

        Whole chunks of `GRID`, and at least one token of the prompt is left over; 0: none.
        """
        _, shared = self._best(_usable_chain(prompt, adapter))
        return shared * GRID

    def load(self, prompt: Sequence[int], adapter: str = "") -> tuple[list[int], bytes] | None:
        """The tokens and the state that `find` found.

        Returns:
            The tokens of the state, which may be more than are shared with the prompt, and the state for
            `ModelRunner.kv_load`. None: there is none, or it is gone or damaged, and forgotten now.
        """
        place, shared = self._best(chain := _usable_chain(prompt, adapter))
        if place is None:
            return None
        found = self._read(place)
        if found is None:
            self._entries.pop(place, None)
            return None
        seed, tokens, state = found
        if _shared(held := _chain(tokens, seed), chain) < shared:  # another process has put something else there
            self._entries[place].chain, self._entries[place].tokens = held, len(tokens)
            return None
        return tokens, state

    def put(self, tokens: Sequence[int], state: bytes, adapter: str = "") -> None:
        """Keep a state, in the place of stored ones that it begins with.

        Nothing is written where a stored state begins with all of its whole chunks. A disk that is full or fails is
        counted in `failures`.
        """
        chain = _chain(tokens, seed := _seed(adapter))
        header = _HEAD.pack(seed, len(tokens)) + struct.pack(f"<{len(tokens)}I", *tokens)
        if not chain or len(header) + len(state) > self._limit or self._failing >= _MOST_FAILURES:
            return
        try:
            if self._is_stored(chain):
                return
            covered = [place for place, entry in self._entries.items() if chain[: len(entry.chain)] == entry.chain]
            place = covered[0] if covered else self._free_place()
            if not self._cache.put(self._names[place], (header, state)):
                return
            self._failing = 0
            self._look(place)
            for other in covered[1:]:
                self._remove(other)
        except OnDeviceError:
            self._failures += 1
            self._failing += 1

    def clear(self) -> None:
        """Forget everything, and delete it, of other models too."""
        self._entries.clear()
        try:
            self._cache.purge()
        except OnDeviceError:
            self._failures += 1

    def close(self) -> None:
        """Let go of the cache. Idempotent."""
        self._entries.clear()
        self._cache.close()

    # --- the index ----------------------------------------------------------------------------------------------------

    def _best(self, chain: Chain) -> tuple[int | None, int]:
        """The place that shares most chunks with a prompt, of several the smallest state, and how many."""
        best, most, size = None, 0, 0
        for place, entry in self._entries.items():
            shared = _shared(entry.chain, chain)
            if shared > most or (shared == most > 0 and entry.tokens < size):
                best, most, size = place, shared, entry.tokens
        return best, most

    def _is_stored(self, chain: Chain) -> bool:
        """Whether a stored state begins so; looked up on the disk, where it may have been removed meanwhile."""
        candidates = [place for place, entry in self._entries.items() if entry.chain[: len(chain)] == chain]
        for place in candidates:
            self._look(place)
        return any(place in self._entries and self._entries[place].chain[: len(chain)] == chain for place in candidates)

    def _free_place(self) -> int:
        """A place where nothing is, else the one not used for longest."""
        free = [place for place in range(PLACES) if place not in self._entries]
        while free:
            place = secrets.choice(free)  # processes rarely choose the same
            free.remove(place)
            self._look(place)  # another process may have filled it
            if place not in self._entries:
                return place
        return min(self._entries, key=lambda place: self._entries[place].used_ns)

    # --- entries ------------------------------------------------------------------------------------------------------

    def _look(self, place: int) -> None:
        """Learn what is at a place."""
        self._entries.pop(place, None)
        try:
            reader = self._cache.open_reader(self._names[place])
            if reader is None:
                return
            with reader:
                seed, tokens, _ = _header(iter(reader), reader.size)
                used_ns = reader.used_ns
        except (OnDeviceError, _OddEntry) as error:
            self._refuse(place, error)
            return
        self._entries[place] = _Entry(_chain(tokens, seed), len(tokens), used_ns)

    def _read(self, place: int) -> tuple[bytes, list[int], bytes] | None:
        try:
            reader = self._cache.open_reader(self._names[place])
            if reader is None:
                return None
            with reader:
                pieces = iter(reader)
                seed, tokens, rest = _header(pieces, reader.size)
                state = io.BytesIO()
                for piece in itertools.chain((rest,), pieces):  # to the end, which alone proves that it is whole
                    state.write(piece)
        except (OnDeviceError, _OddEntry) as error:
            self._refuse(place, error)
            return None
        return seed, tokens, state.getvalue()  # its own buffer, not a copy

    def _refuse(self, place: int, error: Exception) -> None:
        if not isinstance(error, EntryRefused):  # the cache has counted and deleted those
            self._failures += 1
        if isinstance(error, _OddEntry):
            self._remove(place)

    def _remove(self, place: int) -> None:
        self._entries.pop(place, None)
        try:
            self._cache.delete(self._names[place])
        except OnDeviceError:
            self._failures += 1


class _OddEntry(Exception):
    """An entry that is authentic but not of this form."""


def _header(pieces: Iterator[bytes], size: int) -> tuple[bytes, list[int], bytes]:
    """The digest of an entry's adapter, its tokens, and what of its state came with them."""
    data = next(pieces)
    if len(data) < _HEAD.size:
        raise _OddEntry
    seed, count = _HEAD.unpack_from(data)
    end = _HEAD.size + count * _TOKEN_BYTES
    if count < GRID or end > size:
        raise _OddEntry
    while len(data) < end:
        data += next(pieces)
    return seed, list(struct.unpack_from(f"<{count}I", data, _HEAD.size)), data[end:]


def _seed(adapter: str) -> bytes:
    return hashlib.blake2b(adapter.encode(), digest_size=16).digest() if adapter else _NO_ADAPTER


def _chain(tokens: Sequence[int], seed: bytes) -> Chain:
    chain: list[bytes] = []
    before = seed  # the same tokens are another prefix with another adapter
    for start in range(0, len(tokens) - GRID + 1, GRID):
        chunk = struct.pack(f"<{GRID}I", *tokens[start : start + GRID])
        before = hashlib.blake2b(before + chunk, digest_size=16).digest()
        chain.append(before)
    return tuple(chain)


def _usable_chain(prompt: Sequence[int], adapter: str) -> Chain:
    """The chunks of a prompt that may be taken from a state: the last token has to be computed."""
    return _chain(prompt[: len(prompt) - 1], _seed(adapter))


def _shared(one: Chain, other: Chain) -> int:
    """How many chunks two chains have in common."""
    for number, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return number
    return min(len(one), len(other))
