"""Encrypted caches when processes die, disks fill up, and several processes write at once."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ondevice_sdk.errors import StoreError
from ondevice_sdk.privacy.vault import CacheDirectory, EncryptedCache

from .modules import cache_neighbour, crashing_writer

NEW, OLD = crashing_writer.NEW, crashing_writer.OLD


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_a_process_may_be_killed_at_any_call(directory: Path) -> None:
    run = subprocess.run(
        [sys.executable, crashing_writer.__file__, str(directory)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    *killed, finished = (json.loads(line) for line in run.stdout.splitlines())
    assert all(row["status"] == -signal.SIGKILL for row in killed)
    assert {row["at"] for row in killed} == {name for _, name in crashing_writer.CALLS}
    assert finished["status"] == 0
    seen = Counter(row["entry"] for row in killed)
    assert set(seen) == {"old", "new"}, "the older entry, or the whole new one"
    assert [row["entry"] for row in killed] == ["old"] * seen["old"] + ["new"] * seen["new"]
    assert any(row["partial"] for row in killed), "the control: there was something to sweep out"
    assert all(row["after"] == 1 and not row["refused"] for row in [*killed, finished])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_any_call_may_fail(directory: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    failed: list[str] = []
    messages: set[str] = set()

    def fail(name: str) -> None:
        failed.append(name)
        raise OSError(number, os.strerror(number))

    def put_at(cache: EncryptedCache, at: int) -> bool:
        with monkeypatch.context() as patch:
            calls = [call for call in crashing_writer.CALLS if call[1] != "close"]
            crashing_writer.interrupt(at, end=fail, calls=calls, put=patch.setattr)
            try:
                return cache.put("entry", NEW)
            except StoreError as error:
                messages.add(error.message)
                return False

    outcomes: list[tuple[bool, bytes | None]] = []
    with crashing_writer.opened(str(directory)) as cache:
        while len(failed) == len(outcomes):
            cache.put("entry", OLD)
            kept = put_at(cache, len(outcomes))
            outcomes.append((kept, cache.get("entry")))
            names = [path.name for path in directory.iterdir()]
            assert not [name for name in names if name.endswith(".part")], failed
    *broken, whole = outcomes
    assert whole == (True, NEW), "the control: none failed"
    assert failed == ["open", "flock", *["write"] * 5, "fsync", "rename", "fsync", "unlink"]
    assert broken == [(False, OLD)] * 9 + [(False, None), (True, NEW)]  # the unlink is of what is not there any more
    word = {errno.ENOSPC: "no room left for the cache", errno.EIO: "Input/output error"}[number]
    assert messages
    assert all(word in message for message in messages)


def test_a_full_disk(directory: Path) -> None:
    code = (
        "import resource, sys; from ondevice_sdk.errors import StoreError\n"
        "from tests.privacy.modules import crashing_writer as w\n"
        "cache = w.opened(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "print(cache.put('entry', bytes(50_000)))\n"
        "try: cache.put('entry', bytes(200_000))\n"
        "except StoreError as error: print(error.message)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(directory)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert run.stdout.splitlines() == ["True", "no room left for the cache"]
    assert len(list(directory.iterdir())) == 1
    with crashing_writer.opened(str(directory)) as cache:
        assert cache.get("entry") == bytes(50_000)


def test_what_is_being_written_is_not_swept_out(directory: Path) -> None:
    def content() -> Iterator[bytes]:
        yield b"first "
        (partial,) = directory.glob("*.part")
        stale = directory / f"{'0' * 32}.part"
        stale.touch()
        crashing_writer.opened(str(directory)).close()
        assert not stale.exists(), "the control"
        assert partial.exists()
        yield b"second"

    with crashing_writer.opened(str(directory)) as cache:
        assert cache.put("entry", content())
        assert cache.get("entry") == b"first second"


def test_a_writer_whose_file_is_swept_out_at_once_takes_another(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[Path] = []
    real = fcntl.flock

    def flock(file: int, operation: int) -> None:
        if len(swept) < 2:
            (partial,) = directory.glob("*.part")
            partial.unlink()
            swept.append(partial)
            if len(swept) == 2:
                raise BlockingIOError
        real(file, operation)

    with crashing_writer.opened(str(directory)) as cache:
        monkeypatch.setattr(fcntl, "flock", flock)
        assert cache.put("entry", b"x")
        assert cache.get("entry") == b"x"
    assert len(swept) == 2


def test_a_file_that_gets_its_name_during_a_purge_goes_too(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.unlink

    def unlink(name: str, *, dir_fd: int) -> None:
        for partial in directory.glob("*.part"):
            partial.rename(directory / ("f" * 64))
        real(name, dir_fd=dir_fd)

    with crashing_writer.opened(str(directory)) as cache:
        (directory / f"{'0' * 32}.part").touch()
        monkeypatch.setattr(os, "unlink", unlink)
        assert cache.purge() == 1
    assert list(directory.iterdir()) == []


def test_a_purge_that_never_ends_is_given_up(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with crashing_writer.opened(str(directory)) as cache:
        real = os.unlink

        def unlink(name: str, *, dir_fd: int) -> None:
            real(name, dir_fd=dir_fd)
            (directory / ("f" * 64)).touch()  # somebody goes on

        cache.put("entry", b"x")
        monkeypatch.setattr(os, "unlink", unlink)
        with pytest.raises(StoreError, match="while it is purged"):
            cache.purge()


@pytest.mark.slow
def test_several_processes_at_once(directory: Path) -> None:
    runs = [
        subprocess.Popen(
            [sys.executable, cache_neighbour.__file__, str(directory), str(number)], stdout=subprocess.PIPE, text=True
        )
        for number in range(3)
    ]
    seen = [json.loads(run.communicate(timeout=120)[0]) for run in runs]
    assert all(run.returncode == 0 for run in runs)
    assert all(row["hits"] > 0 and row["wrong"] == 0 and not row["refused"] for row in seen), seen
    with CacheDirectory(directory) as left:
        assert 0 < left.usage().bytes <= cache_neighbour.MAX_BYTES
        assert left.usage().entries == len(list(directory.iterdir()))


def test_several_threads_at_once(directory: Path) -> None:
    with crashing_writer.opened(str(directory)) as cache, ThreadPoolExecutor(4) as pool:

        def work(number: int) -> bool:
            name = f"entry {number % 5}"
            content = name.encode() * 2000
            return cache.put(name, content) and cache.get(name) == content

        assert all(pool.map(work, range(40)))
        assert cache.usage().entries == 5
        assert not cache.refused
