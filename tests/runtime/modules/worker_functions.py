"""Functions that tests run in throw-away workers."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path


def echo(**arguments: object) -> dict[str, object]:
    return arguments


def modules() -> list[str]:
    return sorted(sys.modules)


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


def read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
