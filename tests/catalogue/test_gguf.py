from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ondevice_sdk.catalogue.gguf import read_header
from ondevice_sdk.errors import ModelCorrupt


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return string(key) + struct.pack("<I", kind) + value


ARCHITECTURE = pair("general.architecture", 8, string("llama"))
PAIRS = [
    ARCHITECTURE,
    pair("numbers", 9, struct.pack("<IQ", 4, 3) + struct.pack("<3I", 1, 2, 3)),
    pair("words", 9, struct.pack("<IQ", 8, 2) + string("a") + string("bc")),
    pair("flag", 7, b"\x01"),
]


def tensor(name: str, *, kind: int = 2, offset: int = 0) -> bytes:
    return string(name) + struct.pack("<I", 2) + struct.pack("<2Q", 4, 8) + struct.pack("<IQ", kind, offset)


def gguf(pairs: list[bytes], tensors: list[bytes], *, version: int = 3, data: int = 256) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join(pairs) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + b"\0" * data


GOOD = gguf(PAIRS, [tensor("a"), tensor("b", kind=0, offset=128)])


def write(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    return str(path)


def test_reads_what_is_needed(tmp_path: Path) -> None:
    header = read_header(write(tmp_path, GOOD))
    assert header.architecture == "llama"
    assert header.tensor_types == {2: 32, 0: 32}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GGUF",
        b"GGML" + GOOD[4:],
        gguf(PAIRS, [], version=1),
        gguf(PAIRS, [], version=1 << 24),
        gguf(PAIRS[1:], []),
        gguf([ARCHITECTURE, pair("x", 99, b"")], []),
        gguf([ARCHITECTURE, pair("x", 9, struct.pack("<IQ", 8, 1 << 40))], []),
        gguf([ARCHITECTURE, pair("x", 9, struct.pack("<IQ", 9, 1) * 9)], []),
        gguf([ARCHITECTURE, pair("general.alignment", 4, struct.pack("<I", 0))], []),
        gguf([ARCHITECTURE, pair("general.alignment", 4, struct.pack("<I", 48))], []),
        gguf(PAIRS, [tensor("a", offset=1 << 30)]),
        b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1 << 60) + b"\0" * 100,
    ],
)
def test_damage_is_seen(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ModelCorrupt):
        read_header(write(tmp_path, content))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(OSError):
            read_header(str(path))


@given(st.integers(0, len(GOOD) - 257))
def test_every_cut_through_the_header_is_seen(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    with pytest.raises(ModelCorrupt):
        read_header(write(tmp_path_factory.mktemp("cut"), GOOD[:length]))


@given(st.lists(st.tuples(st.integers(4, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_flipped_bytes_never_crash(tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]]) -> None:
    content = bytearray(GOOD)
    for at, value in flips:
        content[at] = value
    with suppress(ModelCorrupt):
        read_header(write(tmp_path_factory.getbasetemp(), bytes(content)))
