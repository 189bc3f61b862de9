"""States of sequences in one form, whether their cache was shared or split.

llama.cpp writes a state as a magic number, the sequence, and the number of parts (it calls them streams) of the cache;
then for each part the number of cells that the sequence has in it, followed by them. It takes a state back only into a
cache of as many parts. The form used here is that of a shared cache, which is one part.
"""

from __future__ import annotations

import struct
from typing import Final

from ondevice_sdk.errors import GenerationFailed

_HEAD: Final = struct.Struct("<III")
_COUNT_BYTES: Final = 4


def is_understood(empty: bytes, parts: int) -> bool:
    """Whether the state of a sequence that holds nothing has this form; other versions may write another."""
    return len(empty) == _HEAD.size + parts * _COUNT_BYTES and _parts(empty) == parts and not any(empty[_HEAD.size :])


def from_part(state: memoryview, part: int, parts: int) -> bytes:
    """A state as of a shared cache, of one that lay in a part."""
    if _parts(state) != parts:
        raise GenerationFailed("llama.cpp wrote a state of another form")
    start, end = _HEAD.size + part * _COUNT_BYTES, len(state) - (parts - 1 - part) * _COUNT_BYTES
    return b"".join((_head(state, 1), state[start:end]))


def to_part(state: bytes, parts: int) -> bytes:
    """A state as of a cache of so many parts; llama.cpp puts it into that of the sequence."""
    nothing = bytes((parts - 1) * _COUNT_BYTES)
    return b"".join((_head(state, parts), memoryview(state)[_HEAD.size :], nothing))


def _parts(state: bytes | memoryview) -> int:
    return int(_HEAD.unpack_from(state)[2]) if len(state) >= _HEAD.size else 0


def _head(state: bytes | memoryview, parts: int) -> bytes:
    if len(state) < _HEAD.size:
        raise GenerationFailed("the saved state does not fit this model")
    magic, sequence, _ = _HEAD.unpack_from(state)
    return _HEAD.pack(magic, sequence, parts)
