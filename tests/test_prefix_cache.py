"""The prefix cache as an app and the command line see it, without a worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from ondevice_sdk import CallerKey, Client, MemoryKey, PrefixCache, errors
from ondevice_sdk.privacy.vault import EncryptedCache, Usage

SECRET = bytes(range(32))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def fill(directory: Path, entries: int = 3) -> None:
    with EncryptedCache(directory, CallerKey(SECRET).scoped("prefix-state", "ab" * 32)) as cache:
        for number in range(entries):
            cache.put(f"{number}", bytes(1000))


def test_nothing_is_made_before_a_worker_needs_it(home: Path) -> None:
    cache = PrefixCache(MemoryKey())
    assert cache.path == home / "prefixes"
    assert cache.limit_bytes == 2_000_000_000
    assert cache.usage() == Usage(0, 0)
    assert cache.purge() == 0
    Client(prefix_cache=cache).close()
    assert not home.exists()


def test_usage_and_purge_need_no_worker(tmp_path: Path) -> None:
    cache = PrefixCache(CallerKey(SECRET), tmp_path / "cache")
    fill(cache.path)
    beside = cache.path / "notes.txt"
    beside.write_text("not of the cache")
    used = cache.usage()
    assert used.entries == 3
    assert used.bytes == sum(path.stat().st_size for path in cache.path.iterdir() if path != beside)
    assert cache.purge() == 3
    assert cache.usage() == Usage(0, 0)
    assert [*cache.path.iterdir()] == [beside]
    assert not cache.key.forgotten


@pytest.mark.parametrize(
    "arguments",
    [
        {"key": b"x" * 32},
        {"key": None},
        {"key": CallerKey(SECRET).scoped("prefix-state", "ab" * 32)},
        {"directory": "cache"},
        {"limit_bytes": 0},
        {"limit_bytes": -1},
        {"limit_bytes": True},
        {"limit_bytes": 1e9},
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(errors.ConfigurationError):
        PrefixCache(**{"key": CallerKey(SECRET), **arguments})


def test_a_client_takes_nothing_else(tmp_path: Path) -> None:
    wrong: Any = tmp_path
    with pytest.raises(errors.ConfigurationError, match="PrefixCache"):
        Client(prefix_cache=wrong)


def test_it_cannot_be_changed_and_shows_no_key(tmp_path: Path) -> None:
    cache = PrefixCache(CallerKey(SECRET), tmp_path)
    with pytest.raises(FrozenInstanceError):
        cache.limit_bytes = 1  # type: ignore[misc]
    assert repr(cache).startswith(f"PrefixCache(key=<CallerKey>, directory={tmp_path!r}")
    assert SECRET.hex() not in repr(cache)


def ondevice(home: Path, *words: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "ondevice_sdk", "cache", *words],
        env={**os.environ, "ONDEVICE_HOME": str(home)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    for words, place in (((), home / "prefixes"), (("--directory", str(other)), other)):
        assert json.loads(ondevice(home, "info", "--json", *words)) == {
            "directory": str(place), "entries": 0, "bytes": 0,
        }  # fmt: skip
        fill(place)
        assert json.loads(ondevice(home, "info", "--json", *words))["entries"] == 3
        assert "3 entries" in ondevice(home, "info", *words)
        assert json.loads(ondevice(home, "purge", "--json", *words)) == {"directory": str(place), "removed": 3}
        assert [*place.iterdir()] == []
        assert "0 files" in ondevice(home, "purge", *words)
    other.chmod(0o755)
    assert "private" in ondevice(home, "info", "--directory", str(other), code=1)
