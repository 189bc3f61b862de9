"""Linux: /proc, /sys, control groups, affinity and resource limits."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ondevice_sdk.device import cgroup, cores
from ondevice_sdk.device.limits import Bound, narrow
from ondevice_sdk.types import DeviceProfile

CAUTIOUS_MEMORY = 1_000_000_000  # bytes assumed where the system does not tell

# Flags that change how fast quantised weights are multiplied, by the kernel's word for them.
_FLAGS = {
    "avx": "avx",
    "avx2": "avx2",
    "fma": "fma",
    "f16c": "f16c",
    "avx_vnni": "avx_vnni",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_int8": "amx_int8",
    "asimd": "neon",
    "neon": "neon",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "sve": "sve",
}


@dataclass(frozen=True, slots=True)
class CpuInfo:
    """What /proc/cpuinfo says. `cores` maps a logical CPU to its physical core."""

    name: str
    instruction_sets: tuple[str, ...]
    cores: dict[int, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Process:
    """What the kernel allows this process: the CPUs it may run on, and its address-space limits in bytes."""

    cpus: frozenset[int] | None = None
    address_space: int | None = None
    data: int | None = None


def read(system: Path = Path("/"), process: Process | None = None, machine: str | None = None) -> DeviceProfile:
    """Describe this machine. Never raises for what is missing: cautious figures, and a line in `limits`.

    `system`, `process` and `machine` are for tests with recorded trees.
    """
    process = process or this_process()
    notes: list[str] = []
    cpu = parse_cpuinfo(_read(system / "proc/cpuinfo"))
    membership, mountinfo = _read(system / "proc/self/cgroup"), _read(system / "proc/self/mountinfo")

    physical = parse_meminfo(_read(system / "proc/meminfo"))
    if physical is None:
        physical = Bound(CAUTIOUS_MEMORY, CAUTIOUS_MEMORY // 2, "assumed")
        notes.append("memory size unknown: 1,000 MB assumed, half of it free")
    bounds = [*cgroup.memory_bounds(system, membership, mountinfo), *_address_limits(process)]
    total, available, words = narrow(physical, bounds)
    notes.extend(words)

    known = cpu.cores or {number: ("", f"cpu{number}") for number in process.cpus or {0}}
    if process.cpus is not None and len(process.cpus) < len(known):
        notes.append(f"CPU affinity: {len(process.cpus)} of {len(known)} logical CPUs")
    # Two threads on one core share its arithmetic: count cores, not threads.
    every = cores.read(system / "sys/devices", known)
    allowed = cores.usable(every, process.cpus)
    fast = cores.fast(allowed)
    if len(fast) < len(allowed):
        notes.append(f"performance cores: {len(fast)} of {len(allowed)}")
    usable = max(1, len(fast))
    quota = cgroup.cpu_quota(system, membership, mountinfo)
    if quota is not None and quota < usable:
        notes.append(f"cgroup CPU quota: {quota:g} CPUs")
        usable = max(1, int(quota))  # more threads than the quota only get throttled
    return DeviceProfile(
        system="linux",
        machine=machine or platform.machine(),
        cpu_name=cpu.name or "unknown",
        instruction_sets=cpu.instruction_sets,
        physical_cores=len(every),
        usable_cores=usable,
        memory_bytes=total,
        memory_available_bytes=available,
        on_battery=on_battery(system / "sys/class/power_supply"),
        limits=tuple(dict.fromkeys(notes)),
    )


def this_process() -> Process:
    """What the kernel says of this process."""
    import resource  # not on Windows

    def soft(kind: int) -> int | None:
        value = resource.getrlimit(kind)[0]
        return None if value == resource.RLIM_INFINITY else value

    return Process(frozenset(os.sched_getaffinity(0)), soft(resource.RLIMIT_AS), soft(resource.RLIMIT_DATA))


def parse_cpuinfo(text: str) -> CpuInfo:
    """/proc/cpuinfo of x86 and ARM: one block of `key : value` lines per logical CPU."""
    name, flags = "", frozenset[str]()
    cores: dict[int, tuple[str, str]] = {}
    current: int | None = None
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        key, value = key.strip(), value.strip()
        if not colon:
            continue
        if key == "processor" and value.isdigit():
            current = int(value)
            cores[current] = ("", f"cpu{current}")  # until the block names its core; ARM never does
        elif key == "physical id" and current is not None:
            cores[current] = (value, cores[current][1])
        elif key == "core id" and current is not None:
            cores[current] = (cores[current][0], value)
        elif key in ("model name", "Model", "Hardware") and not name:
            name = value
        elif key in ("flags", "Features"):
            # Cores of two kinds: only what all have may be counted on.
            flags = frozenset(value.split()) & flags if flags else frozenset(value.split())
    known = tuple(dict.fromkeys(word for flag, word in _FLAGS.items() if flag in flags))
    return CpuInfo(name, known, cores)


def parse_meminfo(text: str) -> Bound | None:
    """/proc/meminfo. Kernels before 3.14 have no MemAvailable; free memory and page cache then stand in."""
    values: dict[str, int] = {}
    for line in text.splitlines():
        key, _, rest = line.partition(":")
        number = rest.split()
        if number and number[0].isdigit():
            values[key] = int(number[0]) * 1024
    if "MemTotal" not in values:
        return None
    estimate = values.get("MemFree", 0) + values.get("Cached", 0)
    return Bound(values["MemTotal"], values.get("MemAvailable", estimate), "physical memory")


def on_battery(supplies: Path) -> bool | None:
    """Whether the machine runs on its battery; None where it has none."""
    found, discharging, mains = False, False, False
    try:
        entries = sorted(supplies.iterdir())
    except OSError:
        return None
    for entry in entries:
        kind = _read(entry / "type").strip()
        if kind == "Battery" and _read(entry / "scope").strip() != "Device":  # "Device" is a mouse or a headset
            found = True
            discharging |= _read(entry / "status").strip() == "Discharging"
        elif kind in ("Mains", "USB"):
            mains |= _read(entry / "online").strip() == "1"
    return (discharging and not mains) if found else None


def _address_limits(process: Process) -> Iterator[Bound]:
    # A worker is a new process under the same limits, so that what this one uses does not count.
    if process.address_space is not None:
        yield Bound(process.address_space, process.address_space, "address-space limit (RLIMIT_AS)")
    if process.data is not None:
        yield Bound(process.data, process.data, "data-segment limit (RLIMIT_DATA)")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
