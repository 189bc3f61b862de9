"""Cores of Linux: which logical CPUs are threads of one core, and which cores are fast enough to work together.

Sources: Linux, Documentation/admin-guide/cputopology.rst and Documentation/ABI/testing/sysfs-devices-system-cpu.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

FASTEST = 1024  # the kernel's `cpu_capacity` of the fastest core
_EFFICIENT = FASTEST // 2  # assumed of Intel's efficiency cores where the kernel gives no capacity
# Threads meet after every step of a matrix product and wait for the slowest, so a slow core costs all the others.
_FAST_SHARE = 2 / 3


@dataclass(frozen=True, slots=True)
class Core:
    """A physical core: its logical CPUs, and its speed beside the `FASTEST`."""

    cpus: frozenset[int]
    speed: int = FASTEST


def parse_cpu_list(text: str) -> frozenset[int]:
    """The kernel's form of a set of CPUs, such as "0-3,8,10-11"; empty for anything else."""
    numbers: set[int] = set()
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and int(last) < 1 << 16):
            return frozenset()
        numbers.update(range(int(first), int(last) + 1))
    return frozenset(numbers)


def read(devices: Path, known: Mapping[int, tuple[str, str]]) -> tuple[Core, ...]:
    """The physical cores of this machine.

    Args:
        devices: the folder /sys/devices.
        known: the logical CPUs that are online, with package and core as /proc/cpuinfo names them, which counts where
            the kernel shows no topology.
    """
    efficient = parse_cpu_list(_text(devices / "cpu_atom/cpus"))
    threads: dict[frozenset[int] | tuple[str, str], set[int]] = {}
    speeds: dict[int, int] = {}
    for number, name in known.items():
        folder = devices / f"system/cpu/cpu{number}"
        siblings = _text(folder / "topology/core_cpus_list") or _text(folder / "topology/thread_siblings_list")
        together = parse_cpu_list(siblings)
        threads.setdefault(together if number in together else name, set()).add(number)
        capacity = _text(folder / "cpu_capacity").strip()
        if capacity.isdecimal() and int(capacity):
            speeds[number] = int(capacity)
        else:
            speeds[number] = _EFFICIENT if number in efficient else FASTEST
    return tuple(Core(frozenset(cpus), max(speeds[number] for number in cpus)) for cpus in threads.values())


def usable(cores: Iterable[Core], allowed: frozenset[int] | None) -> tuple[Core, ...]:
    """The cores on which at least one logical CPU is `allowed`; None: all."""
    return tuple(core for core in cores if allowed is None or core.cpus & allowed)


def fast(cores: Iterable[Core]) -> tuple[Core, ...]:
    """Those that are not much slower than the fastest of them."""
    cores = tuple(cores)
    most = max((core.speed for core in cores), default=0)
    return tuple(core for core in cores if core.speed >= _FAST_SHARE * most)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
