"""Puts the filters on this process, for good, and hands the kernel's reports of refusals to the app."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final, NamedTuple

from . import calls, kernel
from .filter import Program, assemble, first_filter, offline_filter, second_filter

_SET_MODE_FILTER: Final = 1
_TSYNC: Final = 1  # all threads of the process, not only the calling one
_NEW_LISTENER: Final = 8
_TSYNC_ESRCH: Final = 16  # a failed TSYNC is an error, not a number that looks like a descriptor


class Filtered(NamedTuple):
    """`told`: whether the app holds the reports; if not, why."""

    told: bool
    why_not: str = ""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def available() -> bool:
    """Whether the kernel has seccomp at all; asks, changes nothing."""
    try:
        kernel.prctl(kernel.PR_GET_SECCOMP)
    except OSError:
        return False
    return True


def install(hand_over: int | None) -> Filtered:
    """Put both filters on every thread.

    Args:
        hand_over: a socket to the app, over which it gets the kernel's reports; None: the kernel alone refuses.

    Raises:
        OSError: this machine is unknown, or the kernel refused.
    """
    machine = kernel.machine()
    if machine is None:
        raise OSError(errno.ENOSYS, "no filter for this machine")
    filtered = _first(machine, hand_over)
    _put(machine, second_filter(machine), _TSYNC)
    return filtered


def install_offline() -> None:
    """Put the filter on every thread that refuses sockets and nothing else. Needs no_new_privs.

    Raises:
        OSError: this machine is unknown, or the kernel refused.
    """
    machine = kernel.machine()
    if machine is None:
        raise OSError(errno.ENOSYS, "no filter for this machine")
    _put(machine, offline_filter(machine), _TSYNC)


def _first(machine: str, hand_over: int | None) -> Filtered:
    pid = os.getpid()
    why_not = "the app gave no way to hand the reports over"
    if hand_over is not None:
        try:
            listener = _put(machine, first_filter(machine, pid, tell=True), _NEW_LISTENER | _TSYNC | _TSYNC_ESRCH)
        except OSError as error:
            # EBUSY: somebody above us has a listener, of which there can be one only. EINVAL: before Linux 5.7.
            if error.errno not in (errno.EBUSY, errno.EINVAL):
                raise
            why_not = f"the kernel refused to report to the app: {os.strerror(error.errno)}"
        else:
            try:
                _send_descriptor(machine, hand_over, listener)
            finally:
                os.close(listener)  # whoever has it can answer for the app
            return Filtered(told=True)
    _put(machine, first_filter(machine, pid, tell=False), _TSYNC)
    return Filtered(told=False, why_not=why_not)


def _put(machine: str, program: Program, flags: int) -> int:
    instructions = assemble(program)
    request = _Program(len(program), instructions)
    number = calls.number("seccomp", kernel.MACHINES[machine].column)
    result = kernel.call(number, _SET_MODE_FILTER, flags, ctypes.addressof(request))
    if result and not flags & _NEW_LISTENER:  # the id of a thread that could not be synchronised
        raise OSError(errno.EBUSY, "the filter could not be put on every thread")
    return result


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


class _Control(ctypes.Structure):
    _fields_ = (
        ("length", ctypes.c_size_t),
        ("level", ctypes.c_int),
        ("type", ctypes.c_int),
        ("descriptor", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("vector", ctypes.POINTER(_Vector)),
        ("vectors", ctypes.c_size_t),
        ("control", ctypes.POINTER(_Control)),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


def _send_descriptor(machine: str, socket: int, descriptor: int) -> None:
    """SCM_RIGHTS by hand: Python's `socket` module, with all that it imports, is not to be in a worker."""
    vector = _Vector(b"L", 1)
    control = _Control(_Control.descriptor.offset + 4, 1, 1, descriptor)  # SOL_SOCKET, SCM_RIGHTS
    message = _Message(None, 0, ctypes.pointer(vector), 1, ctypes.pointer(control), ctypes.sizeof(_Control), 0)
    kernel.call(calls.number("sendmsg", kernel.MACHINES[machine].column), socket, ctypes.addressof(message), 0)
