"""Prefixes on the disk: what is found again, by whom, and what becomes of entries that are not what was written."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ondevice_sdk.engine import disk
from ondevice_sdk.engine.disk import DiskPrefixes
from ondevice_sdk.engine.prefix import GRID
from ondevice_sdk.privacy.vault import CallerKey, EncryptedCache

SECRET = bytes(range(32))
MODEL = "ab" * 32
LIMIT = 1 << 24

Opener = Callable[..., DiskPrefixes]


@pytest.fixture
def open_disk(tmp_path: Path) -> Iterator[Opener]:
    """Opens the same directory, each time as another process would."""
    opened: list[DiskPrefixes] = []

    def make(binding: str = "1", *, secret: bytes = SECRET, model: str = MODEL, limit: int = LIMIT) -> DiskPrefixes:
        key = CallerKey(secret).scoped("prefix-state", model)
        cache = EncryptedCache(tmp_path / "cache", key, max_bytes=limit, chunk_bytes=4096, durable=False)
        opened.append(DiskPrefixes(cache, binding, limit_bytes=limit))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def tokens(count: int, start: int = 0) -> list[int]:
    return list(range(start, start + count))


def entries(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").iterdir())


def test_a_state_is_found_by_whoever_opens_the_directory_later(open_disk: Opener) -> None:
    state = secrets.token_bytes(50_000)
    first = open_disk()
    assert first.find(tokens(500)) == 0
    assert first.load(tokens(500)) is None
    first.put(tokens(300), state)
    for disk_ in (first, open_disk()):
        assert disk_.find(tokens(500)) == 256
        assert disk_.load(tokens(500)) == (tokens(300), state)
        assert disk_.failures == 0


@pytest.mark.parametrize(
    ("prompt", "shared"),
    [
        (tokens(0), 0),
        (tokens(GRID), 0),  # its last token has to be computed
        (tokens(GRID + 1), GRID),
        (tokens(2 * GRID), GRID),
        (tokens(2 * GRID + 1), 2 * GRID),
        (tokens(1000), 4 * GRID),
        (tokens(GRID) + tokens(500, 9000), GRID),
        (tokens(GRID - 1) + tokens(500, 9000), 0),
        (tokens(500, 1), 0),
        (tokens(GRID, 9000) + tokens(500, GRID), 0),  # the same chunks after another beginning
    ],
)
def test_whole_chunks_are_found_and_a_token_is_left(open_disk: Opener, prompt: list[int], shared: int) -> None:
    stored = open_disk()
    stored.put(tokens(4 * GRID + 10), b"state")
    assert stored.find(prompt) == shared
    assert (stored.load(prompt) is not None) == (shared > 0)


def test_of_several_states_the_one_that_shares_most_is_taken_and_of_those_the_smallest(open_disk: Opener) -> None:
    stored = open_disk()
    document, other = tokens(4 * GRID), tokens(GRID) + tokens(3 * GRID, 9000)
    stored.put([*document, *tokens(9 * GRID, 20_000)], b"long")
    stored.put([*document, *tokens(GRID, 10_000)], b"short")
    stored.put(other, b"other")
    assert stored.load([*document, *tokens(50, 30_000)]) == ([*document, *tokens(GRID, 10_000)], b"short")
    assert stored.load([*other, 1]) == (other, b"other")
    assert stored.find([*document, *tokens(8 * GRID, 20_000)]) == 11 * GRID


def test_a_longer_state_replaces_those_that_it_begins_with(open_disk: Opener, tmp_path: Path) -> None:
    stored = open_disk()
    stored.put(tokens(2 * GRID), b"short")
    stored.put(tokens(GRID) + tokens(GRID, 9000), b"another")
    stored.put(tokens(5 * GRID), b"long")
    assert len(entries(tmp_path)) == 2
    for disk_ in (stored, open_disk()):
        assert disk_.load(tokens(2 * GRID + 1)) == (tokens(5 * GRID), b"long")


def test_what_is_stored_already_is_not_written_again(open_disk: Opener, tmp_path: Path) -> None:
    stored = open_disk()
    stored.put(tokens(5 * GRID), b"long")
    before = [(path.name, path.stat().st_mtime_ns, path.stat().st_ino) for path in entries(tmp_path)]
    for count in (GRID, 3 * GRID, 5 * GRID, 5 * GRID + 20, GRID - 1, 0):
        stored.put(tokens(count), b"again")
    assert [(path.name, path.stat().st_mtime_ns, path.stat().st_ino) for path in entries(tmp_path)] == before
    entries(tmp_path)[0].unlink()  # another process needed the room
    stored.put(tokens(3 * GRID), b"again")
    assert stored.load(tokens(4 * GRID)) == (tokens(3 * GRID), b"again")


@pytest.mark.parametrize(
    "other", [{"binding": "2"}, {"model": "cd" * 32}, {"secret": bytes(32)}], ids=["binding", "model", "key"]
)
def test_what_belongs_to_another_model_version_or_key_is_not_found_nor_touched(
    open_disk: Opener, other: dict[str, str]
) -> None:
    open_disk().put(tokens(300), b"state")
    strange = open_disk(**other)
    assert strange.find(tokens(500)) == 0
    assert strange.load(tokens(500)) is None
    strange.put(tokens(300), b"strange")
    assert strange.load(tokens(500)) == (tokens(300), b"strange")
    assert open_disk().load(tokens(500)) == (tokens(300), b"state")
    assert strange.failures == 0


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
        return
    if how == "foreign":
        data = bytearray(secrets.token_bytes(len(data)))
    elif how == "cut":
        del data[-5000:]
    elif how == "empty":
        data.clear()
    else:
        data[{"header": 60, "end": -20}[how]] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["gone", "foreign", "cut", "empty", "header", "end"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_damaged_entries_are_forgotten(open_disk: Opener, tmp_path: Path, how: str, when: str) -> None:
    stored = open_disk()
    stored.put(tokens(300), secrets.token_bytes(20_000))
    assert stored.load(tokens(500)) is not None, "the control"
    if when == "after":  # it was opened
        damage(entries(tmp_path)[0], how)
    else:
        damage(entries(tmp_path)[0], how)
        stored = open_disk()
    assert stored.load(tokens(500)) is None
    assert stored.find(tokens(500)) == 0
    assert stored.failures == (how != "gone")
    assert entries(tmp_path) == []
    stored.put(tokens(300), b"new")
    assert stored.load(tokens(500)) == (tokens(300), b"new")


@pytest.mark.parametrize("content", [b"", b"\x01", b"\xff\xff\xff\xff", b"\x40\x00\x00\x00", bytes(1000)])
def test_entries_of_another_form_are_forgotten(open_disk: Opener, tmp_path: Path, content: bytes) -> None:
    with EncryptedCache(tmp_path / "cache", CallerKey(SECRET).scoped("prefix-state", MODEL)) as cache:
        cache.put("1 7", content)
    stored = open_disk()
    assert stored.find(tokens(500)) == 0
    assert stored.failures == 1
    assert entries(tmp_path) == []


def test_the_least_recently_used_goes_when_the_limit_is_reached(open_disk: Opener, tmp_path: Path) -> None:
    stored = open_disk(limit=100_000)
    for number in range(3):
        stored.put(tokens(100, 1000 * number), bytes(30_000))
        os.utime(*entries_times(tmp_path, number))
    assert stored.load(tokens(100, 0)) is not None  # used just now
    stored.put(tokens(100, 5000), bytes(30_000))
    later = open_disk(limit=100_000)
    assert [later.find(tokens(100, start)) > 0 for start in (0, 1000, 2000, 5000)] == [True, False, True, True]
    assert sum(path.stat().st_size for path in entries(tmp_path)) <= 100_000
    stored.put(tokens(100, 7000), bytes(200_000))
    assert stored.find(tokens(100, 7000)) == 0
    assert stored.failures == 0


def entries_times(tmp_path: Path, number: int) -> tuple[Path, tuple[int, int]]:
    """The entry that was written last, and a time long ago."""
    newest = max(entries(tmp_path), key=lambda path: path.stat().st_mtime_ns)
    return newest, (1_000_000 + number, 1_000_000 + number)


def test_when_all_places_are_taken_the_one_not_used_for_longest_is_given(
    open_disk: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "PLACES", 3)
    stored = open_disk()
    for number in range(3):
        stored.put(tokens(100, 1000 * number), b"state")
        os.utime(*entries_times(tmp_path, number))
    stored = open_disk()
    stored.put(tokens(100, 5000), b"state")
    assert len(entries(tmp_path)) == 3
    assert [stored.find(tokens(100, start)) > 0 for start in (0, 1000, 2000, 5000)] == [False, True, True, True]


def test_two_at_once_do_not_write_over_each_other(open_disk: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "PLACES", 40)
    one, other = open_disk(), open_disk()
    for number in range(20):
        (one, other)[number % 2].put(tokens(100, 1000 * number), bytes([number]))
    later = open_disk()
    for number in range(20):
        assert later.load(tokens(100, 1000 * number)) == (tokens(100, 1000 * number), bytes([number]))
    assert one.failures == other.failures == 0


def test_a_place_that_another_process_has_filled_anew_is_noticed(
    open_disk: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "PLACES", 1)
    one, other = open_disk(), open_disk()
    one.put(tokens(100), b"first")
    other.put(tokens(100, 5000), b"second")
    assert one.find(tokens(100)) == GRID
    assert one.load(tokens(100)) is None
    assert one.find(tokens(100)) == 0
    assert one.load(tokens(100, 5000)) == (tokens(100, 5000), b"second")
    assert one.failures == 0


def test_a_disk_that_fails_is_counted_and_given_up(
    open_disk: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = open_disk()
    stored.put(tokens(100), b"state")
    tries = 0

    def full(*_: object) -> int:
        nonlocal tries
        tries += 1
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("ondevice_sdk.privacy.vault.stream.os.write", full)
        for number in range(1, 20):
            stored.put(tokens(100, 1000 * number), b"state")
    assert stored.failures == tries == 8
    assert len(entries(tmp_path)) == 1
    assert stored.load(tokens(100)) == (tokens(100), b"state")


def test_clear_leaves_nothing(open_disk: Opener, tmp_path: Path) -> None:
    stored = open_disk()
    stored.put(tokens(100), b"state")
    open_disk("2").put(tokens(100), b"state")
    assert len(entries(tmp_path)) == 2
    stored.clear()
    assert stored.find(tokens(100)) == 0
    assert entries(tmp_path) == []
    stored.put(tokens(100), b"again")
    assert stored.find(tokens(100)) == GRID


def test_the_disk_shows_neither_tokens_nor_state(open_disk: Opener, tmp_path: Path) -> None:
    words, state = tokens(200, 7000), b"a state that somebody could read" * 100
    stored = open_disk()
    stored.put(words, state)
    shown = b"".join(path.name.encode() + path.read_bytes() for path in entries(tmp_path))
    assert state[:32] not in shown
    for size in (2, 4, 8):
        assert b"".join(token.to_bytes(size, "little") for token in words[:4]) not in shown
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "cache", *entries(tmp_path))] == [0o700, 0o600]
    assert str(words[0]) not in repr(stored)


HAMMER = """
import hashlib, random, sys
from ondevice_sdk.engine import disk
from ondevice_sdk.privacy.vault import CallerKey, EncryptedCache

