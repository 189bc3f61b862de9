from __future__ import annotations

from pathlib import Path

import pytest

from ondevice_sdk.device import linux
from ondevice_sdk.device.linux import Process
from ondevice_sdk.types import DeviceProfile

X86 = """\
processor\t: 0
model name\t: Intel(R) Core(TM) i7-1165G7 @ 2.80GHz
physical id\t: 0
siblings\t: 4
core id\t\t: 0
flags\t\t: fpu sse2 avx fma f16c avx2 avx512f avx512_vnni

processor\t: 1
model name\t: Intel(R) Core(TM) i7-1165G7 @ 2.80GHz
physical id\t: 0
siblings\t: 4
core id\t\t: 1
flags\t\t: fpu sse2 avx fma f16c avx2 avx512f avx512_vnni

processor\t: 2
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu sse2 avx fma f16c avx2 avx512f avx512_vnni

processor\t: 3
physical id\t: 0
core id\t\t: 1
flags\t\t: fpu sse2 avx fma f16c avx2 avx512f avx512_vnni
"""

ARM = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes asimddp i8mm
CPU implementer\t: 0x41

processor\t: 1
Features\t: fp asimd evtstrm aes asimddp

Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""

MEMINFO = """\
MemTotal:       16000000 kB
MemFree:         1000000 kB
MemAvailable:    8000000 kB
Cached:          6000000 kB
"""

V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNTS = (
    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
)


