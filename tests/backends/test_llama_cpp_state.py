from __future__ import annotations

import struct

import pytest

from ondevice_sdk.backends.llama_cpp import state
from ondevice_sdk.errors import GenerationFailed

CELLS = b"five cells of a sequence"


def written(parts: int, part: int, *, sequence: int = 2) -> bytes:
    """As llama.cpp writes it."""
    counts = [bytes(4)] * parts
    counts[part] = struct.pack("<I", 5) + CELLS
    return struct.pack("<III", 0xAF143CD8, sequence, parts) + b"".join(counts)


@pytest.mark.parametrize(("parts", "part"), [(2, 0), (2, 1), (4, 2), (16, 15)])
def test_there_and_back(parts: int, part: int) -> None:
    shared = state.from_part(memoryview(written(parts, part)), part, parts)
    assert shared == written(1, 0)
    assert state.to_part(shared, parts) == written(parts, 0), "the cells come first, whatever the part was"


def test_a_state_of_nothing() -> None:
    nothing = struct.pack("<IIII", 0xAF143CD8, 2, 1, 0)
    assert state.is_understood(nothing, 1)
    assert state.from_part(memoryview(state.to_part(nothing, 4)), 3, 4) == nothing


@pytest.mark.parametrize(
    "empty", [b"", b"\0" * 8, struct.pack("<III", 1, 2, 1), struct.pack("<IIII", 1, 2, 2, 0), written(1, 0)]
)
def test_another_form_is_not_understood(empty: bytes) -> None:
    assert not state.is_understood(empty, 1)


def test_what_is_no_state_is_refused() -> None:
    with pytest.raises(GenerationFailed):
        state.to_part(b"not a st", 4)
    with pytest.raises(GenerationFailed):
        state.from_part(memoryview(written(2, 0)), 0, 4)
