"""Memory of a process, looked at from outside."""

from __future__ import annotations

from pathlib import Path


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had resident so far, pages of mapped files included.

    Pages that two processes share count in both. Where the system does not keep the peak (macOS): what is resident now.
    """
    try:
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import psutil

    info = psutil.Process(pid).memory_info()
    return int(getattr(info, "peak_wset", info.rss))


def children(pid: int) -> list[int]:
    """The processes that it started, and theirs."""
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]