def write(system: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = system / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return system


def recorded(system: Path) -> Path:
    return write(system, {"proc/cpuinfo": X86, "proc/meminfo": MEMINFO})


def read(system: Path, process: Process | None = None) -> DeviceProfile:
    return linux.read(system, process or Process(), machine="x86_64")


def test_a_plain_machine(tmp_path: Path) -> None:
    profile = read(recorded(tmp_path))
    assert profile.cpu_name == "Intel(R) Core(TM) i7-1165G7 @ 2.80GHz"
    assert profile.instruction_sets == ("avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni")
    assert (profile.physical_cores, profile.usable_cores) == (2, 2)  # four threads on two cores
    assert profile.memory_bytes == 16_000_000 * 1024
    assert profile.memory_available_bytes == 8_000_000 * 1024
    assert profile.read_bandwidth is None
    assert profile.on_battery is None
    assert profile.limits == ()


def test_arm_has_no_core_ids_and_counts_what_all_cores_have() -> None:
    cpu = linux.parse_cpuinfo(ARM)
    assert cpu.name == "Raspberry Pi 5 Model B Rev 1.0"
    assert cpu.instruction_sets == ("neon", "dotprod")  # the second core lacks i8mm
    assert len(set(cpu.cores.values())) == 2


def test_nothing_readable_gives_cautious_figures(tmp_path: Path) -> None:
    profile = read(tmp_path)
    assert profile.memory_bytes == linux.CAUTIOUS_MEMORY
    assert profile.memory_available_bytes == linux.CAUTIOUS_MEMORY // 2
    assert (profile.physical_cores, profile.usable_cores) == (1, 1)
    assert profile.instruction_sets == ()
    assert "memory size unknown" in profile.limits[0]


@pytest.mark.parametrize("text", ["", "garbage", "MemTotal: lots kB", "MemTotal:\n"])
def test_bad_meminfo(text: str) -> None:
    assert linux.parse_meminfo(text) is None


def test_old_meminfo_without_available() -> None:
    bound = linux.parse_meminfo("MemTotal: 100 kB\nMemFree: 10 kB\nCached: 20 kB\n")
    assert bound is not None
    assert (bound.total, bound.available) == (100 * 1024, 30 * 1024)


def test_affinity_counts_cores_not_threads(tmp_path: Path) -> None:
    system = recorded(tmp_path)
    both_threads_of_one = read(system, Process(cpus=frozenset({0, 2})))
    assert both_threads_of_one.usable_cores == 1
    assert both_threads_of_one.limits == ("CPU affinity: 2 of 4 logical CPUs",)
    assert read(system, Process(cpus=frozenset({0, 1}))).usable_cores == 2


def test_address_space_limits(tmp_path: Path) -> None:
    profile = read(recorded(tmp_path), Process(address_space=2_000_000_000, data=3_000_000_000))
    assert profile.memory_bytes == 2_000_000_000
    assert profile.memory_available_bytes == 2_000_000_000
    assert any("RLIMIT_AS" in line for line in profile.limits)
    assert any("RLIMIT_DATA" in line for line in profile.limits)


def test_cgroup_v2_nearest_limit_of_all_ancestors(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/user.slice/app.scope"
    system = write(
        recorded(tmp_path),
        {
            "proc/self/cgroup": "0::/user.slice/app.scope\n",
            "proc/self/mountinfo": V2_MOUNT,
            f"{group}/memory.max": "max\n",
            f"{group}/memory.high": "3000000000\n",
            f"{group}/memory.current": "1000000000\n",
            f"{group}/memory.stat": "anon 5\ninactive_file 400000000\n",
            f"{group}/cpu.max": "max 100000\n",
            "sys/fs/cgroup/user.slice/memory.max": "2000000000\n",
            "sys/fs/cgroup/user.slice/memory.current": "1500000000\n",
            "sys/fs/cgroup/user.slice/cpu.max": "150000 100000\n",
        },
    )
    profile = read(system)
    assert profile.memory_bytes == 2_000_000_000  # the parent's, which is tighter
    assert profile.memory_available_bytes == 500_000_000
    assert profile.usable_cores == 1
    assert "cgroup CPU quota: 1.5 CPUs" in profile.limits
    assert "cgroup memory limit: 3,000 MB, 2,400 MB of it free" in profile.limits  # page cache can be had back


def test_cgroup_v2_in_a_container_that_shows_only_its_own_group(tmp_path: Path) -> None:
    # The path is one of the host; the mount's root says that what is visible begins there.
    system = write(
        recorded(tmp_path),
        {
            "proc/self/cgroup": "0::/docker/abc\n",
            "proc/self/mountinfo": V2_MOUNT.replace(" / /sys", " /docker/abc /sys"),
            "sys/fs/cgroup/memory.max": "536870912\n",
            "sys/fs/cgroup/memory.current": "36870912\n",
        },
    )
    profile = read(system)
    assert profile.memory_bytes == 536_870_912
    assert profile.memory_available_bytes == 500_000_000


@pytest.mark.parametrize("path", ["/../../elsewhere", "/not/visible"])
def test_cgroup_v2_of_another_name_space_falls_back_to_the_mount(tmp_path: Path, path: str) -> None:
    system = write(
        recorded(tmp_path),
        {
            "proc/self/cgroup": f"0::{path}\n",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/memory.max": "1000000000\n",
        },
    )
    assert read(system).memory_bytes == 1_000_000_000


def test_cgroup_v1_nested(tmp_path: Path) -> None:
    memory, cpu = "sys/fs/cgroup/memory/job/step", "sys/fs/cgroup/cpu,cpuacct/job"
    system = write(
        recorded(tmp_path),
        {
            "proc/self/cgroup": "9:name=systemd:/\n4:memory:/job/step\n2:cpu,cpuacct:/job\n0::/\n",
            "proc/self/mountinfo": V1_MOUNTS,
            f"{memory}/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "4000000000\n",
            "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "3000000000\n",
            "sys/fs/cgroup/memory/job/memory.stat": "cache 9\ntotal_inactive_file 1000000000\n",
            f"{cpu}/cpu.cfs_quota_us": "50000\n",
            f"{cpu}/cpu.cfs_period_us": "100000\n",
        },
    )
    profile = read(system)
    assert profile.memory_bytes == 4_000_000_000
    assert profile.memory_available_bytes == 2_000_000_000
    assert profile.usable_cores == 1
    assert any("version 1" in line for line in profile.limits)


def test_cgroup_v1_without_limits(tmp_path: Path) -> None:
    system = write(
        recorded(tmp_path),
        {
            "proc/self/cgroup": "4:memory:/\n2:cpu,cpuacct:/\n",
            "proc/self/mountinfo": V1_MOUNTS,
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
    )
    assert read(system) == read(recorded(tmp_path / "plain"))


def test_unreadable_cgroup_files_are_no_limit(tmp_path: Path) -> None:
    system = write(
        recorded(tmp_path),
        {
            "proc/self/cgroup": "garbage\n0::/\n",
            "proc/self/mountinfo": f"short line\n{V2_MOUNT}",
            "sys/fs/cgroup/memory.max": "lots\n",
            "sys/fs/cgroup/cpu.max": "\n",
        },
    )
    assert read(system).limits == ()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"AC/type": "Mains", "AC/online": "1"}, None),
        ({"BAT0/type": "Battery", "BAT0/status": "Discharging", "AC/type": "Mains", "AC/online": "0"}, True),
        ({"BAT0/type": "Battery", "BAT0/status": "Discharging"}, True),
        ({"BAT0/type": "Battery", "BAT0/status": "Charging", "AC/type": "Mains", "AC/online": "1"}, False),
        ({"BAT0/type": "Battery", "BAT0/status": "Not charging"}, False),
        ({"mouse/type": "Battery", "mouse/scope": "Device", "mouse/status": "Discharging"}, None),
    ],
)
def test_battery(tmp_path: Path, files: dict[str, str], expected: bool | None) -> None:
    assert linux.on_battery(write(tmp_path, {f"p/{name}": text for name, text in files.items()}) / "p") is expected
