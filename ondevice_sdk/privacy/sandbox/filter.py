"""The filter programs, in classic BPF; pure, so that they can be examined anywhere.

Only the low 32 bits of an argument are compared where the kernel looks at no more: a filter that compares all of them
is passed by `socket(2 | 1 << 32)`. Sources: seccomp(2), linux/filter.h, linux/seccomp.h.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from . import calls, kernel
from .kernel import MACHINES

ALLOW: Final = 0x7FFF0000
REFUSE: Final = 0x00050000 | errno.EPERM
ABSENT: Final = 0x00050000 | errno.ENOSYS
TELL: Final = 0x7FC00000  # SECCOMP_RET_USER_NOTIF: the app is told, and refuses

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_GREATER: Final = 0x25  # BPF_JMP | BPF_JGT | BPF_K
_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_ANY_BIT: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_NUMBER: Final = 0  # offsets in struct seccomp_data
_ARCH: Final = 4
_ARGUMENTS: Final = 16

_CLONE_THREAD: Final = 0x00010000
_CLONE_NEW: Final = 0x7E020000  # the flags for new namespaces
_PERSONALITY_ASK: Final = 0xFFFFFFFF
# F_SETOWN, F_SETSIG, F_SETOWN_EX: signals to other processes, sent by the kernel.
_FCNTL: Final = (8, 10, 15)
# TIOCSTI and TIOCLINUX type into a terminal; TIOCCONS; FIOSETOWN and SIOCSPGRP as F_SETOWN.
_IOCTL: Final = (0x5412, 0x541C, 0x541D, 0x8901, 0x8902)
_PRCTL: Final = (kernel.PR_SET_SECCOMP, kernel.PR_SET_PTRACER, kernel.PR_SET_MM, kernel.PR_SCHED_CORE)
_SIGNALS: Final = ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")
_OF_A_PROCESS: Final = (
    "prlimit64",
    "sched_setaffinity",
    "sched_setscheduler",
    "sched_setparam",
    "sched_setattr",
    "migrate_pages",
    "move_pages",
)


class Instruction(NamedTuple):
    """One instruction of classic BPF: `struct sock_filter`."""

    code: int
    jump_true: int
    jump_false: int
    value: int


Program = list[Instruction]


def first_filter(machine: str, pid: int, *, tell: bool) -> Program:
    """All but what the hand-over of its own reports needs.

    Args:
        machine: one of `kernel.MACHINES`.
        pid: the process that it is for, the only one that it may signal.
        tell: whether the app answers what is refused, instead of the kernel.
    """
    arch, column = MACHINES[machine]
    no = TELL if tell else REFUSE
    program = _prologue(arch, no)
    program += [Instruction(_GREATER, 0, 1, calls.LAST), _give(ABSENT)]
    for first, last in calls.GAPS[column]:
        program += _range(first, last, ABSENT)
    for number in calls.numbers(calls.ABSENT, column):
        program += _range(number, number, ABSENT)
    for first, last in _runs(calls.numbers(calls.REFUSED, column)):
        program += _range(first, last, no)
    blocks: dict[str, Program] = {
        "clone": _clone(no),
        "prctl": _prctl(no),
        "ioctl": _unless(1, _IOCTL, no),
        "fcntl": _unless(1, _FCNTL, no),
        "personality": _only(0, (_PERSONALITY_ASK,), no),
        **{name: _only(0, (pid,), no) for name in _SIGNALS},
        **{name: _only(0, (0, pid), no) for name in _OF_A_PROCESS},
    }
    for name, block in blocks.items():
        program += [Instruction(_EQUAL, 0, len(block), calls.number(name, column)), *block]
    return [*program, _give(ALLOW)]


def second_filter(machine: str) -> Program:
    """What the hand-over needed. Put on top of the first."""
    arch, column = MACHINES[machine]
    program = _prologue(arch, REFUSE)
    for number in calls.numbers(calls.REFUSED_AFTER, column):
        program += _range(number, number, REFUSE)
    return [*program, _give(ALLOW)]


def offline_filter(machine: str) -> Program:
    """Nothing but that no new socket of any kind can be made, for a process that is trusted with all else.

    A ring could make one too.
    """
    arch, column = MACHINES[machine]
    program = [*_prologue(arch, REFUSE), Instruction(_GREATER, 0, 1, calls.LAST), _give(ABSENT)]
    for name in ("socket", "io_uring_setup"):
        number = calls.number(name, column)
        program += _range(number, number, REFUSE)
    return [*program, _give(ALLOW)]


def assemble(program: Sequence[Instruction]) -> bytes:
    """The program as the kernel reads it."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _prologue(arch: int, no: int) -> Program:
    """The ABI first: a call by `int 0x80` has other numbers. Leaves the number in the accumulator."""
    return [
        Instruction(_LOAD, 0, 0, _ARCH),
        Instruction(_EQUAL, 1, 0, arch),
        _give(no),
        Instruction(_LOAD, 0, 0, _NUMBER),
    ]


def _give(action: int) -> Instruction:
    return Instruction(_RETURN, 0, 0, action)


def _low_word(argument: int) -> Instruction:
    return Instruction(_LOAD, 0, 0, _ARGUMENTS + 8 * argument)  # both machines are little-endian


def _range(first: int, last: int, action: int) -> Program:
    if first == last:
        return [Instruction(_EQUAL, 0, 1, first), _give(action)]
    return [Instruction(_AT_LEAST, 0, 2, first), Instruction(_GREATER, 1, 0, last), _give(action)]


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def _among(values: Sequence[int], found: int, otherwise: int) -> Program:
    count = len(values)
    hits = [Instruction(_EQUAL, count - i, 0, value) for i, value in enumerate(values)]
    return [*hits, _give(otherwise), _give(found)]


def _only(argument: int, values: Sequence[int], no: int) -> Program:
    return [_low_word(argument), *_among(values, ALLOW, no)]


def _unless(argument: int, values: Sequence[int], no: int) -> Program:
    return [_low_word(argument), *_among(values, no, ALLOW)]


def _clone(no: int) -> Program:
    """A thread, and not in a namespace of its own; a process is refused."""
    return [
        _low_word(0),
        Instruction(_ANY_BIT, 1, 0, _CLONE_NEW),
        Instruction(_ANY_BIT, 1, 0, _CLONE_THREAD),
        _give(no),
        _give(ALLOW),
    ]


def _prctl(no: int) -> Program:
    """Not dumpable can be set and not be undone; nothing that opens this process to others, no filters of others."""
    return [
        _low_word(0),
        Instruction(_EQUAL, 0, 4, kernel.PR_SET_DUMPABLE),
        _low_word(1),
        Instruction(_EQUAL, 0, 1, 0),
        _give(ALLOW),
        _give(no),
        *_among(_PRCTL, no, ALLOW),
    ]
