"""Reads a process's filters back from the kernel, where it allows that: to the administrator, outside of containers.

Source: ptrace(2), PTRACE_SECCOMP_GET_FILTER.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from typing import Final

_SEIZE: Final = 0x4206
_INTERRUPT: Final = 0x4207
_DETACH: Final = 17
_GET_FILTER: Final = 0x420C
_INSTRUCTION: Final = 8  # bytes
_MOST: Final = 8  # filters
_PATIENCE_S: Final = 0.5
_PAUSE_S: Final = 0.0002


def read_filters(pid: int) -> tuple[bytes, ...]:
    """The programs of a process's main thread, the oldest first; stops that thread for a moment.

    Raises:
        OSError: the kernel does not allow it.
    """
    _ptrace(_SEIZE, pid, 0, 0)
    try:
        _ptrace(_INTERRUPT, pid, 0, 0)
        _wait_until_stopped(pid)
        filters = []
        for index in range(_MOST):
            try:
                length = _ptrace(_GET_FILTER, pid, index, 0)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    break
                raise
            buffer = ctypes.create_string_buffer(length * _INSTRUCTION)
            _ptrace(_GET_FILTER, pid, index, ctypes.addressof(buffer))
            filters.append(buffer.raw)
        return tuple(filters)
    finally:
        _detach(pid)


def _wait_until_stopped(pid: int) -> None:
    """Not by `waitpid`, which other threads of the app may be calling."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            _ptrace(_GET_FILTER, pid, 0, 0)
        except OSError as error:
            if error.errno != errno.ESRCH or time.monotonic() >= deadline:
                raise
            time.sleep(_PAUSE_S)
        else:
            return


def _detach(pid: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            _ptrace(_DETACH, pid, 0, 0)
        except OSError as error:
            if error.errno != errno.ESRCH or time.monotonic() >= deadline:
                return  # it has ended
            time.sleep(_PAUSE_S)
        else:
            return


def _ptrace(request: int, pid: int, address: int, data: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype = ctypes.c_long
    ctypes.set_errno(0)
    result: int = libc.ptrace(
        ctypes.c_long(request), ctypes.c_int(pid), ctypes.c_void_p(address), ctypes.c_void_p(data)
    )
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
