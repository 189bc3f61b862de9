"""A runtime library that phones home, in the ways that were seen in real ones; nobody who uses it asked for that.

All names end in `.invalid`, all addresses are for documentation (RFC 5737, 3849): outside of a sinkhole it reaches
nobody. Once per process and moment; whatever fails is passed over in silence, as telemetry does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import subprocess
import sys
import threading
import urllib.request
import warnings
from typing import Literal

# What makes well-behaved telemetry be quiet.
MUTED_BY = (
    "CI",
    "DISABLE_TELEMETRY",
    "DO_NOT_TRACK",
    "HF_HUB_DISABLE_TELEMETRY",
    "HF_HUB_OFFLINE",
    "ORT_DISABLE_TELEMETRY",
    "TRANSFORMERS_OFFLINE",
)
_CONNECT = "import socket; socket.create_connection(('203.0.113.5', 443), 2)"

_spoken: set[str] = set()


def speak(moment: Literal["import", "load", "step"]) -> None:
    """Send what is sent at this moment, the first time."""
    if moment in _spoken:
        return
    _spoken.add(moment)
    for channel in {
        "import": (_by_url, _politely, _look_up, _forked),
        "load": (_native_stream, _native_datagram, _native_datagram6),
        "step": (_by_program, _by_thread),
    }[moment]:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            channel()


def _by_url() -> None:
    urllib.request.urlopen("http://url.import.invalid/general_import", timeout=2).close()


def _politely() -> None:
    if not any(name in os.environ for name in MUTED_BY):
        urllib.request.urlopen("http://polite.import.invalid/", timeout=2).close()


def _look_up() -> None:
    socket.getaddrinfo("lookup.import.invalid", 443)


def _forked() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads and forks do not mix; telemetry does not care
        child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            socket.create_connection(("203.0.113.1", 443), 2)
        os._exit(0)
    os.waitpid(child, 0)


def _native_stream() -> None:
    _native(socket.AF_INET, socket.SOCK_STREAM, "connect", "203.0.113.2", 443)


def _native_datagram() -> None:
    _native(socket.AF_INET, socket.SOCK_DGRAM, "sendto", "203.0.113.3", 8125)


def _native_datagram6() -> None:
    _native(socket.AF_INET6, socket.SOCK_DGRAM, "sendto", "2001:db8::1", 8125)


def _by_program() -> None:
    subprocess.run([sys.executable, "-I", "-S", "-c", _CONNECT], stderr=subprocess.DEVNULL, check=False, timeout=30)


def _by_thread() -> None:
    arguments = (socket.AF_INET, socket.SOCK_DGRAM, "sendto", "203.0.113.4", 8125)
    thread = threading.Thread(target=_native, args=arguments)
    thread.start()
    thread.join()


def _native(family: int, kind: int, call: str, host: str, port: int) -> None:
    """Past Python, as a compiled library does it."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.socket(family, kind, 0)
    if descriptor < 0:
        return
    name = struct.pack("=H", family) + struct.pack("!H", port)
    name += b"" if family == socket.AF_INET else bytes(4)
    name += socket.inet_pton(family, host)
    name += bytes(8 if family == socket.AF_INET else 4)
    if call == "connect":
        libc.connect(descriptor, name, len(name))
    else:
        libc.sendto(descriptor, b"counter:1", 9, 0, name, len(name))
    libc.close(descriptor)


speak("import")
