"""Tries of what is refused, made by a worker that has just sealed itself. None does harm where it succeeds."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Final

from . import calls, kernel

_STREAM, _RAW = 1, 3
_FAMILIES: Final = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16, "AF_PACKET": 17, "AF_VSOCK": 40}
_OPENING: Final = ("socket", "io_uring_setup", "pidfd_open")
_MISSING: Final = b"/nonexistent"

Tries = list[tuple[str, bool]]


def network() -> Tries:
    """Sockets, programs and processes by raw system calls; True where the kernel said EPERM."""
    name = kernel.machine()
    if name is None:
        return []
    column = kernel.MACHINES[name].column

    def refused(call: str, *arguments: int | bytes) -> bool:
        try:
            result = kernel.call(calls.number(call, column), *arguments)
        except OSError as error:
            return error.errno == errno.EPERM
        if call in _OPENING:
            os.close(result)
        return False

    return [
        *((f"socket {family}", refused("socket", value, _STREAM, 0)) for family, value in _FAMILIES.items()),
        ("socket AF_INET with high bits", refused("socket", 2 | 1 << 32, _STREAM, 0)),
        ("socketpair", refused("socketpair", 1, _STREAM, 0, 0)),
        ("connect", refused("connect", -1, 0, 0)),
        ("sendmsg", refused("sendmsg", -1, 0, 0)),
        ("recvmsg", refused("recvmsg", -1, 0, 0)),
        ("io_uring_setup", refused("io_uring_setup", 1, 0)),
        ("execve", refused("execve", _MISSING, 0, 0)),
        ("pidfd_open", refused("pidfd_open", os.getppid(), 0)),
        ("keyctl", refused("keyctl", 0, -3, 0)),
        ("signal to the app", refused("kill", os.getppid(), 0)),
    ]


def files(private: str) -> Tries:
    """Reading and writing outside of what is allowed, where there is something; True where that was refused."""
    beside = f"{private}.{os.getpid()}"

    def write() -> None:
        os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        os.unlink(beside)  # noqa: PTH108 - pathlib costs 5 ms of start-up

    return [
        ("list /", _denied(lambda: os.listdir("/"))),  # noqa: PTH208
        *([("read /etc/passwd", _denied(lambda: _open("/etc/passwd")))] if _there("/etc/passwd") else []),
        ("write beside the private directory", _denied(write)),
    ]


def memory_of_the_app() -> bool:
    """Whether this process is kept from the memory of the one that started it."""
    return _denied(lambda: _open(f"/proc/{os.getppid()}/mem"))


def _there(path: str) -> bool:
    try:
        os.stat(path)  # noqa: PTH116 - as above
    except OSError:
        return False
    return True


def _open(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY))


def _denied(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EPERM)
    return False
