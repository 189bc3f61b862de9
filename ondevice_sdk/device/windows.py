"""Windows: the values that Python and psutil give there."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

from ondevice_sdk.types import DeviceProfile

CAUTIOUS_MEMORY = 2_000_000_000  # bytes assumed where the system does not tell

# IsProcessorFeaturePresent of the Win32 API, winnt.h: number -> our word
FEATURES = {
    39: "avx",  # PF_AVX_INSTRUCTIONS_AVAILABLE
    40: "avx2",  # PF_AVX2_INSTRUCTIONS_AVAILABLE
    41: "avx512f",  # PF_AVX512F_INSTRUCTIONS_AVAILABLE
    19: "neon",  # PF_ARM_NEON_INSTRUCTIONS_AVAILABLE
    43: "dotprod",  # PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE
}


@dataclass(frozen=True, slots=True)
class Values:
    """What was read; None where the system did not tell."""

    machine: str = ""
    cpu_name: str = ""
    features: frozenset[int] = frozenset()
    physical_cores: int | None = None
    logical_cpus: int | None = None
    affinity: int | None = None  # logical CPUs this process may run on
    memory: int | None = None
    available: int | None = None
    on_battery: bool | None = None


def read() -> DeviceProfile:
    """Describe this machine. Never raises for what is missing."""
    return describe(_values())


def describe(values: Values) -> DeviceProfile:
    """Make a profile of what was read."""
    notes: list[str] = []
    memory, available = values.memory, values.available
    if memory is None:
        memory = CAUTIOUS_MEMORY
        notes.append("memory size unknown: 2,000 MB assumed")
    if available is None:
        available = memory // 4
        notes.append("free memory unknown: a quarter of the memory assumed")
    logical = max(1, values.logical_cpus or 1)
    physical = max(1, values.physical_cores or logical)
    usable = physical
    if values.affinity is not None and values.affinity < logical:
        notes.append(f"CPU affinity: {values.affinity} of {logical} logical CPUs")
        usable = max(1, min(physical, values.affinity))
    return DeviceProfile(
        system="windows",
        machine=_machine(values.machine),
        cpu_name=values.cpu_name or "unknown",
        instruction_sets=tuple(word for number, word in FEATURES.items() if number in values.features),
        physical_cores=physical,
        usable_cores=usable,
        memory_bytes=memory,
        memory_available_bytes=min(available, memory),
        on_battery=values.on_battery,
        limits=tuple(notes),
    )


def _machine(word: str) -> str:
    return {"AMD64": "x86_64", "ARM64": "aarch64"}.get(word.upper(), word.lower())


def _values() -> Values:
    import psutil

    battery = psutil.sensors_battery()
    memory = psutil.virtual_memory()
    return Values(
        machine=platform.machine(),
        cpu_name=platform.processor(),
        features=_present_features(),
        physical_cores=psutil.cpu_count(logical=False),
        logical_cpus=os.cpu_count(),
        affinity=len(psutil.Process().cpu_affinity() or ()) or None,
        memory=memory.total,
        available=memory.available,
        on_battery=None if battery is None else not battery.power_plugged,
    )


def _present_features() -> frozenset[int]:
    import ctypes

    loader = getattr(ctypes, "windll", None)  # only on Windows
    if loader is None:
        return frozenset()
    present = loader.kernel32.IsProcessorFeaturePresent
    return frozenset(number for number in FEATURES if present(number))
