"""Control groups of Linux, versions 1 and 2: the memory and the CPU time that this process may use.

A limit counts wherever it is set: on the process's own group or on any group above it. In a container the path in
/proc/self/cgroup may be one of the host, which is not visible; the mount then says where the visible tree begins.
Source: Linux, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ondevice_sdk.device.limits import Bound

_UNLIMITED = 1 << 60  # version 1 writes the largest multiple of the page size where there is no limit


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted hierarchy. `root` is the group that is visible at `point`."""

    version: int
    controllers: frozenset[str]
    root: PurePosixPath
    point: PurePosixPath


def parse_membership(text: str) -> dict[str, PurePosixPath]:
    """/proc/self/cgroup: the group of the process by controller; version 2 has the empty name."""
    groups: dict[str, PurePosixPath] = {}
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            for controller in parts[1].split(","):
                groups[controller] = PurePosixPath(parts[2])
    return groups


def parse_mounts(text: str) -> tuple[Mount, ...]:
    """/proc/self/mountinfo: where the hierarchies are mounted. See proc(5) for its fields."""
    mounts: list[Mount] = []
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        left, right = before.split(), after.split()
        if not dash or len(left) < 5 or not right or right[0] not in ("cgroup", "cgroup2"):
            continue
        controllers = frozenset(right[2].split(",")) if len(right) > 2 else frozenset()
        version = 2 if right[0] == "cgroup2" else 1
        mounts.append(Mount(version, controllers, PurePosixPath(left[3]), PurePosixPath(left[4])))
    return tuple(mounts)


def memory_bounds(system: Path, membership: str, mountinfo: str) -> Iterator[Bound]:
    """The memory limits of the process's group and of all groups above it.

    `system` is the root of the file system, for tests with a recorded tree.
    """
    for version, group in _groups(system, membership, mountinfo, "memory"):
        bound = _memory_v2(group) if version == 2 else _memory_v1(group)
        if bound is not None:
            yield bound


def cpu_quota(system: Path, membership: str, mountinfo: str) -> float | None:
    """The CPUs' worth of time that the process may use, None without a limit."""
    quotas = [
        _cpu_v2(group) if version == 2 else _cpu_v1(group)
        for version, group in _groups(system, membership, mountinfo, "cpu")
    ]
    return min((quota for quota in quotas if quota is not None), default=None)


def _groups(system: Path, membership: str, mountinfo: str, controller: str) -> Iterator[tuple[int, Path]]:
    """(version, directory) of the process's group and its ancestors, the innermost first."""
    groups = parse_membership(membership)
    for mount in parse_mounts(mountinfo):
        if mount.version == 2:
            group = groups.get("")
        else:
            group = groups.get(controller) if controller in mount.controllers else None
        if group is None:
            continue
        top = system / str(mount.point).lstrip("/")
        inner = group.relative_to(mount.root) if group.is_relative_to(mount.root) else PurePosixPath()
        if ".." in inner.parts or not (top / inner).is_dir():
            inner = PurePosixPath()  # a group of another name space: what is visible begins at the mount
        for directory in (inner, *inner.parents):
            yield mount.version, top / directory


def _memory_v2(group: Path) -> Bound | None:
    limits = [_number(group / "memory.max"), _number(group / "memory.high")]
    limit = min((value for value in limits if value is not None), default=None)
    if limit is None:
        return None
    used = _number(group / "memory.current") or 0
    return _bound(limit, used, _stat(group / "memory.stat", "inactive_file"), "cgroup memory limit")


def _memory_v1(group: Path) -> Bound | None:
    limit = _number(group / "memory.limit_in_bytes")
    if limit is None or limit >= _UNLIMITED:
        return None
    used = _number(group / "memory.usage_in_bytes") or 0
    return _bound(limit, used, _stat(group / "memory.stat", "total_inactive_file"), "cgroup memory limit (version 1)")


def _bound(limit: int, used: int, reclaimable: int, why: str) -> Bound:
    # Page cache counts as used but the kernel gives it back under pressure.
    return Bound(limit, max(0, limit - max(0, used - reclaimable)), why)


def _cpu_v2(group: Path) -> float | None:
    quota, _, period = _read(group / "cpu.max").partition(" ")
    return _quotient(quota, period or "100000")


def _cpu_v1(group: Path) -> float | None:
    return _quotient(_read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us"))


def _quotient(quota: str, period: str) -> float | None:
    if not quota.isdigit() or not period.isdigit() or int(period) == 0 or int(quota) == 0:
        return None  # "max", -1, or no such file
    return int(quota) / int(period)


def _number(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text.isdigit() else None


def _stat(path: Path, key: str) -> int:
    for line in _read(path).splitlines():
        name, _, value = line.partition(" ")
        if name == key and value.isdigit():
            return int(value)
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
