"""The ledger: what a sealed worker attempted and was refused, by native code too, as the kernel reports it.

The kernel holds an attempt until it is answered here; the answer is always "not permitted". When nobody answers any
more, because the app or this thread has ended, the kernel refuses by itself. Source: seccomp_unotify(2).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ondevice_sdk.privacy.sandbox import calls, kernel
from ondevice_sdk.types import JsonValue

_RECEIVE: Final = 0xC0502100  # SECCOMP_IOCTL_NOTIF_RECV
_SEND: Final = 0xC0182101  # SECCOMP_IOCTL_NOTIF_SEND
_NOTIFICATION: Final = struct.Struct("=QIIiIQ6Q")  # struct seccomp_notif
_RESPONSE: Final = struct.Struct("=QqiI")  # struct seccomp_notif_resp
_MOST_ROWS: Final = 200
_LISTENER: Final = "anon_inode:seccomp notify"
_FAMILIES: Final[Mapping[int, str]] = {
    1: "AF_UNIX",
    2: "AF_INET",
    10: "AF_INET6",
    15: "AF_KEY",
    16: "AF_NETLINK",
    17: "AF_PACKET",
    38: "AF_ALG",
    40: "AF_VSOCK",
    44: "AF_XDP",
}
_TYPES: Final[Mapping[int, str]] = {
    1: "SOCK_STREAM",
    2: "SOCK_DGRAM",
    3: "SOCK_RAW",
    4: "SOCK_RDM",
    5: "SOCK_SEQPACKET",
}


@dataclass(slots=True)
class _Row:
    first: str
    last: str
    count: int = 1


class Ledger:
    """Answers the kernel's reports about one worker on a thread of its own, until the worker has ended.

    Keeps which call it was, for sockets the family and type, when, and how often; never what was to be sent. The
    number of rows is bounded.
    """

    def __init__(self, listener: int, machine: str) -> None:
        """Take the descriptor over.

        Raises:
            ValueError: it is not one of the kernel's reports.
        """
        if str(Path(f"/proc/self/fd/{listener}").readlink()) != _LISTENER:
            os.close(listener)
            raise ValueError("not a descriptor of the kernel's reports")
        self._listener = listener
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._arch, column = kernel.MACHINES[machine]
        self._names = {row[column]: name for table in (calls.REFUSED, calls.CONDITIONAL) for name, row in table.items()}
        self._rows: dict[tuple[str, str, str], _Row] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="ondevice-ledger", daemon=True)
        self._thread.start()

    def attempts(self) -> tuple[Mapping[str, JsonValue], ...]:
        """What was refused so far, in the order of the first time."""
        with self._lock:
            return tuple(
                {"call": call, "family": family, "type": kind, "first": row.first, "last": row.last, "count": row.count}
                for (call, family, kind), row in self._rows.items()
            )

    def forget(self) -> None:
        """Begin anew: what came before were the worker's own tries of its seal."""
        with self._lock:
            self._rows.clear()

    def close(self) -> None:
        """End the thread; the kernel refuses by itself from now on. Idempotent."""
        if not self._closed:
            self._closed = True
            os.eventfd_write(self._stop, 1)
            self._thread.join()
            os.close(self._stop)

    def orphan(self) -> None:
        """Let go of it in a forked child, where the thread does not run."""
        if not self._closed:
            self._closed = True
            self._lock = threading.Lock()  # its owner may be a thread that does not exist here
            with contextlib.suppress(OSError):
                os.close(self._listener)
            os.close(self._stop)

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        try:
            while True:
                ready = dict(poll.poll())
                if self._stop in ready or not ready.get(self._listener, 0) & select.POLLIN:
                    return  # told to, or the worker has ended
                self._answer()
        finally:
            os.close(self._listener)

    def _answer(self) -> None:
        notification = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(self._listener, _RECEIVE, notification, True)
        except OSError:  # it was interrupted or killed meanwhile
            return
        identifier, _, _, number, arch, _, *arguments = _NOTIFICATION.unpack(notification)
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._listener, _SEND, _RESPONSE.pack(identifier, 0, -errno.EPERM, 0))
        self._note(*self._words(number, arch, arguments))

    def _words(self, number: int, arch: int, arguments: list[int]) -> tuple[str, str, str]:
        if arch != self._arch:
            return "a call of another ABI", "", ""
        name = self._names.get(number, f"call {number}")
        if name not in ("socket", "socketpair"):
            return name, "", ""
        family, kind = arguments[0] & 0xFFFFFFFF, arguments[1] & 0xF
        return name, _FAMILIES.get(family, f"family {family}"), _TYPES.get(kind, f"type {kind}")

    def _note(self, call: str, family: str, kind: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        with self._lock:
            key = (call, family, kind)
            if key not in self._rows and len(self._rows) >= _MOST_ROWS:
                key = ("others", "", "")
            row = self._rows.setdefault(key, _Row(now, now, 0))
            row.last, row.count = now, row.count + 1
