from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ondevice_sdk.privacy.evidence import capabilities, compare_filters
from ondevice_sdk.privacy.ledger import Ledger
from ondevice_sdk.privacy.readback import read_filters


def test_a_descriptor_that_is_something_else_is_closed() -> None:
    inner, outer = os.pipe()
    os.close(outer)
    with pytest.raises(ValueError, match="reports"):
        Ledger(inner, "x86_64")
    with pytest.raises(OSError):
        os.fstat(inner)


def test_a_process_without_the_filters_is_not_mistaken_for_one_with_them() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        digest, same = compare_filters(process.pid, "x86_64", told=True)
        assert len(digest) == 64
        assert same is not True
        assert compare_filters(process.pid, "x86_64", told=False)[0] != digest
        assert compare_filters(process.pid, "aarch64", told=True)[0] != digest
        assert compare_filters(process.pid, "vax", told=True) == ("", None)
        with pytest.raises(OSError):
            read_filters(process.pid)
        assert process.poll() is None  # and it was let go again
        process.communicate(b"\n")
    assert process.returncode == 0


def test_without_the_right_to_look_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ondevice_sdk.privacy.evidence.capabilities", lambda: 0)
    assert compare_filters(os.getpid(), "x86_64", told=True)[1] is None
    assert capabilities() >= 0
