"""Things that an attempt may leave: objects of the kernel, loose files, keys typed into a terminal."""

from __future__ import annotations

import contextlib
import os
import select
from types import TracebackType

from ondevice_sdk.privacy.attempts import raw
from ondevice_sdk.privacy.attempts.attempt import Reach

_SYSTEM_V = (("shmget", "shmctl", (0, 0)), ("msgget", "msgctl", (0,)), ("semget", "semctl", (0, 0)))


def _loose(reach: Reach) -> tuple[str, str]:
    return f"/tmp/ondevice-{reach.token}", f"/dev/shm/ondevice-{reach.token}"  # noqa: S108 - the attempts' names


def loose_file(reach: Reach) -> bool:
    """Whether the attempt left a file where everybody may."""
    return os.path.exists(_loose(reach)[0])


def exist(reach: Reach) -> bool:
    """Whether the attempt left an object that this process sees."""
    if os.path.exists(_loose(reach)[1]):
        return True
    for get, _, words in _SYSTEM_V:
        with contextlib.suppress(OSError):
            raw.call(get, reach.key, *words)
            return True
    with contextlib.suppress(OSError):
        os.close(raw.call("mq_open", f"ondevice-{reach.token}".encode(), os.O_RDONLY, 0, None))
        return True
    return False


def remove(reach: Reach) -> None:
    """Remove whatever the attempt left."""
    for path in _loose(reach):
        with contextlib.suppress(OSError):
            os.unlink(path)
    for get, control, words in _SYSTEM_V:
        with contextlib.suppress(OSError):
            found = raw.call(get, reach.key, *words)
            raw.call(control, found, *([0] if control == "semctl" else []), 0, None)  # IPC_RMID
    with contextlib.suppress(OSError):
        raw.call("mq_unlink", f"ondevice-{reach.token}".encode())
    with contextlib.suppress(OSError):
        os.rmdir(f"/sys/fs/cgroup/ondevice-{reach.token}")


class Terminal:
    """A pseudo terminal with nobody at it; what is typed into it is echoed to us."""

    def __init__(self) -> None:
        try:
            self._master, self._slave = os.openpty()
        except OSError:
            self._master, self._slave, self.path = -1, -1, ""
        else:
            os.set_blocking(self._master, False)
            self.path = os.ttyname(self._slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for descriptor in (self._master, self._slave):
            if descriptor >= 0:
                os.close(descriptor)

    def typed(self) -> bool:
        """Whether a key was pressed."""
        if self._master < 0 or not select.select([self._master], [], [], 0)[0]:
            return False
        try:
            return b"!" in os.read(self._master, 64)
        except OSError:
            return False
