"""What else a reader of the figures must know: versions, and what may have disturbed the measurement."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Sequence
from typing import Final

from ondevice_sdk.bench.report import SubjectResult, kind
from ondevice_sdk.types import DeviceProfile

_PACKAGES: Final = ("llama-cpp-python", "llguidance", "numpy")
_BUSY: Final = 0.15  # of the machine's CPUs, by others, while this process only waits
_LISTEN_S: Final = 0.5


def versions() -> dict[str, str]:
    """Versions of the interpreter and of the libraries that do the work."""
    found = {"python": sys.version.split()[0]}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def disturbances(device: DeviceProfile) -> tuple[str, ...]:
    """What speaks against measuring now; takes half a second."""
    import psutil

    found = []
    busy = psutil.cpu_percent(_LISTEN_S) / 100
    if busy > _BUSY:
        found.append(f"other processes use {busy:.0%} of the CPUs")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > device.usable_cores / 2:
        found.append(f"the load average of the last minute is {load:.1f} on {device.usable_cores} cores")
    if device.on_battery:
        found.append("the machine runs on its battery: its clock may be held down")
    return tuple(found)


def noise(results: Sequence[SubjectResult]) -> tuple[str, ...]:
    """Figures whose samples lie so far apart that they say little."""
    return tuple(
        f"{result.label}: '{kind(name).title}' is noisy, its samples spread over {result.figures[name].spread:.0%}"
        for result in results
        for name in result.noisy
        if kind(name).better != "neither"
    )
