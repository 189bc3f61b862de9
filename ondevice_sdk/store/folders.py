"""Models that are folders, told by what lies in them: compiled by MLC, OpenVINO's own format, weights as safetensors.

Of a folder only the files count that its format knows; anything else that lies there is left where it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondevice_sdk.errors import ModelCorrupt, ModelNotInstalled
from ondevice_sdk.store.files import is_file_name, store_errors

_MLC = "mlc-chat-config.json"
_TENSORS = ("tensor-cache.json", "ndarray-cache.json")  # the second is what MLC called it before 2025
_OPENVINO = "openvino_model.xml"
_SAFETENSORS = "config.json"
_LIBRARY = re.compile(r".+\.(so|dylib|dll)", re.IGNORECASE)
_PICKLE = re.compile(r"(pytorch_model|model|consolidated)\b.*\.(bin|pt|pth|ckpt)")
_SMALL = re.compile(r".+\.(json|txt|model|jinja)")  # configurations, vocabularies, chat templates
# Bytes. A vocabulary of 256,000 words with its merges has 35 MB, the graph of a model with 80 layers 20 MB.
_MOST_TEXT = 1 << 27
_MOST_HEADER = 100_000_000  # bytes, the limit of safetensors itself
_DATA = re.compile(r'element_type="([a-z0-9_]+)" shape="[0-9, ]*" offset="(\d{1,15})" size="(\d{1,15})"')
_INT4 = {"u4", "i4", "nf4", "f4e2m1"}
_INT8 = {"u8", "i8", "f8e4m3", "f8e5m2"}

FORMATS = frozenset({"mlc", "openvino", "safetensors"})


@dataclass(frozen=True, slots=True)
class Folder:
    """A whole, plausible model. `files` by name, that which a backend is given first before the others."""

    format: str
    precision: str  # `int4`, `int8` or `other`
    files: Mapping[str, Path]

    @property
    def variant(self) -> str:
        """What it is called where nobody says otherwise."""
        return f"{self.precision}-{self.format}"


def find(folder: Path) -> Folder:
    """The model in a folder.

    Raises:
        ModelNotInstalled: there is no such folder. ModelCorrupt: no model is in it, or it is not whole.
    """
    with store_errors("read a folder", folder):
        try:
            files = {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ModelNotInstalled(f"there is no model folder {folder}", model=str(folder)) from error
    return inspect({name: path for name, path in files.items() if is_file_name(name)}, folder.name)


def inspect(files: Mapping[str, Path], label: str) -> Folder:
    """The model that these files are, by their names and what is in them.

    Raises:
        ModelCorrupt: they are none, or it is not whole.
    """
    with store_errors("read a model", Path(label)):
        if _MLC in files:
            return _mlc(files)
        if _OPENVINO in files:
            return _openvino(files)
        if _SAFETENSORS in files and any(name.endswith(".safetensors") for name in files):
            return _safetensors(files)
    if _SAFETENSORS in files and any(map(_PICKLE.fullmatch, files)):
        hint = "take the model with its weights as safetensors, or as a GGUF file"
        raise ModelCorrupt(f"{label} has its weights as pickle, which is a program and is never loaded here", hint=hint)
    expected = f"{_MLC}, {_OPENVINO}, or {_SAFETENSORS} with safetensors"
    hint = "a model in one file is added by the path of that file"
    raise ModelCorrupt(f"{label} is no model folder", expected=expected, hint=hint)


def is_raw(form: str, name: str) -> bool:
    """Whether a file holds nothing but numbers, as the format has it: its first bytes may be any, and mean nothing."""
    return form in FORMATS and name.endswith((".bin", ".safetensors"))


def _mlc(files: Mapping[str, Path]) -> Folder:
    named = _object(files[_MLC]).get("quantization")
    bits = re.match(r"q(\d+)", named) if isinstance(named, str) else None
    cache = next((name for name in _TENSORS if name in files), None)
    if cache is None:
        raise _incomplete(_TENSORS[0])
    shards = _object(files[cache]).get("records")
    if not isinstance(shards, list) or not shards:
        raise ModelCorrupt(f"{cache} names no files of weights")
    kept = [_MLC, cache]
    for shard in shards:
        name, size = (shard.get("dataPath"), shard.get("nbytes")) if isinstance(shard, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(size, int):
            raise ModelCorrupt(f"{cache} is damaged")
        _require(files, name, size, exactly=True)
        kept.append(name)
    kept += [name for name in files if _LIBRARY.fullmatch(name)]
    precision = {"4": "int4", "8": "int8"}.get(bits[1], "other") if bits else "other"
    return _folder("mlc", precision, files, kept)


def _openvino(files: Mapping[str, Path]) -> Folder:
    kept, precision = [_OPENVINO], "other"
    for name in sorted(each for each in files if each.endswith(".xml")):
        weights = f"{name.removesuffix('.xml')}.bin"
        graph = _text(files[name])
        if not re.search(r"<net\b", graph[:1000]):
            raise ModelCorrupt(f"{name} is no OpenVINO model", expected="an XML graph")
        sizes: dict[str, int] = {}
        end = 0
        for kind, offset, size in _DATA.findall(graph):
            sizes[kind] = sizes.get(kind, 0) + int(size)
            end = max(end, int(offset) + int(size))
        if weights in files or end:  # a graph may have no constants
            _require(files, weights, end, exactly=False)
            kept += [name, weights]
        else:
            kept.append(name)
        if name == _OPENVINO:
            most = max(sizes, key=lambda kind: sizes[kind], default="")
            precision = "int4" if most in _INT4 else "int8" if most in _INT8 else "other"
    return _folder("openvino", precision, files, kept)


def _safetensors(files: Mapping[str, Path]) -> Folder:
    _object(files[_SAFETENSORS])
    kept = [_SAFETENSORS]
    index = files.get("model.safetensors.index.json")
    placed = _object(index).get("weight_map") if index is not None else None
    names = sorted(set(map(str, placed.values()))) if isinstance(placed, dict) else []
    for name in names or sorted(each for each in files if each.endswith(".safetensors")):
        if name not in files:
            raise _incomplete(name)
        _require(files, name, _safetensors_size(files[name]), exactly=True)
        kept.append(name)
    return _folder("safetensors", "other", files, kept)


def _safetensors_size(path: Path) -> int:
    """Bytes that the file should have, by its header."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        data = file.read(length) if length <= _MOST_HEADER else b""
    try:
        header = json.loads(data)
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, RecursionError, AttributeError, LookupError, TypeError):
        ends = [None]
    if len(data) != length or not all(type(end) is int for end in ends):
        raise ModelCorrupt(f"{path.name} is damaged", expected="safetensors")
    return 8 + length + max(ends, default=0)


def _folder(form: str, precision: str, files: Mapping[str, Path], kept: list[str]) -> Folder:
    rest = [name for name in files if _SMALL.fullmatch(name) and files[name].stat().st_size <= _MOST_TEXT]
    return Folder(form, precision, {name: files[name] for name in dict.fromkeys([*kept, *rest])})


def _require(files: Mapping[str, Path], name: str, size: int, *, exactly: bool) -> None:
    if name not in files:
        raise _incomplete(name)
    actual = files[name].stat().st_size
    if actual < size or (exactly and actual != size):
        raise ModelCorrupt(f"{name[:80]} is cut or damaged", expected=f"{size} bytes", actual=f"{actual} bytes")


def _incomplete(name: str) -> ModelCorrupt:
    return ModelCorrupt(f"the model folder has no {name[:80]!r}", expected=name[:80], hint="copy the folder again")


def _text(path: Path) -> str:
    if path.stat().st_size > _MOST_TEXT:
        raise ModelCorrupt(f"{path.name} is too large", expected=f"at most {_MOST_TEXT} bytes")
    return path.read_bytes().decode("utf-8", "replace")


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text(path))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ModelCorrupt(f"{path.name} is damaged", expected="a JSON object")
    return value
