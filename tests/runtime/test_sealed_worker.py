"""The seal in real workers: what the kernel refuses, and whether the report tells the truth."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ondevice_sdk import errors
from ondevice_sdk.privacy import policy
from ondevice_sdk.privacy.evidence import Thread, Witness
from ondevice_sdk.runtime import handshake
from ondevice_sdk.runtime.environment import NUMPY, OFFLINE, SPIN

from .conftest import MODULES, Opener, answer


@pytest.fixture
def listener() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def unix_listener(tmp_path: Path) -> Iterator[str]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        yield str(tmp_path / "s")


@pytest.mark.parametrize("way", ["connect-python", "connect-native", "connect-thread"])
def test_the_network_is_refused(opener: Opener, listener: str, way: str) -> None:
    # The control: the very same attempt in the very same engine succeeds where nothing refuses it.
    assert answer(opener(privacy="guarded"), f"!{way} {listener}") == "connected"
    assert answer(opener(), f"!{way} {listener}") == "EPERM"


def test_local_sockets_and_programs_are_refused(opener: Opener, unix_listener: str) -> None:
    control, sealed = opener(privacy="guarded"), opener()
    assert answer(control, f"!unix {unix_listener}") == "connected"
    assert answer(sealed, f"!unix {unix_listener}") == "EPERM"
    assert answer(control, "!run /bin/true") == "0"
    assert answer(sealed, "!run /bin/true") == "EPERM"


def test_the_report_of_a_strict_worker(opener: Opener) -> None:
    report = opener().report()
    assert report.enforced
    assert (report.level, report.isolation) == ("strict", "process")
    assert {m.name: m.state for m in report.mechanisms}["seccomp network refusal"] == "active"
    assert not [m for m in report.mechanisms if m.state == "absent"]
    assert report.limits


@pytest.mark.parametrize("level", ["guarded", "off"])
def test_the_report_without_enforcement(opener: Opener, level: str) -> None:
    executor = opener(privacy=level)
    report = executor.report()
    assert not report.enforced
    states = {m.name: m.state for m in report.mechanisms}
    assert states["seccomp network refusal"] == "absent"
    assert states["no new privileges"] == "absent"
    assert states["offline variables"] == ("active" if level == "guarded" else "absent")
    assert states["not dumpable"] == ("active" if level == "guarded" else "absent")
    assert "NOT" in report.summary


def test_the_report_of_a_thread(opener: Opener) -> None:
    report = opener(isolation="thread", privacy="guarded").report()
    assert not report.enforced
    assert not [m for m in report.mechanisms if m.state == "active"]


def test_the_environment_is_scrubbed(opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HF_TOKEN", "LD_PRELOAD", "PYTHONPATH", "PYTHONSTARTUP"):
        monkeypatch.setenv(name, "/canary")
    seen = dict(line.split("=", 1) for line in answer(opener(), "!environment", max_tokens=1000).splitlines())
    assert "/canary" not in seen.values()
    assert OFFLINE.items() <= seen.items()
    assert seen["HOME"] == seen["TMPDIR"] == seen["XDG_CACHE_HOME"]
    assert {**SPIN, **NUMPY}.items() <= seen.items()
    plain = {"HOME", "TMPDIR", "XDG_CACHE_HOME", "LANG", "LC_CTYPE", "PATH"}
    assert set(seen) - {*OFFLINE, *SPIN, *NUMPY} <= plain


def test_the_module_path_has_no_current_directory(
    opener: Opener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", ".", "relative", str(tmp_path), str(tmp_path / "missing"), *sys.path])
    path = answer(opener(), "!path", max_tokens=1000).splitlines()
    assert str(MODULES) in path
    assert not {"", ".", "relative", str(tmp_path), str(tmp_path / "missing")} & set(path)


def test_an_inherited_socket_does_not_reach_the_worker(opener: Opener, listener: str) -> None:
    with socket.socket() as sock:
        sock.set_inheritable(True)
        assert opener().report().enforced


def test_strict_is_refused_where_the_proof_fails(opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "read_threads", lambda pid: (Thread(0, True, False, False),))
    with pytest.raises(errors.PrivacyUnavailable) as caught:
        opener()
    assert caught.value.reasons == ("the kernel does not report a filter on every thread",)
    monkeypatch.setattr(handshake, "read_threads", lambda pid: (Thread(2, True, False, False),))
    monkeypatch.setattr(handshake, "read_descriptors", lambda pid: ("socket:[1]",))
    with pytest.raises(errors.PrivacyUnavailable):
        opener()
    assert opener(privacy="guarded").alive
    assert not Witness().filtered


def test_strict_is_refused_where_it_is_not_available(opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "obstacles", lambda **_: ("no such kernel",))
    with pytest.raises(errors.PrivacyUnavailable):
        opener()
    assert opener(privacy="guarded").alive
