from __future__ import annotations

from ondevice_sdk.device import windows
from ondevice_sdk.device.windows import Values


def test_a_laptop() -> None:
    profile = windows.describe(
        Values(
            machine="AMD64",
            cpu_name="Intel64 Family 6 Model 140 Stepping 1, GenuineIntel",
            features=frozenset({39, 40, 6}),
            physical_cores=4,
            logical_cpus=8,
            affinity=8,
            memory=16_000_000_000,
            available=6_000_000_000,
            on_battery=True,
        )
    )
    assert profile.system == "windows"
    assert profile.machine == "x86_64"
    assert profile.instruction_sets == ("avx", "avx2")
    assert (profile.physical_cores, profile.usable_cores) == (4, 4)
    assert profile.memory_available_bytes == 6_000_000_000
    assert profile.on_battery is True
    assert profile.limits == ()


def test_affinity() -> None:
    profile = windows.describe(Values(physical_cores=4, logical_cpus=8, affinity=2, memory=1, available=1))
    assert profile.usable_cores == 2
    assert profile.limits == ("CPU affinity: 2 of 8 logical CPUs",)


def test_nothing_known_gives_cautious_figures() -> None:
    profile = windows.describe(Values())
    assert profile.memory_bytes == windows.CAUTIOUS_MEMORY
    assert profile.memory_available_bytes == windows.CAUTIOUS_MEMORY // 4
    assert (profile.physical_cores, profile.usable_cores) == (1, 1)
    assert len(profile.limits) == 2
