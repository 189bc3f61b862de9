"""What is known of a worker's protections: its own account of the seal, and the kernel's, read from outside."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Seal:
    """The worker's account, taken before any code of others ran in it.

    `attempts`: what it tried after the seal, and whether the kernel refused. `environment`: names only.
    """

    pid: int
    machine: str
    filter_sha256: str
    attempts: tuple[tuple[str, bool], ...]
    no_new_privileges: bool
    dumpable: bool
    core_limit: int
    environment: tuple[str, ...]
    error: str = ""


@dataclass(frozen=True, slots=True)
class Witness:
    """The kernel's account, read by the app from /proc.

    `threads`: per thread its seccomp mode (2: a filter is in force) and whether it can gain no new privileges.
    `descriptors`: what the worker's descriptors were before the seal, None where the kernel would not say.
    """

    threads: tuple[tuple[int, bool], ...] = ()
    descriptors: tuple[str, ...] | None = None

    @property
    def filtered(self) -> bool:
        """Whether the kernel says of every thread that a filter is in force."""
        return bool(self.threads) and all(mode == 2 for mode, _ in self.threads)

    @property
    def without_new_privileges(self) -> bool:
        """Whether no thread can gain privileges."""
        return bool(self.threads) and all(restricted for _, restricted in self.threads)

    @property
    def descriptors_clean(self) -> bool:
        """Whether the worker was seen to hold pipes and the null device only."""
        return self.descriptors is not None and all(
            target.startswith("pipe:") or target == os.devnull for target in self.descriptors
        )


def read_threads(pid: int, proc: Path = Path("/proc")) -> tuple[tuple[int, bool], ...]:
    """Seccomp mode and no-new-privileges flag of each thread; empty where there is nothing to read."""
    threads = []
    try:
        for task in (proc / str(pid) / "task").iterdir():
            try:
                status = _fields((task / "status").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue  # the thread has ended meanwhile
            threads.append((int(status.get("Seccomp", "0")), status.get("NoNewPrivs") == "1"))
    except (OSError, ValueError):
        return ()
    return tuple(threads)


def read_descriptors(pid: int, proc: Path = Path("/proc")) -> tuple[str, ...] | None:
    """Targets of the open descriptors; None where the kernel would not say."""
    try:
        return tuple(sorted(str(entry.readlink()) for entry in (proc / str(pid) / "fd").iterdir()))
    except OSError:
        return None


def _fields(status: str) -> Mapping[str, str]:
    pairs = (line.partition(":") for line in status.splitlines())
    return {name: value.strip() for name, _, value in pairs}
