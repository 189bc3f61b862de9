"""Which files a worker can reach: some to read, its own directory to write, and TCP and signals to nobody.

Sources: landlock(7), linux/landlock.h. Path look-ups (stat) are not covered by any version of it.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from typing import Final

from . import calls, kernel

_VERSION: Final = 1  # flag: ask for the version
_PATH_BENEATH: Final = 1
_LATEST: Final = 7

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (1 << bit for bit in range(6))
_MAKE_CHAR, _MAKE_DIR, _MAKE_REG, _MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = (1 << bit for bit in range(6, 13))
_REFER, _TRUNCATE, _IOCTL_DEV = (1 << bit for bit in range(13, 16))
_SINCE: Final = {1: (1 << 13) - 1, 2: _REFER, 3: _TRUNCATE, 5: _IOCTL_DEV}

_READ: Final = _READ_FILE | _READ_DIR
_WRITE: Final = (
    _READ | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SYM | _REFER | _TRUNCATE
)
_KEEP: Final = _READ | _WRITE_FILE | _REMOVE_FILE | _MAKE_REG | _TRUNCATE  # plain files, no links, no directories
_OF_A_FILE: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV

# What Python, the C library and the runtime libraries look at while they run: shared libraries, time zones, the
# processors of this machine, the memory of this process. Nothing of a user.
SYSTEM: Final = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/nix/store",
    "/gnu/store",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/dev/zero",
    "/dev/urandom",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/self/maps",
    "/proc/self/status",
    "/proc/self/stat",
    "/proc/self/statm",
    "/proc/self/cgroup",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/sys/kernel/mm/transparent_hugepage",
)

NOWHERE: Final = ("/dev/null",)  # written to by libraries that silence themselves


def handled(abi: int) -> tuple[int, int, int]:
    """The rights over files, TCP and other processes that this version can take away."""
    files = sum(rights for since, rights in _SINCE.items() if since <= abi)
    return files, 0b11 if abi >= 4 else 0, 0b11 if abi >= 6 else 0


def version() -> int:
    """The version of this kernel, 0 where there is none."""
    try:
        return kernel.call(calls.LANDLOCK[0], 0, 0, _VERSION)
    except OSError:
        return 0


def restrict(read: Iterable[str], write: Iterable[str], keep: Iterable[str] = ()) -> int:
    """Take everything else from this thread and those it starts; give the version that was used.

    Paths that are not there, or that this process may not open, are left out.

    Args:
        read: files, and directories with all that is beneath.
        write: the same, also to be written to, and directories in which anything may be made but devices and pipes.
        keep: directories in which plain files may be read, made, written, renamed and removed.

    Raises:
        OSError: the kernel has none, or refused.
    """
    return _restrict(((read, _READ), (write, _WRITE), (keep, _KEEP)), taken=-1)


def write_only_to(write: Iterable[str]) -> int:
    """Take from this thread, and what it starts, the right to change other files; all may be read and run as before."""
    return _restrict(((write, _WRITE),), taken=~(_READ | _EXECUTE | _IOCTL_DEV))


def _restrict(allowed: Iterable[tuple[Iterable[str], int]], taken: int) -> int:
    """Take those of the rights over files that are in `taken`, and those over TCP and other processes."""
    abi = min(kernel.call(calls.LANDLOCK[0], 0, 0, _VERSION), _LATEST)
    files, tcp, scopes = handled(abi)
    files &= taken
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    attributes = ctypes.create_string_buffer(struct.pack("=QQQ", files, tcp, scopes)[:size], size)
    ruleset = kernel.call(calls.LANDLOCK[0], ctypes.addressof(attributes), size, 0)
    try:
        for paths, rights in allowed:
            for path in paths:
                _allow(ruleset, path, rights & files)
        kernel.call(calls.LANDLOCK[2], ruleset, 0)
    finally:
        os.close(ruleset)
    return abi


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            rights &= _OF_A_FILE
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, opened), 12)
        kernel.call(calls.LANDLOCK[1], ruleset, _PATH_BENEATH, ctypes.addressof(rule), 0)
    finally:
        os.close(opened)
