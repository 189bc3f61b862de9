"""Where the tensors lie in files of safetensors: each header is checked in full before a number is read.

Source of the layout: https://github.com/huggingface/safetensors#format (8 bytes of length, a JSON table, the numbers).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ondevice_sdk.errors import ModelCorrupt, ModelUnsupported

INDEX: Final = "model.safetensors.index.json"
WHOLE: Final = "model.safetensors"
_MOST_HEADER: Final = 100_000_000  # bytes, the format's own limit
_MOST_INDEX: Final = 1 << 27  # bytes
_MOST_DIMENSIONS: Final = 8
_WIDTHS: Final = {  # bytes of a number
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file: `start` counts bytes from the begin of the file, `form` is the format's word for its type."""

    path: Path
    start: int
    form: str
    shape: tuple[int, ...]


def read(files: Mapping[str, Path]) -> dict[str, Stored]:
    """The tensors of a model, which may lie in several files.

    Args:
        files: those of the folder by name; an index may name no other.

    Raises:
        ModelCorrupt: a file is missing or damaged, or a tensor is not where the index says. ModelUnsupported: numbers
            of a type that is not known. OSError: a file cannot be read.
    """
    if INDEX in files:
        return _indexed(files)
    if WHOLE not in files:
        raise ModelCorrupt(f"the folder has neither {WHOLE} nor {INDEX}", expected=WHOLE)
    return read_header(files[WHOLE])


def _indexed(files: Mapping[str, Path]) -> dict[str, Stored]:
    placed = load_object(files[INDEX], _MOST_INDEX).get("weight_map")
    if not isinstance(placed, dict) or not placed or not all(isinstance(name, str) for name in placed.values()):
        raise ModelCorrupt(f"{INDEX} is damaged", expected="a table of tensors and files")
    found: dict[str, Stored] = {}
    where: dict[str, str] = {}
    for name in dict.fromkeys(placed.values()):
        if name not in files or not name.endswith(".safetensors"):
            raise ModelCorrupt(f"{INDEX} names a file that is not in the folder: {name[:80]!r}", expected=name[:80])
        for tensor, stored in read_header(files[name]).items():
            if tensor in found:
                raise ModelCorrupt(f"a tensor lies in two files: {tensor[:80]!r}")
            found[tensor], where[tensor] = stored, name
    if where != placed:
        wrong = next(tensor for tensor in [*placed, *where] if placed.get(tensor) != where.get(tensor))
        raise ModelCorrupt(f"a tensor is not where {INDEX} says: {wrong[:80]!r}")
    return found


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors of one file; they fill it without a gap, as the format demands. Errors as `read`."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, _MOST_HEADER):
            raise ModelCorrupt(f"{path.name} is damaged or cut", expected="safetensors")
        table = _parse(file.read(length), path.name)
    table.pop("__metadata__", None)
    entries = sorted((_entry(path.name, name, value), name, value) for name, value in table.items())
    found: dict[str, Stored] = {}
    at = 0
    for (begin, end), name, value in entries:
        if begin != at:
            raise ModelCorrupt(f"{path.name}: two tensors overlap, or bytes lie between them")
        found[name] = Stored(path, 8 + length + begin, value["dtype"], tuple(value["shape"]))
        at = end
    if 8 + length + at != size:
        raise ModelCorrupt(
            f"{path.name} is cut or damaged", expected=f"{8 + length + at} bytes", actual=f"{size} bytes"
        )
    return found


def _entry(label: str, name: str, value: object) -> tuple[int, int]:
    """Begin and end of a tensor's bytes, checked against its type and shape."""
    try:
        if not isinstance(value, dict):
            raise TypeError
        form, shape, (begin, end) = value["dtype"], value["shape"], value["data_offsets"]
        if not isinstance(form, str) or len(shape) > _MOST_DIMENSIONS:
            raise TypeError
        if any(type(each) is not int or not 0 <= each < 1 << 62 for each in (*shape, begin, end)):
            raise TypeError
        if form not in _WIDTHS:
            raise ModelUnsupported(f"{label} holds numbers of the type {form[:20]!r}, which cannot be converted")
        if end - begin != math.prod(shape) * _WIDTHS[form]:
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise ModelCorrupt(f"{label}: the entry of {name[:80]!r} is impossible") from error
    return begin, end


def load_object(path: Path, most: int) -> dict[str, Any]:
    """The JSON object in a file of at most so many bytes.

    Raises:
        ModelCorrupt: there is none. OSError: it cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ModelCorrupt(f"{path.name} is impossibly large", expected=f"at most {most} bytes")
    return _parse(data, path.name)


def _parse(data: bytes, label: str) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise ValueError("a name comes twice")
        return made

    try:
        value = json.loads(data, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise ModelCorrupt(f"{label} is damaged", expected="a JSON object") from error
    if not isinstance(value, dict):
        raise ModelCorrupt(f"{label} is damaged", expected="a JSON object")
    return value
