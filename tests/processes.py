"""The workers of this process, as the tests count them."""

from __future__ import annotations

import psutil


def workers() -> list[psutil.Process]:
    """The children that run: one that ends while it is looked at is not among them."""
    return [child for child in psutil.Process().children() if _runs(child)]


def gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=20)[1]


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
