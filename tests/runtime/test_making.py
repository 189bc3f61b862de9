"""The process of a maker, below what a store makes of it."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from ondevice_sdk import errors
from ondevice_sdk.runtime import making

MAKER = """
import os, subprocess
from pathlib import Path

def make(folder):
    child = subprocess.Popen(["sleep", "600"])
    Path(folder, "pid").write_text(str(child.pid))
    yield "dies", 0.5
    os.abort()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="process groups")
def test_what_a_maker_started_ends_with_it_when_it_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("site", "folder", "temporary"):
        (tmp_path / name).mkdir()
    (tmp_path / "site" / "dying_maker.py").write_text(MAKER)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    folder = tmp_path / "folder"
    with pytest.raises(errors.WorkerCrashed, match="SIGABRT"):
        making.make("dying_maker:make", {}, folder=folder, temporary=tmp_path / "temporary")
    try:
        child = psutil.Process(int((folder / "pid").read_text()))
    except psutil.NoSuchProcess:
        return
    try:
        child.wait(10)
    finally:
        if child.is_running():
            child.kill()
