"""Tell the format of a model file by its content; names prove nothing.

What is a program in disguise is refused with the reason: native code, which only `compiled` lets in, and pickle, which
nothing here ever reads.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from ondevice_sdk.catalogue import gguf, lora
from ondevice_sdk.errors import ModelCorrupt, ModelNotInstalled
from ondevice_sdk.store.files import store_errors

_MAX_JSON = 1 << 20
_ECHO_KEY = "ondevice-echo"
_PICKLE = "pickle, which is a program and is never loaded here"
_SAFETENSORS = "safetensors: weights without the rest of a model"
_CODE_MAGIC = {
    b"\x7fELF": "a compiled library (ELF)",
    b"MZ": "a compiled library (PE)",
    **dict.fromkeys(
        (b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe"),
        "a compiled library (Mach-O)",
    ),
    b"!<arch>\n": "a compiled library (archive)",
    b"BC\xc0\xde": "compiled code (LLVM)",
    b"\0asm": "compiled code (WebAssembly)",
    b"#!": "a script",
}
_CODE_NAME = re.compile(r".*\.(so(\.[\d.]+)?|dll|dylib|pyd|exe|a|lib|o)", re.IGNORECASE)
_PICKLE_NAME = re.compile(r".*\.(pt|pth|pkl|pickle|ckpt|joblib|npy|npz|bin|mar)", re.IGNORECASE)
_PICKLE_START = 1 << 16  # bytes
# One file in 16,000 of random bytes begins like pickle; of those, 86 of 20,000 went on like it for so many operations.
_PICKLE_OPERATIONS = 8
_ZIP_TAIL = 1 << 20  # bytes at the end of an archive, where its table of contents lies
_SPLIT = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


@dataclass(frozen=True, slots=True)
class Inspected:
    """A whole, plausible model file.

    `precision` is `int4`, `int8`, `f16`, `bf16`, `f32` or `other`, of an adapter `lora`.
    """

    format: str
    precision: str


def inspect(path: Path) -> Inspected:
    """Read the head of a model file.

    Raises:
        ModelNotInstalled: there is no such file.
        ModelCorrupt: it is no file, of no known format, not whole, or a program.
        ModelUnsupported: an adapter of an unusual kind.
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
            header = gguf.read_header(path)
            if lora.is_adapter(header):
                lora.read(path)
                return Inspected(lora.FORMAT, lora.VARIANT)
            return Inspected("gguf", header.precision)
        if head.lstrip().startswith(b"{"):
            return _inspect_echo(path)
        reason = code_kind(head) or _pickle_kind(head, path) or _kind_by_name(path.name)
    if reason is not None:
        raise forbidden(path.name, reason)
    from ondevice_sdk.backends import registry  # slow to import, and seldom needed

    if (announced := registry.format_of(head)) is not None:
        return Inspected(announced, "other")
    raise ModelCorrupt(f"{path.name} is of no known model format", expected="GGUF", actual=head[:4].hex() or "empty")


def code_kind(head: bytes) -> str | None:
    """What kind of native code begins with these bytes; None if it is none."""
    return next((kind for magic, kind in _CODE_MAGIC.items() if head.startswith(magic)), None)


def is_code(path: Path, *, raw: bool = False) -> bool:
    """Whether a file holds native code. OSError: it cannot be read.

    With `raw`, of a file of numbers: any two bytes may begin one, so that two alone are no sign of a program.
    """
    with path.open("rb") as file:
        head = file.read(64)
        if raw and head.startswith(b"MZ"):
            file.seek(int.from_bytes(head[60:64], "little"))
            return file.read(4) == b"PE\0\0"
    if raw and head.startswith(b"#!"):
        return re.match(rb"#! ?/[\x20-\x7e]{3}", head) is not None
    return code_kind(head) is not None


def is_code_name(name: str) -> bool:
    """Whether a file of this name would be taken for native code, whatever it holds."""
    return _CODE_NAME.fullmatch(name) is not None


def refuse_name(name: str) -> None:
    """Refuse, before it is downloaded, what by its name can only be refused afterwards.

    Raises:
        ModelCorrupt: native code, or pickle.
    """
    if (kind := _kind_by_name(name)) is not None:
        raise forbidden(name, kind)


def forbidden(name: str, kind: str) -> ModelCorrupt:
    """The error for what is no model but a program, or no whole model."""
    code = "compiled" in kind or "script" in kind
    hint = "only what this installation built or pinned is ever loaded" if code else "take the model as a GGUF file"
    return ModelCorrupt(f"{name} is {kind}", expected="GGUF", actual=kind, hint=hint)


def refuse_pickle(path: Path, *, raw: bool = False) -> None:
    """Refuse a file that is pickle, or holds some; with `raw`, of a file of numbers, what can be read as such.

    Raises:
        ModelCorrupt: it is. OSError: it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(_PICKLE_START)
    kind = _pickle_kind(start[:64], path)
    if kind is None or kind == _SAFETENSORS or (raw and start[0] == 0x80 and not _reads_as_pickle(start)):
        return
    raise forbidden(path.name, kind)


def _reads_as_pickle(start: bytes) -> bool:
    """Whether bytes that begin like pickle go on like it: its end, or some operations, come before what is none."""
    import pickletools  # looks at operations, runs none

    count = 0
    with contextlib.suppress(Exception):  # an argument that is cut, or is none, may raise anything
        for operation, _, _ in pickletools.genops(io.BytesIO(start)):
            count += 1
            if operation.name == "STOP":
                return True
    return count >= _PICKLE_OPERATIONS


def _pickle_kind(head: bytes, path: Path) -> str | None:
    if len(head) > 1 and head[0] == 0x80 and head[1] <= 5:  # protocols 2 to 5
        return _PICKLE
    if head.startswith(b"\x93NUMPY"):
        return "a NumPy array, which may hold pickle"
    if head.startswith(b"PK"):
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _ZIP_TAIL))
            return _PICKLE if re.search(rb"\.(pkl|npy)", file.read()) else None
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return _SAFETENSORS
    return None


def _kind_by_name(name: str) -> str | None:
    if is_code_name(name):
        return "a compiled library by its name"
    if name.lower().endswith(".safetensors"):
        return _SAFETENSORS
    return f"{_PICKLE} (by its name)" if _PICKLE_NAME.fullmatch(name) else None


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
