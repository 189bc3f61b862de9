"""Files of safetensors that lie, and folders that were bent by chance: one of the SDK's errors, or a whole file."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from ondevice_sdk.catalogue.gguf import read_header
from ondevice_sdk.errors import ModelCorrupt, ModelUnsupported
from ondevice_sdk.quantise.hugging_face import safetensors

from . import toys

GOOD = {"a": {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}}


def file(path: Path, table: object, data: int = 12, *, length: int | None = None) -> Path:
    head = table if isinstance(table, bytes) else json.dumps(table).encode()
    path.write_bytes((len(head) if length is None else length).to_bytes(8, "little") + head + bytes(data))
    return path


def test_a_good_one(tmp_path: Path) -> None:
    path = file(tmp_path / "a.safetensors", {"__metadata__": {"x": "y"}, **GOOD})
    (found,) = safetensors.read_header(path).values()
    assert (found.form, found.shape, found.start) == ("F16", (2, 3), path.stat().st_size - 12)
    assert safetensors.read_header(file(path, {}, 0)) == {}


def entry(**changes: Any) -> dict[str, Any]:
    return {"a": {**GOOD["a"], **changes}}


LIES: dict[str, object] = {
    "no JSON": b"{" * 12,
    "a list": b"[]",
    "not UTF-8": b'{"a\xff": 1}',
    "deep": b"[" * 50_000,
    "a huge number": b'{"a": ' + b"9" * 5000 + b"}",
    "twice": b'{"a": %s, "a": %s}' % ((json.dumps(GOOD["a"]).encode(),) * 2),
    "no table": {"a": 5},
    "nothing said": {"a": {}},
    "a gap before": entry(data_offsets=[2, 14]),
    "a gap between": {**GOOD, "b": {"dtype": "U8", "shape": [1], "data_offsets": [13, 14]}},
    "overlap": {**GOOD, "b": {"dtype": "U8", "shape": [1], "data_offsets": [11, 12]}},
    "the same bytes": {**GOOD, "b": GOOD["a"]},
    "before the begin": entry(data_offsets=[-12, 0]),
    "backwards": entry(data_offsets=[12, 0]),
    "beyond": entry(shape=[2, 3000], data_offsets=[0, 12000]),
    "too short": entry(shape=[2, 2], data_offsets=[0, 8]),
    "too long": entry(data_offsets=[0, 14]),
    "one offset": entry(data_offsets=[0]),
    "three offsets": entry(data_offsets=[0, 12, 12]),
    "offsets of text": entry(data_offsets=["0", "12"]),
    "offsets of reals": entry(data_offsets=[0.0, 12.0]),
    "offsets of truth": entry(data_offsets=[False, 12]),
    "huge offsets": entry(data_offsets=[1 << 62, (1 << 62) + 12]),
    "a negative shape": entry(shape=[-2, -3]),
    "a shape of text": entry(shape="23"),
    "a shape of reals": entry(shape=[2.0, 3]),
    "a huge shape": entry(shape=[1 << 61, 1 << 61, 0], data_offsets=[0, 0]),
    "many dimensions": entry(shape=[1] * 9 + [6]),
    "a number for a type": entry(dtype=16),
    "no shape": {"a": {"dtype": "F16", "data_offsets": [0, 12]}},
}


@pytest.mark.parametrize("case", LIES)
def test_a_table_of_contents_that_lies(tmp_path: Path, case: str) -> None:
    path = file(tmp_path / "a.safetensors", LIES[case])
    with pytest.raises(ModelCorrupt):
        safetensors.read_header(path)


@pytest.mark.parametrize("length", [0, 1, 2, 100, 100_000_001, 1 << 62, (1 << 64) - 1])
def test_impossible_lengths_of_the_table(tmp_path: Path, length: int) -> None:
    with pytest.raises(ModelCorrupt):
        safetensors.read_header(file(tmp_path / "a.safetensors", GOOD, length=length))


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\2\0\0\0\0\0\0\0", b"\2\0\0\0\0\0\0\0{", b"\x80\x02cos\nsystem\n(S'x'\ntR."]
)
def test_short_files_and_pickle(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(ModelCorrupt):
        safetensors.read_header(tmp_path / "a.safetensors")


def index(tmp_path: Path, places: object) -> dict[str, Path]:
    """A folder's files with an index; a file that must not be read lies outside."""
    folder = tmp_path / "model"
    folder.mkdir(exist_ok=True)
    file(tmp_path / "outside.safetensors", {"b": GOOD["a"]})
    file(folder / "one.safetensors", GOOD)
    file(folder / "two.safetensors", {"b": GOOD["a"]})
    file(folder / "again.safetensors", GOOD)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    toys.dump(folder / safetensors.INDEX, {"weight_map": places})
    return {path.name: path for path in folder.iterdir()}


def test_an_index(tmp_path: Path) -> None:
    assert set(safetensors.read(index(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"}))) == {"a", "b"}


@pytest.mark.parametrize(
    "places",
    [
        None,
        [],
        {},
        {"a": 5},
        {"a": ["one.safetensors"]},
        {"a": "one.safetensors", "b": "../outside.safetensors"},
        {"a": "one.safetensors", "b": "/outside.safetensors"},
        {"a": "one.safetensors", "b": "./two.safetensors"},
        {"a": "one.safetensors", "b": "..\\outside.safetensors"},
        {"a": "one.safetensors", "b": "model/two.safetensors"},
        {"a": "one.safetensors", "b": "two.safetensors\0"},
        {"a": "one.safetensors", "b": "pytorch_model.bin"},
        {"a": "one.safetensors", "b": "model.safetensors.index.json"},
        {"a": "one.safetensors", "b": "missing.safetensors"},
        {"a": "one.safetensors", "b": "one.safetensors"},
        {"a": "two.safetensors", "b": "one.safetensors"},
        {"a": "one.safetensors", "c": "two.safetensors"},
        {"b": "two.safetensors", "a": "one.safetensors", "c": "again.safetensors"},
        {"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors"},
    ],
)
def test_an_index_that_lies(tmp_path: Path, places: object) -> None:
    files = index(tmp_path, places)
    with pytest.raises(ModelCorrupt):
        safetensors.read(files)


def test_no_index_and_no_whole_file(tmp_path: Path) -> None:
    files = index(tmp_path, {})
    del files[safetensors.INDEX]
    with pytest.raises(ModelCorrupt, match=r"model\.safetensors"):
        safetensors.read(files)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_bent_by_chance(tmp_path: Path, name: str) -> None:
    """Bytes flipped, cut out or put in: an error that says so, or a file that our own checks take."""
    folder = toys.folder(tmp_path / "model")
    good = (folder / name).read_bytes()
    chance = random.Random(7)
    taken = 0
    for _ in range(60):
        data = bytearray(good)
        head = min(len(data), 8 + int.from_bytes(data[:8], "little")) if name == "model.safetensors" else len(data)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(head)
            match chance.randrange(3):
                case 0:
                    data[at] ^= 1 << chance.randrange(8)
                case 1:
                    del data[at : at + chance.randint(1, 9)]
                case 2:
                    data[at:at] = chance.choice([b"-", b"9", b'"', b"[", b"}", b"null", b"1e999", b"\\ud800"])
        (folder / name).write_bytes(data)
        target = tmp_path / "made.gguf"
        target.unlink(missing_ok=True)
        try:
            toys.convert(folder, target)
        except (ModelCorrupt, ModelUnsupported):
            continue
        read_header(target)
        taken += 1
    assert taken < 40  # most damage is noticed; what is left is, say, a letter of the template
