"""A plugin as a distribution of its own, written into a directory and found as an installed one is."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

NAME = "ondevice-toy"


def install(directory: Path, monkeypatch: pytest.MonkeyPatch, entry_points: str, *, version: str = "1.0") -> None:
    """Put a distribution with these entry points, and the modules that lie here, on the path."""
    info = directory / f"ondevice_toy-{version}.dist-info"
    for old in directory.glob("ondevice_toy-*.dist-info"):
        shutil.rmtree(old)
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {version}\nSummary: Makes toys.\n")
    (info / "entry_points.txt").write_text(entry_points)
    for module in Path(__file__).parent.glob("toy_*.py"):
        shutil.copy(module, directory)
    if str(directory) not in sys.path:
        monkeypatch.syspath_prepend(str(directory))
