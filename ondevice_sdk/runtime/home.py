"""The private directory of a worker, which goes with it: at its end, or with the next worker if the app was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

_PREFIX: Final = "ondevice-worker-"
_YOUNG_S: Final = 60.0  # may have been made and not be locked yet


class PrivateDirectory:
    """A new directory of mode 0700 with a lock on it that ends with the app, in whatever way that ends."""

    def __init__(self) -> None:
        """Make it, and remove those of apps that are gone.

        Raises:
            OSError: there is no place for it.
        """
        _sweep(Path(tempfile.gettempdir()))
        self.path = tempfile.mkdtemp(prefix=_PREFIX)
        self._lock: int | None = _lock(self.path)

    def remove(self) -> None:
        """Remove it with all that is in it. Idempotent."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Let go of it; in a forked child, whose directory it is not, this changes nothing for the app."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _lock(path: str) -> int | None:
    """Lock a directory; None where somebody else has it, or it is none of ours."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise PermissionError
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _sweep(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for stale in folder.glob(f"{_PREFIX}*"):
            with contextlib.suppress(OSError):
                if time.time() - stale.lstat().st_mtime < _YOUNG_S:
                    continue
                lock = _lock(str(stale))
                if lock is not None:
                    shutil.rmtree(stale, ignore_errors=True)
                    os.close(lock)
