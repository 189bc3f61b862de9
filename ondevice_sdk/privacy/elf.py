"""Which symbols a native library asks for: whether it even could open a connection or start a program.

A line of the report, never a guarantee: a library can make system calls without asking anybody. Source: elf(5).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final

TELLING: Final = frozenset(
    {"socket", "connect", "sendto", "sendmsg", "getaddrinfo", "gethostbyname", "res_query", "io_uring_setup"}
    | {"fork", "vfork", "system", "popen", "posix_spawn", "posix_spawnp"}
    | {"execl", "execle", "execlp", "execv", "execve", "execvp", "execvpe", "fexecve"}
)
_OF_PYTHON: Final = "/lib-dynload/"  # its own extension modules, which any code can load
_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_DYNSYM: Final = 11
_LARGEST_TABLE: Final = 64 << 20
_MOST_SECTIONS: Final = 10_000


def imports(path: str) -> frozenset[str]:
    """The symbols that a 64-bit little-endian library leaves to others.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such library.
    """
    with Path(path).open("rb") as file:
        return _imports(file)


def scan(paths: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Name of each library -> the telling symbols that it imports; files that are no libraries are left out."""
    found = {}
    for path in paths:
        try:
            found[Path(path).name] = tuple(sorted(imports(path) & TELLING))
        except (OSError, ValueError):
            continue
    return found


def mapped_libraries(pid: int, beneath: Iterable[str], proc: Path = Path("/proc")) -> tuple[str, ...] | None:
    """The libraries that a process has loaded from these folders; None where the kernel would not say."""
    try:
        lines = (proc / str(pid) / "maps").read_text().splitlines()
    except OSError:
        return None
    roots = tuple(f"{folder.rstrip('/')}/" for folder in beneath)
    paths = {line.split(maxsplit=5)[-1] for line in lines if "/" in line and _OF_PYTHON not in line}
    return tuple(sorted(path for path in paths if path.startswith(roots) and ".so" in Path(path).name))


def _imports(file: BinaryIO) -> frozenset[str]:
    try:
        header = _HEADER.unpack(file.read(_HEADER.size))
        if header[0][:6] != b"\x7fELF\x02\x01":
            raise ValueError("not a 64-bit little-endian ELF file")
        offset, size, count = header[6], header[11], header[12]
        if size != _SECTION.size or count > _MOST_SECTIONS:
            raise ValueError("odd section headers")
        file.seek(offset)
        sections = list(_SECTION.iter_unpack(file.read(size * count)))
        if len(sections) != count:
            raise ValueError("no section headers where they should be")
        names: set[str] = set()
        for section in sections:
            if section[1] == _DYNSYM:
                strings = _table(file, sections[section[6]])
                names.update(_undefined(_table(file, section), strings))
    except (struct.error, IndexError, OverflowError) as error:
        raise ValueError("a damaged ELF file") from error
    return frozenset(names)


def _table(file: BinaryIO, section: tuple[int, ...]) -> bytes:
    if section[5] > _LARGEST_TABLE:
        raise ValueError("an odd table")
    file.seek(section[4])
    table = file.read(section[5])
    if len(table) != section[5]:
        raise ValueError("a table ends early")
    return table


def _undefined(symbols: bytes, strings: bytes) -> Iterable[str]:
    for name, _, _, section, _, _ in _SYMBOL.iter_unpack(symbols):
        if section == 0 and name:
            yield strings[name : strings.index(b"\0", name)].decode("ascii", "replace")
