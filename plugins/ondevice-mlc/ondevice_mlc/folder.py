"""A model folder in MLC's format, read and checked before anything of it is used.

`mlc-chat-config.json` describes the model, `tensor-cache.json` where in the files `params_shard_*.bin` each weight
lies, `tokenizer.json` the vocabulary; a shared library holds the compiled model. The format is that of
`mlc_llm convert_weight`, `gen_config` and `compile`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ondevice_sdk.backends.api import LocalModel
from ondevice_sdk.errors import LoadFailed, ModelCorrupt, OnDeviceError

CONFIG: Final = "mlc-chat-config.json"
TENSORS: Final = ("tensor-cache.json", "ndarray-cache.json")  # the second is what MLC called it before 2025
TOKENIZER: Final = "tokenizer.json"
TOKENIZER_CONFIG: Final = "tokenizer_config.json"
LIBRARY_ENDINGS: Final = (".so", ".dylib", ".dll")
OURS: Final = "ondevice"  # key of the configuration under which the compiler of this package says what it made
# Bytes of one value, by the name of its type in the records.
ITEM_BYTES: Final = {
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "uint32": 4,
    "int32": 4,
    "uint16": 2,
    "int16": 2,
    "uint8": 1,
    "int8": 1,
}
_MOST_JSON: Final = 1 << 26  # bytes: a vocabulary of 256,000 words with its merges has 35 MB


@dataclass(frozen=True, slots=True)
class Record:
    """Where a tensor lies in its shard. `halved`: 32-bit floats are stored as bfloat16, their upper 16 bits."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    halved: bool
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Shard:
    """A file of weights."""

    path: Path
    size: int
    md5: str | None
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Folder:
    """A model folder that is whole: every file that it names is there and has the size it should have."""

    config: Mapping[str, Any]
    shards: tuple[Shard, ...]
    files: Mapping[str, Path]  # by name
    library: Path

    @property
    def made(self) -> Mapping[str, Any]:
        """What the compiler of this package wrote down; empty for a folder that is not its work."""
        value = self.config.get(OURS)
        return value if isinstance(value, dict) else {}

    def records(self) -> dict[str, Record]:
        """All tensors by name."""
        return {record.name: record for shard in self.shards for record in shard.records}


def read(model: LocalModel) -> Folder:
    """Read the folder that a model lies in.

    Raises:
        LoadFailed: its first file cannot be read. ModelCorrupt: a file is missing, or is not what it should be.
    """
    first = Path(model.path)
    config = _json(first, LoadFailed(f"there is no readable {first.name}"))
    files = {Path(name).name: Path(name) for name in model.files} or _neighbours(first)
    names = [name for name in TENSORS if name in files]
    if not names:
        raise ModelCorrupt(f"the folder has no {TENSORS[0]}")
    shards = _shards(files[names[0]], files)
    if TOKENIZER not in files:
        raise ModelCorrupt(f"the folder has no {TOKENIZER}")
    return Folder(config, shards, files, _library(files))


def text(values: Mapping[str, Any], key: str, default: str = "") -> str:
    """A string of a configuration.

    Raises:
        ModelCorrupt: it is something else.
    """
    value = values.get(key, default)
    if not isinstance(value, str):
        raise ModelCorrupt(f"{key!r} of the model's configuration is not a string")
    return value


def number(values: Mapping[str, Any], key: str, default: int | None = None, *, least: int = 1) -> int:
    """An integer of a configuration.

    Raises:
        ModelCorrupt: it is missing, something else, or too small.
    """
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 1 << 31:
        raise ModelCorrupt(f"{key!r} of the model's configuration is not a number from {least} on")
    return value


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a file of the folder.

    Raises:
        ModelCorrupt: it is none.
    """
    return _json(path, ModelCorrupt(f"{path.name} cannot be read"))


def _json(path: Path, unreadable: OnDeviceError) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_JSON + 1)
    except OSError as error:
        raise unreadable from error
    if len(data) > _MOST_JSON:
        raise ModelCorrupt(f"{path.name} is too large", expected=f"at most {_MOST_JSON} bytes")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelCorrupt(f"{path.name} is not JSON", expected="JSON") from error
    if not isinstance(value, dict):
        raise ModelCorrupt(f"{path.name} holds no JSON object", expected="a JSON object")
    return value


def _neighbours(first: Path) -> dict[str, Path]:
    try:
        return {path.name: path for path in first.parent.iterdir() if path.is_file()}
    except OSError as error:
        raise LoadFailed(f"the folder of {first.name} cannot be read: {error.strerror}") from error


def _library(files: Mapping[str, Path]) -> Path:
    found = [path for name, path in files.items() if name.lower().endswith(LIBRARY_ENDINGS)]
    if len(found) != 1:
        hint = "compile it: ondevice mlc compile MODEL" if not found else None
        raise ModelCorrupt(f"the folder has {len(found)} compiled libraries, and not one", hint=hint)
    return found[0]


def _shards(path: Path, files: Mapping[str, Path]) -> tuple[Shard, ...]:
    listed = read_json(path).get("records")
    if not isinstance(listed, list):
        raise ModelCorrupt(f"{path.name} lists no shards")
    shards: list[Shard] = []
    names: set[str] = set()
    for entry in listed:
        try:
            shard = _shard(entry, files)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelCorrupt(f"{path.name} describes a shard in an unknown way") from error
        for record in shard.records:
            if record.name in names:
                raise ModelCorrupt(f"{path.name} lists a tensor twice")
            names.add(record.name)
        shards.append(shard)
    return tuple(shards)


def _shard(entry: Mapping[str, Any], files: Mapping[str, Path]) -> Shard:
    name, size, md5 = entry["dataPath"], entry["nbytes"], entry.get("md5sum")
    if entry["format"] != "raw-shard" or not isinstance(name, str) or not (md5 is None or isinstance(md5, str)):
        raise ValueError
    if name not in files:
        raise ModelCorrupt("a file of weights is missing from the folder", expected=name[:80])
    try:
        actual = files[name].stat().st_size
    except OSError as error:
        raise ModelCorrupt("a file of weights cannot be read", expected=name[:80]) from error
    if actual != size:
        raise ModelCorrupt("a file of weights has a wrong size", expected=f"{size} bytes", actual=f"{actual} bytes")
    return Shard(files[name], actual, md5, tuple(_record(each, actual) for each in entry["records"]))


def _record(entry: Mapping[str, Any], room: int) -> Record:
    name, shape, dtype, encoding = entry["name"], entry["shape"], entry["dtype"], entry["format"]
    offset, size = entry["byteOffset"], entry["nbytes"]
    if not isinstance(name, str) or not all(isinstance(each, int) and each >= 0 for each in (*shape, offset, size)):
        raise ValueError
    if encoding not in ("raw", "f32-to-bf16"):
        raise ValueError
    halved = encoding == "f32-to-bf16" and dtype == "float32"
    if size != math.prod(shape) * (2 if halved else ITEM_BYTES[dtype]) or offset + size > room:
        raise ModelCorrupt("a tensor does not lie within its file of weights")
    return Record(name, tuple(shape), dtype, halved, offset, size)