disk.PLACES = 8
numbers, served = random.Random(int(sys.argv[2])), 0
def state(tokens):
    return hashlib.sha256(repr(tokens).encode()).digest() * 1000
for _ in range(4):  # lives of a process
    key = CallerKey(bytes(range(32))).scoped("prefix-state", "ab" * 32)
    cache = EncryptedCache(sys.argv[1], key, max_bytes=300_000, durable=False)
    stored = disk.DiskPrefixes(cache, "1", limit_bytes=300_000)
    for _ in range(60):
        tokens = [numbers.randrange(4)] * 64 + [numbers.randrange(4)] * 64 * numbers.randrange(3)
        found = stored.load([*tokens, 9])
        if found is not None:
            served += 1
            assert found[1] == state(found[0]), "tokens of one state, bytes of another"
            assert found[0][:64] == tokens[:64]
        stored.put(tokens, state(tokens))
    refused = dict(cache.refused)
    stored.close()
    assert not refused, refused
print(served)
"""


@pytest.mark.slow
def test_processes_that_write_and_read_at_once_never_get_a_mixture(tmp_path: Path) -> None:
    lines = [[sys.executable, "-c", HAMMER, str(tmp_path / "cache"), str(seed)] for seed in range(3)]
    running = [subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for line in lines]
    for process in running:
        served, complaints = process.communicate(timeout=120)
        assert process.returncode == 0, complaints
        assert int(served) >= 20, "something was found"
    assert {path.name for path in entries(tmp_path) if path.suffix} == set()
