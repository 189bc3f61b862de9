"""The kernel's refusal of the network: a seccomp filter that a process puts on itself, for good.

Standard library only and nothing of this package: the worker loads this file by its path, before anything that was
written by somebody else is imported. Sources: seccomp(2), prctl(2), socket(2), the syscall tables of Linux 6.10.

The filter looks at the ABI first (a call by `int 0x80` has other numbers), then answers ENOSYS to every number that is
newer than the reviewed table (which is also where the x32 ABI lies), then EPERM to what is listed in `REFUSED`.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import resource
import struct
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

# name -> numbers on x86_64 and aarch64. No socket of any family: AF_UNIX reaches resolvers, proxies and agents that
# have a network. io_uring makes sockets without socket(). The other groups act through another process or the kernel.
REFUSED: Final[dict[str, tuple[int, int]]] = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "execve": (59, 221),
    "execveat": (322, 281),
    "add_key": (248, 217),
    "request_key": (249, 218),  # the "dns_resolver" key type resolves names through a helper of the system
    "keyctl": (250, 219),
}
LAST_REVIEWED: Final = 462  # mseal(2), the last number of Linux 6.10 on both machines


class _Machine(NamedTuple):
    arch: int  # AUDIT_ARCH_*
    column: int  # in REFUSED
    seccomp: int  # number of seccomp(2)


MACHINES: Final[dict[str, _Machine]] = {
    "x86_64": _Machine(0xC000003E, 0, 317),
    "aarch64": _Machine(0xC00000B7, 1, 277),
}

_LOAD_WORD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_GREATER: Final = 0x25  # BPF_JMP | BPF_JGT | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_OFFSET_NUMBER: Final = 0  # in struct seccomp_data
_OFFSET_ARCH: Final = 4

ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
REFUSE: Final = _ERRNO | errno.EPERM
UNKNOWN: Final = _ERRNO | errno.ENOSYS

_PR_GET_DUMPABLE: Final = 3
_PR_SET_DUMPABLE: Final = 4
_PR_GET_SECCOMP: Final = 21
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_GET_NO_NEW_PRIVS: Final = 39
_SECCOMP_SET_MODE_FILTER: Final = 1
_SECCOMP_FILTER_FLAG_TSYNC: Final = 1  # all threads of the process, not only the calling one


class Instruction(NamedTuple):
    """One instruction of classic BPF: `struct sock_filter`."""

    code: int
    jump_true: int
    jump_false: int
    value: int


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def machine() -> str | None:
    """This process's machine, if the filter knows it; a 32-bit process on a 64-bit kernel is another machine."""
    name = os.uname().machine
    return name if name in MACHINES and sys.maxsize > 2**32 else None


def build_filter(machine: str) -> list[Instruction]:
    """The program for a machine of `MACHINES`; pure, so that it can be examined anywhere."""
    known = MACHINES[machine]
    numbers = sorted(row[known.column] for row in REFUSED.values())
    program = [
        Instruction(_LOAD_WORD, 0, 0, _OFFSET_ARCH),
        Instruction(_JUMP_EQUAL, 1, 0, known.arch),
        Instruction(_RETURN, 0, 0, REFUSE),
        Instruction(_LOAD_WORD, 0, 0, _OFFSET_NUMBER),
        Instruction(_JUMP_GREATER, 0, 1, LAST_REVIEWED),
        Instruction(_RETURN, 0, 0, UNKNOWN),
    ]
    # every hit jumps over the remaining comparisons and the ALLOW to the last instruction
    program += [Instruction(_JUMP_EQUAL, len(numbers) - i, 0, number) for i, number in enumerate(numbers)]
    return [*program, Instruction(_RETURN, 0, 0, ALLOW), Instruction(_RETURN, 0, 0, REFUSE)]


def assemble(program: Sequence[Instruction]) -> bytes:
    """The program as the kernel reads it."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def digest(program: Sequence[Instruction]) -> str:
    """The sha256 of the assembled program, which a report can name."""
    return hashlib.sha256(assemble(program)).hexdigest()


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int = 0) -> int:
    none = ctypes.c_ulong(0)
    result: int = _libc().prctl(ctypes.c_int(option), ctypes.c_ulong(value), none, none, none)
    return result


def available() -> bool:
    """Whether the kernel has seccomp at all; asks, changes nothing."""
    return _prctl(_PR_GET_SECCOMP) >= 0


def harden() -> None:
    """Leave no trace of memory: no core file, and no other process of the user may read this one.

    Raises:
        OSError: the kernel refused.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if _prctl(_PR_SET_DUMPABLE, 0) != 0:
        raise OSError(ctypes.get_errno(), "the kernel refused PR_SET_DUMPABLE")


def install() -> str:
    """Put the filter on every thread of this process, for good; give its digest.

    Raises:
        OSError: this machine is unknown, or the kernel refused.
    """
    name = machine()
    if name is None:
        raise OSError(errno.ENOSYS, "no filter for this machine")
    if _prctl(_PR_SET_NO_NEW_PRIVS, 1) != 0:
        raise OSError(ctypes.get_errno(), "the kernel refused PR_SET_NO_NEW_PRIVS")
    program = build_filter(name)
    instructions = assemble(program)
    request = _Program(len(program), instructions)
    result = _libc().syscall(
        ctypes.c_long(MACHINES[name].seccomp),
        ctypes.c_ulong(_SECCOMP_SET_MODE_FILTER),
        ctypes.c_ulong(_SECCOMP_FILTER_FLAG_TSYNC),
        ctypes.byref(request),
    )
    if result != 0:  # above 0: the id of a thread that could not be synchronised
        raise OSError(ctypes.get_errno() or errno.EBUSY, "the kernel refused the seccomp filter")
    return digest(program)


def prove() -> list[tuple[str, bool]]:
    """Try what the filter refuses, by raw system calls; True where the kernel said no.

    Only attempts that do no harm where they succeed. Without a filter each of them gives another answer than EPERM.
    """
    name = machine()
    if name is None:
        return []
    column = MACHINES[name].column
    stream, missing = 1, b"/nonexistent"
    attempts: list[tuple[str, str, tuple[int | bytes, ...]]] = [
        ("socket AF_UNIX", "socket", (1, stream, 0)),
        ("socket AF_INET", "socket", (2, stream, 0)),
        ("socket AF_INET6", "socket", (10, stream, 0)),
        ("socket AF_NETLINK", "socket", (16, 3, 0)),
        ("socket AF_VSOCK", "socket", (40, stream, 0)),
        ("socketpair", "socketpair", (1, stream, 0, 0)),
        ("io_uring_setup", "io_uring_setup", (1, 0)),
        ("execve", "execve", (missing, 0, 0)),
    ]
    return [(label, _refused(REFUSED[call][column], arguments)) for label, call, arguments in attempts]


def _refused(number: int, arguments: tuple[int | bytes, ...]) -> bool:
    words = [value if isinstance(value, bytes) else ctypes.c_long(value) for value in arguments]
    ctypes.set_errno(0)
    result = _libc().syscall(ctypes.c_long(number), *words)
    if result >= 0:
        os.close(result)
    return result == -1 and ctypes.get_errno() == errno.EPERM


class State(NamedTuple):
    """What the kernel says of this process."""

    no_new_privileges: bool
    dumpable: bool
    core_limit: int  # bytes; -1: none


def state() -> State:
    """Ask the kernel what is in force now."""
    core = resource.getrlimit(resource.RLIMIT_CORE)
    return State(_prctl(_PR_GET_NO_NEW_PRIVS) == 1, _prctl(_PR_GET_DUMPABLE) != 0, max(core))
