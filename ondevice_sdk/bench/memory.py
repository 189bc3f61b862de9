"""Memory of a process, looked at from outside."""

from __future__ import annotations

import os
from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_PRESENT: Final = 1 << 63  # of an entry of /proc/PID/pagemap: the page is resident ...
_OF_FILE: Final = 1 << 61  # ... and that of a file, no private copy of it
_ENTRY: Final = 8  # bytes

File = tuple[str, int]  # device and inode


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had resident so far, pages of mapped files included.

    Pages that it shares with others count in full: see `shared_bytes`. Where the system does not keep the peak (macOS):
    what is resident now.
    """
    peak = _status(pid, "VmHWM:")
    if peak is not None:
        return peak
    import psutil

    info = psutil.Process(pid).memory_info()
    return int(getattr(info, "peak_wset", info.rss))


def anonymous_bytes(pid: int) -> int:
    """Pages of a process that belong to no file; 0: it is gone, or the system does not tell."""
    return _status(pid, "RssAnon:") or 0


def shared_bytes(pids: Sequence[int]) -> int:
    """What the sum of the processes' resident memory counts too often: file pages that several of them have mapped now.

    0 where the system does not show it: elsewhere than on Linux, and of a sealed worker to others than root.
    """
    try:
        mapped = {pid: _mapped_files(pid) for pid in pids}
        users = Counter(file for files in mapped.values() for file in files)
        pages: Counter[tuple[File, int]] = Counter()
        for pid, files in mapped.items():
            common = {file: ranges for file, ranges in files.items() if users[file] > 1}
            pages.update(_resident(pid, common))
    except OSError:
        return 0
    return sum(count - 1 for count in pages.values()) * _page_size()


def children(pid: int) -> list[int]:
    """The processes that it started, and theirs."""
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def _status(pid: int, field: str) -> int | None:
    """An amount of memory that Linux tells of a process, in bytes."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _mapped_files(pid: int) -> dict[File, list[tuple[int, int, int]]]:
    """Where a process has mapped files: first address, length, and place in the file, all in pages."""
    page, found = _page_size(), defaultdict(list)
    for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        addresses, _, offset, device, inode = line.split(maxsplit=5)[:5]
        if inode != "0":
            start, end = (int(address, 16) // page for address in addresses.split("-"))
            found[device, int(inode)].append((start, end - start, int(offset, 16) // page))
    return dict(found)


def _resident(pid: int, files: dict[File, list[tuple[int, int, int]]]) -> set[tuple[File, int]]:
    """The pages of files that the process has in memory."""
    found: set[tuple[File, int]] = set()
    descriptor = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY)
    try:
        for file, ranges in files.items():
            for start, length, place in ranges:
                entries = array("Q", os.pread(descriptor, _ENTRY * length, _ENTRY * start))
                wanted = _PRESENT | _OF_FILE
                found.update((file, place + at) for at, entry in enumerate(entries) if entry & wanted == wanted)
    finally:
        os.close(descriptor)
    return found


def _page_size() -> int:
    return os.sysconf("SC_PAGE_SIZE")
