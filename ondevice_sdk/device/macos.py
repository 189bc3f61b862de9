"""macOS: sysctl, vm_stat and pmset."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable, Sequence

from ondevice_sdk.types import DeviceProfile

Run = Callable[[Sequence[str]], str]

CAUTIOUS_MEMORY = 2_000_000_000  # bytes assumed where the system does not tell

# sysctl's name of a feature -> ours
_FEATURES = {
    "hw.optional.avx1_0": "avx",
    "hw.optional.avx2_0": "avx2",
    "hw.optional.fma": "fma",
    "hw.optional.f16c": "f16c",
    "hw.optional.avx512f": "avx512f",
    "hw.optional.arm.AdvSIMD": "neon",
    "hw.optional.neon": "neon",
    "hw.optional.arm.FEAT_DotProd": "dotprod",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
}


def read(run: Run | None = None, machine: str | None = None) -> DeviceProfile:
    """Describe this machine. Never raises for what is missing.

    `run` gives a command's output; tests pass recorded text.
    """
    run = run or _run
    values = parse_sysctl(run(["sysctl", "hw", "machdep.cpu.brand_string"]))
    notes: list[str] = []
    total = _integer(values.get("hw.memsize"))
    available = parse_vm_stat(run(["vm_stat"]))
    if total is None:
        total = CAUTIOUS_MEMORY
        notes.append("memory size unknown: 2,000 MB assumed")
    if available is None:
        available = total // 4
        notes.append("free memory unknown: a quarter of the memory assumed")
    physical = _integer(values.get("hw.physicalcpu")) or 1
    # The efficiency cores of Apple silicon slow the common steps of a matrix product down: count the fast ones.
    fast = _integer(values.get("hw.perflevel0.physicalcpu"))
    if fast is not None and fast < physical:
        notes.append(f"performance cores: {fast} of {physical}")
    return DeviceProfile(
        system="macos",
        machine=machine or platform.machine(),
        cpu_name=values.get("machdep.cpu.brand_string", "unknown"),
        instruction_sets=tuple(dict.fromkeys(word for key, word in _FEATURES.items() if values.get(key) == "1")),
        physical_cores=physical,
        usable_cores=fast or physical,
        memory_bytes=total,
        memory_available_bytes=min(available, total),
        on_battery=parse_pmset(run(["pmset", "-g", "batt"])),
        limits=tuple(notes),
    )


def parse_sysctl(text: str) -> dict[str, str]:
    """`key: value` lines."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


def parse_vm_stat(text: str) -> int | None:
    """Bytes that can be had without swapping: free, inactive, speculative and purgeable pages."""
    head, _, _ = text.partition("\n")
    sizes = [int(word) for word in head.split() if word.isdigit()]
    if not sizes:
        return None
    pages = 0
    for key, value in parse_sysctl(text).items():
        if key in ("Pages free", "Pages inactive", "Pages speculative", "Pages purgeable"):
            pages += int(value.rstrip(".")) if value.rstrip(".").isdigit() else 0
    return pages * sizes[0] if pages else None


def parse_pmset(text: str) -> bool | None:
    """`pmset -g batt`; None where there is no battery."""
    if "InternalBattery" not in text:
        return None
    return "'Battery Power'" in text


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None


def _run(command: Sequence[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
