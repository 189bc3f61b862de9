"""The sandbox of real workers: files, processes, and the ledger of what was attempted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ondevice_sdk import Client
from ondevice_sdk.privacy.elf import imports, scan
from ondevice_sdk.privacy.evidence import read_descriptors, read_threads
from ondevice_sdk.runtime.environment import readable
from ondevice_sdk.runtime.probe_worker import run_in_worker
from ondevice_sdk.runtime.process import ProcessExecutor

from .conftest import Opener, answer

OUTCOMES = {
    "read outside": "EACCES",
    "list outside": "EACCES",
    "write outside": "EACCES",
    "make outside": "EACCES",
    "link outside": "done",
    "read by link": "EACCES",
    "read inside": "done",
    "write inside": "EACCES",
    "write at home": "done",
    "read at home": "done",
    "other process": "EACCES",
    "chmod at home": "EPERM",
}


def test_files_outside_are_neither_read_nor_written(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside" / "file", tmp_path / "inside"
    outside.parent.mkdir()
    arguments = {"outside": str(outside), "inside": str(inside)}

    def outcomes(privacy: str) -> object:
        outside.write_text("secret")
        inside.write_text("model")
        function = "worker_functions:read_and_write"
        return run_in_worker(function, privacy=privacy, arguments=arguments, read=[str(inside)]).value  # type: ignore[arg-type]

    assert outcomes("off") == dict.fromkeys(OUTCOMES, "done")  # the control
    (outside.parent / "new").unlink()
    sealed = outcomes("strict")
    assert isinstance(sealed, dict)
    if sealed["read outside"] == "done":
        pytest.skip("no Landlock here")
    # Which of two layers refuses first is the kernel's business.
    assert {name: "EACCES" if word == "EPERM" and "chmod" not in name else word for name, word in sealed.items()} == (
        OUTCOMES
    )
    assert outside.read_text() == "secret"
    assert inside.read_text() == "model"
    assert list(outside.parent.iterdir()) == [outside]


def test_attempts_of_python_and_of_native_code_are_in_the_ledger() -> None:
    returned = run_in_worker("worker_functions:attempts", privacy="strict")
    assert returned.value == ["EPERM"] * 10 + ["ENOSYS", "ENOSYS", "EPERM"]
    rows = {(row["call"], row["family"], row["type"]): row for row in returned.report.attempts}
    assert ("socket", "AF_INET", "SOCK_DGRAM") in rows
    assert ("socket", "AF_UNIX", "SOCK_STREAM") in rows
    assert ("socket", "AF_NETLINK", "SOCK_RAW") in rows
    assert ("socketpair", "AF_UNIX", "SOCK_STREAM") in rows
    assert {"keyctl", "kill", "clone"} <= {str(row["call"]) for row in returned.report.attempts}
    twice = rows["socket", "AF_INET", "SOCK_STREAM"]
    assert twice["count"] == 2
    assert twice["first"] <= twice["last"]
    assert all(set(row) == {"call", "family", "type", "first", "last", "count"} for row in returned.report.attempts)


def test_the_ledger_is_bounded_and_loses_no_count() -> None:
    returned = run_in_worker("worker_functions:many_families", privacy="strict")
    assert returned.value == 300
    assert len(returned.report.attempts) == 201
    assert sum(int(row["count"]) for row in returned.report.attempts) == 300


def test_the_seal_s_own_tries_are_not_in_the_ledger(opener: Opener) -> None:
    assert opener().report().attempts == ()


def test_without_a_ledger_attempts_fail_too(opener: Opener) -> None:
    executor = opener()
    assert isinstance(executor, ProcessExecutor)
    ledger = executor._link._sealed.ledger  # type: ignore[union-attr]
    if ledger is None:
        pytest.skip("the kernel does not report here")
    ledger.close()
    assert answer(executor, "!connect-native 127.0.0.1:9") != "connected"
    assert answer(executor, "still there") == "still there"


def test_a_forked_child_of_the_app_drops_the_ledger_and_the_app_keeps_it(opener: Opener) -> None:
    executor = opener()
    assert isinstance(executor, ProcessExecutor)
    child = os.fork()
    if child == 0:
        kept = [entry.readlink().name for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
        os._exit(1 if any("seccomp" in name for name in kept) else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert answer(executor, "!connect-native 127.0.0.1:9") == "EPERM"
    if any(m.name == "ledger of attempts" and m.state == "active" for m in executor.report().mechanisms):
        assert [row["call"] for row in executor.report().attempts] == ["socket"]


def test_the_kernel_s_word_about_every_thread_and_no_socket(opener: Opener) -> None:
    executor = opener()
    assert isinstance(executor, ProcessExecutor)
    threads = read_threads(executor.pid)
    assert len(threads) >= 2
    assert all(thread.seccomp == 2 and thread.no_new_privileges and not thread.capabilities for thread in threads)
    descriptors = read_descriptors(executor.pid)
    if os.geteuid() == 0:  # to others a worker is closed after its seal
        assert descriptors is not None
        assert all(target.startswith("pipe:") or target == os.devnull for target in descriptors)
    else:
        assert descriptors is None


def test_a_home_is_not_readable_for_a_script_in_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "app").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    entries = ("/", str(home), str(tmp_path), str(home / "app"), "/usr/lib/python3")
    assert readable(entries) == (str(home / "app"), "/usr/lib/python3")


def test_libraries_are_read_for_what_they_import(tmp_path: Path) -> None:
    import _ctypes
    import _socket

    with_sockets, without = (getattr(module, "__file__", None) for module in (_socket, _ctypes))
    if with_sockets is None or without is None:
        pytest.skip("this Python has them built in")
    assert {"socket", "connect", "getaddrinfo"} <= imports(with_sockets)
    assert "socket" not in imports(without)
    for name, data in (("text", b"text"), ("cut", Path(with_sockets).read_bytes()[:5000]), ("empty", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError):
            imports(str(tmp_path / name))
    assert set(scan([with_sockets, str(tmp_path / "text"), "/missing"])) == {Path(with_sockets).name}


@pytest.mark.model
@pytest.mark.slow
def test_a_real_model_decodes_in_a_strict_worker_and_attempts_nothing(model_path: Path) -> None:
    with Client(privacy="strict") as client:
        assert client.generate("Say hello.", max_tokens=8)
        report = client.privacy_report()
    assert report.enforced
    assert report.attempts == ()
