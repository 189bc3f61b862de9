from __future__ import annotations

from collections.abc import Sequence

import pytest

from ondevice_sdk.device import macos

SYSCTL = """\
hw.ncpu: 8
hw.physicalcpu: 8
hw.memsize: 17179869184
hw.perflevel0.physicalcpu: 4
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 0
hw.optional.neon: 1
hw.optional.arm.AdvSIMD: 1
machdep.cpu.brand_string: Apple M1
"""

VM_STAT = """\
Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               10000.
Pages active:                            300000.
Pages inactive:                          200000.
Pages speculative:                         5000.
Pages throttled:                              0.
Pages purgeable:                           1000.
"""

BATTERY = """\
Now drawing from 'Battery Power'
 -InternalBattery-0 (id=1234567)\t85%; discharging; 4:32 remaining present: true
"""


def recorded(outputs: dict[str, str]) -> macos.Run:
    def run(command: Sequence[str]) -> str:
        return outputs.get(command[0], "")

    return run


def test_apple_silicon() -> None:
    run = recorded({"sysctl": SYSCTL, "vm_stat": VM_STAT, "pmset": BATTERY})
    profile = macos.read(run, machine="arm64")
    assert profile.system == "macos"
    assert profile.cpu_name == "Apple M1"
    assert profile.instruction_sets == ("neon", "dotprod")
    assert (profile.physical_cores, profile.usable_cores) == (8, 4)
    assert profile.memory_bytes == 17_179_869_184
    assert profile.memory_available_bytes == 216_000 * 16384
    assert profile.on_battery is True
    assert profile.limits == ("performance cores: 4 of 8",)


def test_nothing_readable_gives_cautious_figures() -> None:
    profile = macos.read(recorded({}), machine="arm64")
    assert profile.memory_bytes == macos.CAUTIOUS_MEMORY
    assert profile.memory_available_bytes == macos.CAUTIOUS_MEMORY // 4
    assert profile.usable_cores == 1
    assert len(profile.limits) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("Now drawing from 'AC Power'\n", None),
        ("Now drawing from 'AC Power'\n -InternalBattery-0 (id=1)\t100%; charged;\n", False),
        (BATTERY, True),
    ],
)
def test_battery(text: str, expected: bool | None) -> None:
    assert macos.parse_pmset(text) is expected


@pytest.mark.parametrize("text", ["", "garbage", "page size of 4096 bytes\nnothing"])
def test_bad_vm_stat(text: str) -> None:
    assert macos.parse_vm_stat(text) is None


def test_missing_commands_are_no_error() -> None:
    assert macos.read(machine="arm64").memory_bytes > 0  # on Linux sysctl knows none of the names
