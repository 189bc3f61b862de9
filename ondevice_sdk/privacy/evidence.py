"""What is known of a worker's protections: its own account of the seal, and the kernel's, read from outside."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_NAMESPACES: Final = ("user", "net", "ipc")
_YAMA: Final = Path("/proc/sys/kernel/yama/ptrace_scope")
_SYS_ADMIN: Final = 1 << 21  # CAP_SYS_ADMIN


@dataclass(frozen=True, slots=True)
class Seal:
    """The worker's account, taken before any code of others ran in it.

    `attempts`, `files`: what it tried after the seal, and whether it was refused. `landlock`: the version used, 0 for
    none. `told`: whether the app gets the kernel's reports. The fields that end in `_lack` say why something is not
    there. `environment`: names only.
    """

    pid: int
    machine: str
    attempts: tuple[tuple[str, bool], ...]
    files: tuple[tuple[str, bool], ...]
    app_out_of_reach: bool
    landlock: int
    landlock_lack: str
    namespaces_lack: str
    told: bool
    told_lack: str
    no_new_privileges: bool
    dumpable: bool
    core_limit: int
    environment: tuple[str, ...]
    error: str = ""
    hiding_error: str = ""


@dataclass(frozen=True, slots=True)
class Thread:
    """The kernel's word for one thread. `seccomp`: 2 where a filter is in force."""

    seccomp: int
    no_new_privileges: bool
    capabilities: bool  # any that it has or could pass on
    bounding: bool  # any that a program could bring


@dataclass(frozen=True, slots=True)
class Witness:
    """The kernel's account, read by the app from /proc.

    `descriptors`: what they were after the seal, before the worker hid; None where the kernel would not say.
    `namespaces`: those that are the worker's own. `read_back`: whether the filters in the kernel are those of this
    package, None where it does not show them. `yama`: how far it keeps processes of one user apart. `app_privileged`:
    whether the app has a capability, so that a process without any cannot reach it.
    """

    threads: tuple[Thread, ...] = ()
    descriptors: tuple[str, ...] | None = None
    namespaces: tuple[str, ...] = ()
    filter_sha256: str = ""
    read_back: bool | None = None
    yama: int = 0
    app_privileged: bool = False

    @property
    def filtered(self) -> bool:
        """Whether the kernel says of every thread that a filter is in force."""
        return bool(self.threads) and all(thread.seccomp == 2 for thread in self.threads)

    @property
    def without_new_privileges(self) -> bool:
        """Whether no thread can gain privileges."""
        return bool(self.threads) and all(thread.no_new_privileges for thread in self.threads)

    @property
    def without_capabilities(self) -> bool:
        """Whether no thread has a capability."""
        return bool(self.threads) and not any(thread.capabilities for thread in self.threads)

    @property
    def bounding_empty(self) -> bool:
        """Whether no program could bring a capability, either."""
        return bool(self.threads) and not any(thread.bounding for thread in self.threads)

    @property
    def descriptors_clean(self) -> bool:
        """Whether the worker was seen to hold pipes and the null device only: no socket in particular."""
        return self.descriptors is not None and all(
            target.startswith("pipe:") or target == os.devnull for target in self.descriptors
        )


def read_threads(pid: int, proc: Path = Path("/proc")) -> tuple[Thread, ...]:
    """What the kernel says of each thread; empty where there is nothing to read."""
    threads = []
    try:
        for task in (proc / str(pid) / "task").iterdir():
            try:
                status = _fields((task / "status").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue  # the thread has ended meanwhile
            threads.append(
                Thread(
                    int(status.get("Seccomp", "0")),
                    status.get("NoNewPrivs") == "1",
                    any(int(status.get(name, "f"), 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")),
                    int(status.get("CapBnd", "f"), 16) != 0,
                )
            )
    except (OSError, ValueError):
        return ()
    return tuple(threads)


def read_descriptors(pid: int, proc: Path = Path("/proc")) -> tuple[str, ...] | None:
    """Targets of the open descriptors; None where the kernel would not say."""
    try:
        return tuple(sorted(str(entry.readlink()) for entry in (proc / str(pid) / "fd").iterdir()))
    except OSError:
        return None


def read_namespaces(pid: int, proc: Path = Path("/proc")) -> tuple[str, ...]:
    """The namespaces that a process does not share with this one; none where the kernel would not say."""
    try:
        return tuple(
            name
            for name in _NAMESPACES
            if (proc / str(pid) / "ns" / name).readlink() != (proc / "self" / "ns" / name).readlink()
        )
    except OSError:
        return ()


def read_yama(path: Path = _YAMA) -> int:
    """How far the Yama module keeps processes of one user apart; 0: not at all."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def capabilities(proc: Path = Path("/proc")) -> int:
    """The capabilities that this process has in force."""
    try:
        return int(_fields((proc / "self" / "status").read_text()).get("CapEff", "0"), 16)
    except (OSError, ValueError):
        return 0


def compare_filters(pid: int, machine: str, *, told: bool) -> tuple[str, bool | None]:
    """The digest of the filters that this package makes, and whether the kernel shows exactly those.

    None for the comparison where it shows none: to a process without CAP_SYS_ADMIN, and inside another filter.
    """
    from ondevice_sdk.privacy.readback import read_filters
    from ondevice_sdk.privacy.sandbox.filter import assemble, first_filter, second_filter
    from ondevice_sdk.privacy.sandbox.kernel import MACHINES

    if machine not in MACHINES:
        return "", None
    expected = (assemble(first_filter(machine, pid, tell=told)), assemble(second_filter(machine)))
    digest = hashlib.sha256(b"".join(expected)).hexdigest()
    if not capabilities() & _SYS_ADMIN:
        return digest, None
    try:
        return digest, read_filters(pid) == expected
    except OSError:
        return digest, None


def _fields(status: str) -> Mapping[str, str]:
    pairs = (line.partition(":") for line in status.splitlines())
    return {name: value.strip() for name, _, value in pairs}
