from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from ondevice_sdk.runtime.home import PrivateDirectory


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def old(path: str | Path) -> None:
    (Path(path) / "file").write_text("text of the user")
    os.utime(path, (0, 0))


def test_it_is_private_and_goes() -> None:
    directory = PrivateDirectory()
    assert Path(directory.path).stat().st_mode & 0o777 == 0o700
    old(directory.path)
    directory.remove()
    directory.remove()
    assert not Path(directory.path).exists()


def test_those_of_apps_that_are_gone_are_swept_and_others_stay(folder: Path) -> None:
    living, gone, young = PrivateDirectory(), PrivateDirectory(), PrivateDirectory()
    for directory in (living, gone):
        old(directory.path)
    for directory in (gone, young):
        directory.release()  # as the end of the app does
    other, outside = folder / "other-directory", folder / "outside"
    for path in (other, outside):
        path.mkdir()
        old(path)
    (folder / "ondevice-worker-link").symlink_to(outside)
    (folder / "ondevice-worker-file").write_text("")
    os.utime(folder / "ondevice-worker-file", (0, 0))
    PrivateDirectory().remove()
    assert not Path(gone.path).exists()
    assert (Path(living.path) / "file").exists()
    assert Path(young.path).exists()
    assert (other / "file").exists()
    assert (outside / "file").exists()
    living.remove()


def test_a_forked_child_does_not_give_the_lock_away() -> None:
    directory = PrivateDirectory()
    old(directory.path)
    child = os.fork()
    if child == 0:
        directory.release()
        os._exit(0)
    os.waitpid(child, 0)
    PrivateDirectory().remove()
    assert Path(directory.path).exists()
    directory.remove()
