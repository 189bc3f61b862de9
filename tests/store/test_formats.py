from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice_sdk.catalogue import gguf as reader
from ondevice_sdk.errors import ModelCorrupt, ModelNotInstalled
from ondevice_sdk.store.formats import inspect, split_names

from .helpers import gguf


def put(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "model"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("file_type", "precision"),
    [(2, "int4"), (3, "int4"), (15, "int4"), (7, "int8"), (0, "f32"), (1, "f16"), (32, "bf16"), (12, "other")],
)
def test_a_gguf_file(tmp_path: Path, file_type: int, precision: str) -> None:
    path = put(tmp_path, gguf(file_type=file_type))
    found = inspect(path)
    assert (found.format, found.precision) == ("gguf", precision)
    header = reader.read_header(path)
    assert (header.architecture, header.tensors) == ("llama", 1)


@pytest.mark.model
def test_the_real_model(model_path: Path) -> None:
    header = reader.read_header(model_path)
    assert (header.architecture, header.precision) == ("llama", "int4")


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    data = gguf(64)
    for length in range(len(data)):
        with pytest.raises(ModelCorrupt):
            inspect(put(tmp_path, data[:length]))
    assert inspect(put(tmp_path, data)).format == "gguf"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"G",
        os.urandom(4096),
        b"GGUF",
        b"GGUF" + bytes(100),
        b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0) + bytes(64),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60) + bytes(64),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, (1 << 64) - 1) + bytes(64),
        b"GGUF" + struct.pack("<IQQQIIQ", 3, 0, 1, 0, 9, 9, 1 << 62) + bytes(64),
        b"GGUF" + struct.pack("<IQQQI", 3, 0, 1, 0, 99) + bytes(64),
        b"{}",
        b'{"a": 1}',
        b"{" * 5000,
        b'{"ondevice-echo": ' + b"1" * (1 << 20) + b"}",
        b"PK\x03\x04" + bytes(100),
    ],
)
def test_what_is_no_model(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ModelCorrupt):
        inspect(put(tmp_path, data))


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, 200), value=st.integers(0, 255))
def test_a_damaged_header_never_escapes_as_another_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int
) -> None:
    data = bytearray(gguf(64))
    data[at % len(data)] = value
    path = put(tmp_path_factory.getbasetemp(), bytes(data))
    with contextlib.suppress(ModelCorrupt):
        inspect(path)


def test_the_echo_format(echo_path: Path) -> None:
    assert inspect(echo_path).format == "echo"


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelNotInstalled):
        inspect(tmp_path / "missing")
    with pytest.raises(ModelCorrupt):
        inspect(tmp_path)
    with pytest.raises(ModelCorrupt):
        inspect(Path("/dev/null"))
    with pytest.raises(ModelCorrupt):
        inspect(Path("a\0b"))


def test_split_names() -> None:
    assert split_names("m.gguf") == ("m.gguf",)
    assert split_names("m-00002-of-00002.gguf") == ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf")
    assert split_names("m-00002-of-00000.gguf") == ("m-00002-of-00000.gguf",)
