"""Functions that tests run in throw-away workers."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path

from ondevice_sdk.privacy.sandbox import calls, kernel


def echo(**arguments: object) -> dict[str, object]:
    return arguments


def modules() -> list[str]:
    return sorted(sys.modules)


def public_names() -> list[str]:
    """What a plugin may have: parts of the package, and names of the package itself."""
    from ondevice_sdk import errors

    before = "ondevice_sdk.client" in sys.modules
    from ondevice_sdk import Message, __version__

    return [errors.OnDeviceError.__name__, str(before), Message.__name__, __version__]


def open_socket() -> str:
    try:
        socket.socket().close()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "opened"


def raises() -> None:
    raise RuntimeError("quoting the user's text")


def no_json() -> float:
    return float("nan")


def dies() -> None:
    os._exit(3)


def dies_quoting(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
    os._exit(3)


def steps(fractions: list[float]) -> Generator[float, None, str]:
    yield from fractions
    return "done"


def read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def read_and_write(outside: str, inside: str) -> dict[str, str]:
    """What becomes of reading, listing, writing and removing, outside of what is allowed and within."""

    def outcome(attempt: Callable[[], object]) -> str:
        try:
            attempt()
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return "done"

    home = Path(os.environ["HOME"])
    return {
        "read outside": outcome(Path(outside).read_text),
        "list outside": outcome(lambda: list(Path(outside).parent.iterdir())),
        "write outside": outcome(lambda: Path(outside).write_text("changed")),
        "make outside": outcome(lambda: Path(outside).with_name("new").write_text("new")),
        "link outside": outcome(lambda: (home / "link").symlink_to(outside)),
        "read by link": outcome((home / "link").read_text),
        "read inside": outcome(Path(inside).read_text),
        "write inside": outcome(lambda: Path(inside).write_text("changed")),
        "write at home": outcome(lambda: (home / "file").write_text("new")),
        "read at home": outcome((home / "file").read_text),
        "other process": outcome(lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes()),
        "chmod at home": outcome(lambda: (home / "file").chmod(0o644)),
    }


def attempts() -> list[str]:
    """Attempts by Python and by raw calls of the C library; what each of them got."""
    libc = ctypes.CDLL(None, use_errno=True)

    def raw(number: int, *arguments: int) -> str:
        result = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
        return "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]

    def python(attempt: Callable[[], object]) -> str:
        try:
            attempt()
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return "done"

    native = threading.Thread(target=lambda: answers.append(raw(calls.number("socket", column), 16, 3, 0)))
    column = kernel.MACHINES[os.uname().machine].column
    answers = [
        python(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
        python(lambda: socket.socket(socket.AF_UNIX)),
        python(socket.socketpair),
        python(os.fork),
        python(lambda: subprocess.run(["/bin/true"], check=False)),
        python(lambda: os.kill(os.getppid(), 0)),
        raw(calls.number("keyctl", column), 0, -3, 0),
        raw(calls.number("socket", column), 2, 1, 0),
        raw(calls.number("socket", column), 2, 1, 0),
        raw(calls.number("seccomp", column), 0, 0, 0),
        raw(calls.number("clone3", column), 0, 0),
        raw(1000),
    ]
    native.start()
    native.join()
    return answers


def many_families() -> int:
    """More kinds of attempts than a ledger keeps."""
    refused = 0
    for family in range(300):
        try:
            socket.socket(family).close()
        except OSError:
            refused += 1
    return refused
