"""Calls into the kernel that Python has no words for. Sources: syscall(2), prctl(2)."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from typing import Final, NamedTuple

PR_GET_DUMPABLE: Final = 3
PR_SET_DUMPABLE: Final = 4
PR_GET_SECCOMP: Final = 21
PR_SET_SECCOMP: Final = 22
PR_CAPBSET_DROP: Final = 24
PR_SET_MM: Final = 35
PR_SET_NO_NEW_PRIVS: Final = 38
PR_GET_NO_NEW_PRIVS: Final = 39
PR_CAP_AMBIENT: Final = 47
PR_SCHED_CORE: Final = 62
PR_SET_PTRACER: Final = 0x59616D61


class Machine(NamedTuple):
    """What distinguishes a machine for the filter."""

    arch: int  # AUDIT_ARCH_*, from linux/audit.h
    column: int  # in the tables of `calls`


MACHINES: Final[dict[str, Machine]] = {"x86_64": Machine(0xC000003E, 0), "aarch64": Machine(0xC00000B7, 1)}

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _require() -> ctypes.CDLL:
    if _libc is None:
        raise OSError(errno.ENOSYS, "not Linux")
    return _libc


def machine() -> str | None:
    """This process's machine, if it is known; a 32-bit process on a 64-bit kernel is another machine."""
    name = os.uname().machine
    return name if name in MACHINES and sys.maxsize > 2**32 else None


def call(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char]) -> int:
    """Make a system call by its number.

    Raises:
        OSError: what the kernel answered.
    """
    libc = _require()
    words = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    ctypes.set_errno(0)
    result: int = libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def prctl(option: int, *values: int) -> int:
    """Change or ask a property of this process.

    Raises:
        OSError: what the kernel answered.
    """
    libc = _require()
    words = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    ctypes.set_errno(0)
    result: int = libc.prctl(ctypes.c_int(option), *words)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def unshare(flags: int) -> None:
    """Leave namespaces.

    Raises:
        OSError: what the kernel answered.
    """
    libc = _require()
    if libc.unshare(ctypes.c_int(flags)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
