"""How many threads a model runs with: cores and not threads of cores, the fast ones, and no more than the quota."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ondevice_sdk.device import cgroup, cores, linux
from ondevice_sdk.device.cores import Core
from ondevice_sdk.device.linux import Process
from ondevice_sdk.types import DeviceProfile

from .test_linux import MEMINFO, V2_MOUNT, write


def machine(system: Path, siblings: dict[int, str], **more: str) -> Path:
    """A machine on which /proc/cpuinfo names no cores, and /sys does."""
    files = {f"sys/devices/system/cpu/cpu{cpu}/topology/core_cpus_list": f"{text}\n" for cpu, text in siblings.items()}
    cpuinfo = "".join(f"processor\t: {number}\n\n" for number in siblings)
    return write(system, {"proc/cpuinfo": cpuinfo, "proc/meminfo": MEMINFO, **files, **more})


def read(system: Path, cpus: set[int] | None = None) -> DeviceProfile:
    return linux.read(system, Process(None if cpus is None else frozenset(cpus)), machine="x86_64")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0\n", {0}),
        ("0-3", {0, 1, 2, 3}),
        ("0,4", {0, 4}),
        ("0-1,8,10-11\n", {0, 1, 8, 10, 11}),
        ("", set()),
        ("\n", set()),
        ("all", set()),
        ("1-", set()),
        ("-1", set()),
        ("0-99999999999", set()),
    ],
)
def test_lists_of_cpus(text: str, numbers: set[int]) -> None:
    assert cores.parse_cpu_list(text) == numbers


def test_threads_of_one_core_count_once(tmp_path: Path) -> None:
    system = machine(tmp_path, {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"})
    assert (read(system).physical_cores, read(system).threads) == (2, 2)
    assert read(system, {0, 1}).threads == 1
    assert read(system, {1, 2}).threads == 2


def test_older_kernels_have_another_name_for_the_siblings(tmp_path: Path) -> None:
    system = machine(tmp_path, {0: "0,2", 1: "1", 2: "0,2"})
    for cpu in range(3):
        folder = system / f"sys/devices/system/cpu/cpu{cpu}/topology"
        (folder / "core_cpus_list").rename(folder / "thread_siblings_list")
    assert read(system).threads == 2


def test_what_sys_says_of_a_cpu_must_hold_that_cpu(tmp_path: Path) -> None:
    assert read(machine(tmp_path, {0: "7", 1: "7"})).threads == 2


def test_without_cpuinfo_the_affinity_is_counted(tmp_path: Path) -> None:
    profile = read(tmp_path, {0, 3, 5})
    assert (profile.physical_cores, profile.threads) == (3, 3)


def test_efficiency_cores_of_x86(tmp_path: Path) -> None:
    atom = {"sys/devices/cpu_core/cpus": "0-3\n", "sys/devices/cpu_atom/cpus": "4-7\n"}
    siblings = {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3", 4: "4", 5: "5", 6: "6", 7: "7"}
    system = machine(tmp_path, siblings, **atom)
    profile = read(system)
    assert (profile.physical_cores, profile.threads) == (6, 2)
    assert profile.limits == ("performance cores: 2 of 6",)
    assert read(system, {4, 5, 6}).threads == 3  # nothing else may be used


@pytest.mark.parametrize(
    ("capacities", "threads"),
    [
        ([1024, 1024, 1024, 1024], 4),
        ([446, 446, 446, 446, 1024, 1024], 2),
        ([325, 325, 870, 870, 870, 1024], 4),
        ([250, 250], 2),  # the fastest of them
        ([0, 0], 2),  # unknown
    ],
)
def test_small_cores_of_arm(tmp_path: Path, capacities: list[int], threads: int) -> None:
    files = {f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity": f"{value}\n" for cpu, value in enumerate(capacities)}
    system = machine(tmp_path, {cpu: str(cpu) for cpu in range(len(capacities))}, **files)
    assert read(system).threads == threads
    assert read(system).physical_cores == len(capacities)


def test_no_cores_at_all() -> None:
    assert cores.fast(cores.usable([], None)) == ()
    assert cores.usable([Core(frozenset({0}))], frozenset({1})) == ()


@pytest.mark.parametrize(
    ("outer", "inner", "threads"),
    [
        ("max 100000", "max 100000", 4),
        ("50000 100000", "max 100000", 1),  # half a CPU still takes a thread
        ("max 100000", "290000 100000", 2),  # the third would be throttled, and hold up the others
        ("150000 50000", "800000 100000", 3),
        ("300000 100000", "200000 100000", 2),
        ("400000", "max", 4),
    ],
)
def test_quotas_of_nested_groups(tmp_path: Path, outer: str, inner: str, threads: int) -> None:
    system = machine(
        tmp_path,
        {cpu: str(cpu) for cpu in range(4)},
        **{
            "proc/self/cgroup": "0::/outer/inner\n",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/outer/cpu.max": f"{outer}\n",
            "sys/fs/cgroup/outer/inner/cpu.max": f"{inner}\n",
        },
    )
    assert read(system).threads == threads
    assert read(system, {0}).threads == 1


# --- for real ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def nested(tmp_path: Path) -> Iterator[Path]:
    """A control group without a limit of its own, in one that may use half a CPU."""
    mounts = cgroup.parse_mounts(Path("/proc/self/mountinfo").read_text())
    groups = cgroup.parse_membership(Path("/proc/self/cgroup").read_text())
    for mount in mounts:
        own = groups.get("" if mount.version == 2 else "cpu")
        if own is None or (mount.version == 1 and "cpu" not in mount.controllers):
            continue
        inside = own.relative_to(mount.root) if own.is_relative_to(mount.root) else Path()
        outer = Path(mount.point) / inside / f"ondevice-test-{os.getpid()}"
        try:
            outer.mkdir()
        except OSError:
            continue
        try:
            if _halve(outer, mount.version):
                inner = outer / "inner"
                inner.mkdir()
                yield inner
                inner.rmdir()
                return
        finally:
            outer.rmdir()
    pytest.skip("no control group for CPU time can be made here")


def _halve(group: Path, version: int) -> bool:
    try:
        if version == 2:
            (group / "cpu.max").write_text("50000 100000")
        else:
            (group / "cpu.cfs_period_us").write_text("100000")
            (group / "cpu.cfs_quota_us").write_text("50000")
    except OSError:  # this hierarchy does not share out CPU time
        return False
    return True


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="control groups are Linux's")
def test_a_real_quota(nested: Path) -> None:
    code = """
import json, os, sys
from pathlib import Path
from ondevice_sdk.device import detect
before = detect()
(Path(sys.argv[1]) / "cgroup.procs").write_text(str(os.getpid()))
after = detect()
print(json.dumps([before.limits, after.limits, after.threads]))
"""
    done = subprocess.run([sys.executable, "-c", code, str(nested)], capture_output=True, text=True, check=True)
    before, after, threads = json.loads(done.stdout)
    assert "cgroup CPU quota: 0.5 CPUs" in after
    assert "cgroup CPU quota: 0.5 CPUs" not in before
    assert threads == 1
