"""Tell the format of a model file by its content; names prove nothing."""

from __future__ import annotations

import json
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from ondevice_sdk.catalogue import gguf
from ondevice_sdk.errors import ModelCorrupt, ModelNotInstalled
from ondevice_sdk.store.files import store_errors

_MAX_JSON = 1 << 20
_ECHO_KEY = "ondevice-echo"
_SPLIT = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


@dataclass(frozen=True, slots=True)
class Inspected:
    """A whole, plausible model file. `precision` is `int4`, `int8` or `other`."""

    format: str
    precision: str


def inspect(path: Path) -> Inspected:
    """Read the head of a model file.

    Raises:
        ModelNotInstalled: there is no such file.
        ModelCorrupt: it is no file, of no known format, or not whole.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelNotInstalled(f"there is no model file {path}", model=str(path)) from error
    except (OSError, ValueError) as error:
        raise ModelCorrupt(f"{str(path)[:200]!r} cannot be looked at: {type(error).__name__}") from error
    if not stat.S_ISREG(mode):
        raise ModelCorrupt(f"{path} is a directory or a special file, not a model file", expected="GGUF")
    with store_errors("read a model file", path):
        with path.open("rb") as file:
            head = file.read(64)
        if head.startswith(gguf.MAGIC):
            return Inspected("gguf", gguf.read_header(path).precision)
        if head.lstrip().startswith(b"{"):
            return _inspect_echo(path)
    raise ModelCorrupt(f"{path.name} is of no known model format", expected="GGUF", actual=head[:4].hex() or "empty")


def _inspect_echo(path: Path) -> Inspected:
    """The test double's models are small JSON objects that say so."""
    if path.stat().st_size <= _MAX_JSON:
        try:
            value = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict) and _ECHO_KEY in value:
            return Inspected("echo", "other")
    raise ModelCorrupt(f"{path.name} is of no known model format", expected="GGUF", actual="JSON")


def split_names(name: str) -> tuple[str, ...]:
    """All names of the splits that a GGUF file belongs to, in order; the name alone if it is not split."""
    match = _SPLIT.fullmatch(name)
    if match is None:
        return (name,)
    count = int(match["count"])
    return tuple(f"{match['stem']}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)) or (name,)
