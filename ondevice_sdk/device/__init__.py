"""This machine, as far as this process may use it."""

from __future__ import annotations

import dataclasses
import sys

from ondevice_sdk.types import DeviceProfile

__all__ = ["DeviceProfile", "detect", "with_bandwidth"]


def detect(*, measure: bool = False) -> DeviceProfile:
    """Describe this machine: quick, silent, and never raising for what is missing.

    With `measure` the read bandwidth is measured too, once per process (about 0.15 s on all usable cores); without, it
    is None.
    """
    profile = _read()
    return with_bandwidth(profile) if measure else profile


def with_bandwidth(profile: DeviceProfile) -> DeviceProfile:
    """The profile with the read bandwidth, measured once per process."""
    from ondevice_sdk.device import bandwidth

    try:
        speed = bandwidth.measure(profile.usable_cores, _region(profile))
    except (MemoryError, RuntimeError):  # no room for the regions, or for the threads
        limits = (*profile.limits, "memory bandwidth could not be measured")
        return dataclasses.replace(profile, limits=limits)
    return dataclasses.replace(profile, read_bandwidth=speed)


def _read() -> DeviceProfile:
    if sys.platform == "darwin":
        from ondevice_sdk.device import macos

        return macos.read()
    if sys.platform == "win32":
        from ondevice_sdk.device import windows

        return windows.read()
    from ondevice_sdk.device import linux

    return linux.read()


def _region(profile: DeviceProfile) -> int:
    """Bytes that a measurement may take: a power of two, so that it is the same from call to call."""
    return 1 << max(20, (profile.memory_available_bytes // 8).bit_length() - 1)
