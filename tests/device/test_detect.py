from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ondevice_sdk import device
from ondevice_sdk.device import bandwidth

ON_LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads this machine through /proc")


@ON_LINUX
def test_this_machine() -> None:
    import os

    profile = device.detect()
    assert profile.system == "linux"
    assert 0 < profile.memory_available_bytes <= profile.memory_bytes
    assert 1 <= profile.usable_cores <= len(os.sched_getaffinity(0))
    assert profile.read_bandwidth is None


@ON_LINUX
def test_limits_of_this_process_are_seen() -> None:
    code = """
import json, os, resource
from ondevice_sdk.device import detect
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
resource.setrlimit(resource.RLIMIT_AS, (700_000_000, resource.RLIM_INFINITY))
profile = detect()
print(json.dumps([profile.usable_cores, profile.memory_bytes, profile.limits]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    cores, memory, limits = json.loads(done.stdout)
    assert cores == 1
    assert memory <= 700_000_000
    assert any("RLIMIT_AS" in line for line in limits)


def test_bandwidth_is_measured_once() -> None:
    first = device.detect(measure=True).read_bandwidth
    assert first is not None
    assert 1e8 < first < 1e13
    assert bandwidth.measure.cache_info().currsize >= 1
    before = bandwidth.measure.cache_info().misses
    profile = device.detect()
    again = bandwidth.measure(profile.usable_cores, 1 << 20)
    assert again == bandwidth.measure(profile.usable_cores, 1 << 20)
    assert bandwidth.measure.cache_info().misses == before + 1


def test_the_copying_fallback_counts_both_directions() -> None:
    import ctypes

    region = ctypes.create_string_buffer(b"-" * 500 + b"x" * 500, 1000)
    assert bandwidth._memmove(ctypes.addressof(region), 1000) == 1000
    assert region.raw == b"x" * 1000


def test_no_room_to_measure_is_a_line_in_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(cores: int, most_bytes: int) -> float:
        raise MemoryError

    monkeypatch.setattr(bandwidth, "measure", fail)
    profile = device.detect(measure=True)
    assert profile.read_bandwidth is None
    assert "could not be measured" in profile.limits[-1]
