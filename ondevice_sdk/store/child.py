"""Run somebody else's downloader as a child process, and watch its files grow."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ondevice_sdk.errors import ConfigurationError

Look = Callable[[], None]
_LOOK_EVERY = 0.25  # seconds between two looks at the growing file


@dataclass(frozen=True, slots=True)
class Finished:
    """How a child ended and what it said."""

    code: int
    output: str
    errors: str

    @property
    def disk_full(self) -> bool:
        """Whether it complained of a full disk, a quota, or a limit of the file size."""
        words = ("No space left on device", "Disk quota exceeded", "File too large", "Errno 28", "os error 28")
        return any(word in self.errors for word in words)


def python() -> str:
    """The interpreter for child processes; `ONDEVICE_PYTHON` says it where `sys.executable` is no Python.

    Raises:
        ConfigurationError: there is none.
    """
    found = os.environ.get("ONDEVICE_PYTHON") or (None if getattr(sys, "frozen", False) else sys.executable)
    if not found:
        raise ConfigurationError("no Python interpreter is known here", hint="set ONDEVICE_PYTHON to one")
    return found


def run(command: Sequence[str], work: Path, environment: Mapping[str, str], look: Look) -> Finished:
    """Run to the end, calling `look` now and then. The child does not outlive an interrupted call.

    Its temporary files go to `work`, so that they lie on the store's disk and go away with the session.
    """
    child = subprocess.Popen(
        command,
        cwd=work,
        env={**os.environ, "TMPDIR": str(work), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        while True:
            try:
                output, errors = child.communicate(timeout=_LOOK_EVERY)  # loses nothing when it times out
                break
            except subprocess.TimeoutExpired:
                look()
    finally:
        if child.returncode is None:
            child.kill()
            child.communicate()
    return Finished(child.returncode, output.decode("utf-8", "replace"), errors.decode("utf-8", "replace"))


def largest_file(directory: Path, suffix: str = "") -> int:
    """Bytes of the largest file below a directory: the one that is being downloaded. 0 while there is none."""
    largest = 0
    for folder, _, names in os.walk(directory):  # skips folders that vanish meanwhile
        for name in names:
            if name.endswith(suffix):
                with contextlib.suppress(OSError):  # renamed meanwhile
                    largest = max(largest, (Path(folder) / name).lstat().st_size)
    return largest
