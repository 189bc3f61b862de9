"""A folder is checked before anything of it is used."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ondevice_mlc import folder, runtime, weights
from ondevice_mlc.features import missing_features, present
from ondevice_sdk.backends.api import LocalModel
from ondevice_sdk.errors import LoadFailed, ModelCorrupt, ModelUnsupported

WANTED = [
    {"name": "a", "shape": [2, 3], "dtype": "float32"},
    {"name": "b", "shape": [4], "dtype": "uint32"},
    {"name": "c", "shape": [2], "dtype": "float32"},
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A small folder: a tensor in halves, one as it is, one in bfloat16."""
    halves = (np.arange(6, dtype=np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    words = np.arange(4, dtype=np.uint32).tobytes()
    narrow = (np.array([1.5, -2], np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    data = halves + words + narrow
    records = [
        record("a", [2, 3], "float32", "f32-to-bf16", 0, 12),
        record("b", [4], "uint32", "raw", 12, 16),
        record("c", [2], "bfloat16", "raw", 28, 4),
    ]
    (tmp_path / "params_shard_0.bin").write_bytes(data)
    shard = {"dataPath": "params_shard_0.bin", "format": "raw-shard", "nbytes": len(data), "records": records}
    write(tmp_path / "tensor-cache.json", {"records": [{**shard, "md5sum": hashlib.md5(data).hexdigest()}]})
    write(tmp_path / "mlc-chat-config.json", {"model_type": "llama"})
    write(tmp_path / "tokenizer.json", {})
    (tmp_path / "model.so").write_bytes(b"\x7fELF")
    return tmp_path


def record(name: str, shape: list[int], dtype: str, encoding: str, offset: int, size: int) -> dict[str, Any]:
    return {"name": name, "shape": shape, "dtype": dtype, "format": encoding, "byteOffset": offset, "nbytes": size}


def write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def read(path: Path) -> folder.Folder:
    return folder.read(LocalModel("m", "int4", "mlc", str(path / "mlc-chat-config.json"), ""))


def load(path: Path, wanted: list[dict[str, Any]] = WANTED) -> list[Any]:
    runtime.start()
    return weights.load(read(path), wanted, lambda share: None)


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads((path / "tensor-cache.json").read_text())
    edit(value["records"][0])
    write(path / "tensor-cache.json", value)


def test_all_encodings(path: Path) -> None:
    a, b, c = (np.from_dlpack(each) for each in load(path))
    assert a.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert b.tolist() == [0, 1, 2, 3]
    assert c.tolist() == [1.5, -2]


def test_values_that_lie_well_are_not_copied(path: Path) -> None:
    values = np.arange(32, dtype=np.uint32)
    (path / "params_shard_0.bin").write_bytes(bytes(64) + values.tobytes())
    change(path, lambda shard: shard.update(nbytes=192, records=[record("b", [32], "uint32", "raw", 64, 128)]))
    change(path, lambda shard: shard.pop("md5sum"))
    (found,) = load(path, [{"name": "b", "shape": [32], "dtype": "uint32"}])
    array = np.from_dlpack(found)
    assert array.ctypes.data % 4096 == 64
    assert array.tolist() == values.tolist()


def test_files_by_their_names_wherever_they_lie(path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.move(path / "tokenizer.json", elsewhere / "tokenizer.json")
    with pytest.raises(ModelCorrupt):
        read(path)
    files = tuple(map(str, [*path.iterdir(), elsewhere / "tokenizer.json"]))
    found = folder.read(LocalModel("m", "int4", "mlc", str(path / "mlc-chat-config.json"), "", files))
    assert found.files["tokenizer.json"].parent == elsewhere


@pytest.mark.parametrize("name", ["mlc-chat-config.json", "tensor-cache.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\x00\xff", b"[" * 100_000])
def test_wrong_json(path: Path, name: str, content: bytes) -> None:
    (path / name).write_bytes(content)
    with pytest.raises(ModelCorrupt):
        read(path)


@pytest.mark.parametrize("name", ["tensor-cache.json", "params_shard_0.bin", "tokenizer.json", "model.so"])
def test_missing_file(path: Path, name: str) -> None:
    (path / name).unlink()
    with pytest.raises(ModelCorrupt):
        read(path)


def test_missing_configuration(path: Path) -> None:
    (path / "mlc-chat-config.json").unlink()
    with pytest.raises(LoadFailed):
        read(path)


def test_two_libraries(path: Path) -> None:
    (path / "other.so").write_bytes(b"\x7fELF")
    with pytest.raises(ModelCorrupt):
        read(path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda shard: shard.update(nbytes=31),
        lambda shard: shard.update(nbytes="32"),
        lambda shard: shard.update(format="other"),
        lambda shard: shard.update(dataPath="../params_shard_0.bin"),
        lambda shard: shard.update(dataPath=3),
        lambda shard: shard.pop("records"),
        lambda shard: shard["records"].append("x"),
        lambda shard: shard["records"].append(shard["records"][0]),
        lambda shard: shard["records"][0].update(byteOffset=24),
        lambda shard: shard["records"][0].update(byteOffset=-4),
        lambda shard: shard["records"][0].update(shape=[2, 4]),
        lambda shard: shard["records"][0].update(shape=[2, 3.0]),
        lambda shard: shard["records"][0].update(shape=None),
        lambda shard: shard["records"][0].update(dtype="complex64"),
        lambda shard: shard["records"][0].update(format="zip"),
        lambda shard: shard["records"][1].update(nbytes=1 << 40),
    ],
)
def test_wrong_records(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    change(path, edit)
    with pytest.raises(ModelCorrupt):
        read(path)


def test_wrong_digest(path: Path) -> None:
    data = bytearray((path / "params_shard_0.bin").read_bytes())
    data[5] ^= 1
    (path / "params_shard_0.bin").write_bytes(data)
    with pytest.raises(ModelCorrupt, match="damaged"):
        load(path)


@pytest.mark.parametrize(
    "wanted",
    [
        {"name": "a", "shape": [3, 2], "dtype": "float32"},
        {"name": "a", "shape": [2, 3], "dtype": "float16"},
        {"name": "b", "shape": [4], "dtype": "float32"},
        {"name": "d", "shape": [4], "dtype": "float32"},
        {"name": "a"},
        "a",
    ],
)
def test_tensors_that_the_library_was_not_compiled_for(path: Path, wanted: Any) -> None:
    with pytest.raises(ModelCorrupt):
        load(path, [wanted])


TABLE = {"name": "model.embed_tokens.weight", "shape": [10, 64], "dtype": "float32"}
HEAD = {"name": "lm_head.weight", "shape": [10, 64], "dtype": "float32"}


def test_tokens_are_places_in_the_table_of_the_library() -> None:
    """A larger number of words, which only the folder's own configuration says, would let it read past the end."""
    assert weights.parameters({"params": [TABLE, HEAD]}, 10) == [TABLE, HEAD]
    named = [{**each, "shape": ["vocab_size", 64]} for each in (TABLE, HEAD)]
    assert weights.parameters({"params": named}, 10) == [TABLE, HEAD]
    for listed in ([TABLE, HEAD], [HEAD], []):
        with pytest.raises(ModelCorrupt, match="number of words"):
            weights.parameters({"params": listed}, 16_000_000)


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"params": None},
        {"params": "abc"},
        {"params": [3]},
        {"params": [{**TABLE, "shape": []}]},
        {"params": [{**TABLE, "shape": None}]},
        {"params": [{**TABLE, "name": 3}]},
    ],
)
def test_parameters_in_an_unknown_form(metadata: dict[str, Any]) -> None:
    with pytest.raises(ModelCorrupt, match="does not describe"):
        weights.parameters(metadata, 10)


# --- libraries --------------------------------------------------------------------------------------------------------


def elf(machine: int, content: bytes = b"__tvm_ffi__library_bin", table: int = 0) -> bytes:
    head = bytearray(b"\x7fELF\x02\x01\x01" + bytes(57))
    struct.pack_into("<HH", head, 16, 3, machine)
    struct.pack_into("<Q", head, 0x28, table)
    return bytes(head) + content


HERE = {"x86_64": 62, "aarch64": 183}.get(platform.machine(), 0)
linux = pytest.mark.skipif(sys.platform != "linux" or not HERE, reason="names this machine in ELF's way")


@linux
@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", ModelCorrupt),
        (b"#!/bin/sh", ModelCorrupt),
        (elf(183 if HERE == 62 else 62), ModelUnsupported),
        (elf(4711), ModelUnsupported),
        (b"\xcf\xfa\xed\xfe" + struct.pack("<I", 0x0100000C) + bytes(60), ModelUnsupported),
        (elf(HERE, b"__tvm_dev_mblob"), LoadFailed),
        (elf(HERE, b"some other library"), ModelCorrupt),
        (elf(HERE, table=1 << 20), ModelCorrupt),
        (elf(HERE), LoadFailed),
    ],
    ids=["empty", "script", "other cpu", "unknown cpu", "other system", "older tvm", "no tvm", "cut", "no content"],
)
def test_libraries_that_cannot_run_here(tmp_path: Path, content: bytes, error: type[Exception]) -> None:
    runtime.start()
    (tmp_path / "model.so").write_bytes(content)
    with pytest.raises(error):
        runtime.Library(tmp_path / "model.so", {})


def test_a_library_of_another_tvm(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=r"0\.20\.0"):
        runtime.Library(tmp_path / "model.so", {"tvm": "0.20.0"})


@pytest.mark.skipif(not present(), reason="the system does not tell the features of the processor")
def test_features_of_the_processor() -> None:
    some = sorted(present())[:3]
    assert missing_features({"features": some}) == []
    assert missing_features({"features": [*some, "+of-tomorrow"]}) == ["+of-tomorrow"]
    assert missing_features({}) == []
    with pytest.raises(ModelCorrupt):
        missing_features({"features": "sse"})
