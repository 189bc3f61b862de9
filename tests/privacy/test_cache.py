"""What encrypted caches keep and what they refuse."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice_sdk.errors import ConfigurationError, StoreError
from ondevice_sdk.privacy.vault import CacheDirectory, CallerKey, EncryptedCache, EntryRefused, MemoryKey, ScopedKey
from ondevice_sdk.privacy.vault.stream import HEADER_BYTES, TAG_BYTES

CHUNK = 4096
STEP = CHUNK + TAG_BYTES
MASTER = bytes(range(32))
DIGEST, OTHER_DIGEST = "ab" * 32, "cd" * 32
CONTENT = b"".join(struct.pack(">I", number) for number in range(3 * CHUNK // 4 + 100))  # three chunks and a bit
NAME = "what the user asked"


def scoped(master: bytes = MASTER, purpose: str = "prompt-state", digest: str = DIGEST) -> ScopedKey:
    return CallerKey(master).scoped(purpose, digest)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cache(directory: Path) -> Iterator[EncryptedCache]:
    with EncryptedCache(directory, scoped(), chunk_bytes=CHUNK) as cache:
        yield cache


def file_of(directory: Path, name: str | bytes = NAME, key: ScopedKey | None = None) -> Path:
    return directory / (key or scoped()).entry_id(name).hex()


# --- round trips ------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 7, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK]), max_size=6),
    name=st.one_of(st.text(max_size=40), st.binary(max_size=40)),
    kind=st.sampled_from([bytes, bytearray, memoryview]),
)
def test_what_was_put_is_got(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], name: str | bytes, kind: Callable[[bytes], bytes]
) -> None:
    directory = tmp_path_factory.mktemp("cache")
    pieces = [os.urandom(size) for size in sizes]
    content = b"".join(pieces)
    with EncryptedCache(directory, scoped(), chunk_bytes=CHUNK, durable=False) as cache:
        assert cache.put(name, map(kind, pieces))
        assert cache.get(name) == content
        reader = cache.open_reader(name)
        assert reader is not None
        with reader:
            assert reader.size == len(content)
            assert b"".join(reader) == content == reader.whole() == b"".join(reader)
        assert cache.put(name, kind(content))
        assert cache.get(name) == content
        chunks = max(1, -(-len(content) // CHUNK))
        assert file_of(directory, name).stat().st_size == HEADER_BYTES + len(content) + chunks * TAG_BYTES
        assert not cache.refused


def test_missing_replaced_deleted(cache: EncryptedCache) -> None:
    assert cache.get(NAME) is None
    assert cache.open_reader(NAME) is None
    assert not cache.delete(NAME)
    assert cache.put(NAME, b"one")
    assert cache.put(NAME, b"two")
    assert cache.get(NAME) == cache.get(NAME.encode()) == b"two"
    assert cache.usage().entries == 1
    assert cache.delete(NAME)
    assert cache.get(NAME) is None
    assert not cache.refused


def test_a_piece_that_is_not_of_bytes_is_cut_by_bytes(cache: EncryptedCache) -> None:
    from array import array

    numbers = array("d", range(2000))
    assert cache.put(NAME, memoryview(numbers))
    assert cache.get(NAME) == numbers.tobytes()


def test_the_format_is_the_one_that_is_written_down(cache: EncryptedCache, directory: Path) -> None:
    def hkdf(secret: bytes, info: bytes, salt: bytes, length: int = 32) -> bytes:  # RFC 5869, two blocks at most
        extracted = hmac.digest(salt, secret, "sha256")
        first = hmac.digest(extracted, info + b"\1", "sha256")
        return (first + hmac.digest(extracted, first + info + b"\2", "sha256"))[:length]

    label = b"ondevice-sdk cache 1 "
    scope = bytes.fromhex(DIGEST) + b"prompt-state"
    key = hkdf(MASTER, label + b"scope " + scope, bytes(32))
    entry_id = hmac.digest(hkdf(key, label + b"name", bytes(32)), NAME.encode(), "sha256")
    assert cache.put(NAME, CONTENT)
    data = (directory / entry_id.hex()).read_bytes()
    assert data[:12] == b"odcache\1" + struct.pack(">I", CHUNK)
    header, body = data[:HEADER_BYTES], data[HEADER_BYTES:]
    derived = hkdf(key, label + b"file", header[12:], 39)
    plain = b""
    for number in range(4):
        nonce = derived[32:] + struct.pack(">IB", number, number == 3)
        piece = body[number * STEP : (number + 1) * STEP]
        plain += AESGCM(derived[:32]).decrypt(nonce, piece, header + entry_id + scope)
    assert plain == CONTENT


def test_no_two_files_share_a_salt(cache: EncryptedCache, directory: Path) -> None:
    seen = set()
    for _ in range(20):
        cache.put(NAME, b"the same")
        seen.add(file_of(directory).read_bytes())
    assert len(seen) == 20
    assert len({data[12:HEADER_BYTES] for data in seen}) == 20


# --- tampering --------------------------------------------------------------------------------------------------------


def part(data: bytes, number: int) -> bytes:
    return data[HEADER_BYTES + number * STEP : HEADER_BYTES + (number + 1) * STEP]


def without(data: bytes, start: int, length: int = 1, instead: bytes = b"") -> bytes:
    return data[:start] + instead + data[start + length :]


TAMPERED: dict[str, Callable[[bytes], bytes]] = {
    "bit of the content": lambda data: without(data, HEADER_BYTES, 1, bytes([data[HEADER_BYTES] ^ 1])),
    "bit of a tag": lambda data: without(data, len(data) - 1, 1, bytes([data[-1] ^ 0x80])),
    "cut before the last chunk": lambda data: data[: HEADER_BYTES + 3 * STEP],
    "cut after the first chunk": lambda data: data[: HEADER_BYTES + STEP],
    "cut to the header": lambda data: data[:HEADER_BYTES],
    "cut in the header": lambda data: data[: HEADER_BYTES - 1],
    "cut in a chunk": lambda data: data[: HEADER_BYTES + STEP + 100],
    "cut in a tag": lambda data: data[: HEADER_BYTES + STEP + 5],
    "cut to the tag": lambda data: data[: HEADER_BYTES + 3 * STEP + TAG_BYTES],
    "cut by a byte": lambda data: data[:-1],
    "empty": lambda data: b"",
    "chunks swapped": lambda data: data[:HEADER_BYTES] + part(data, 1) + part(data, 0) + part(data, 2) + part(data, 3),
    "chunk repeated": lambda data: data[:HEADER_BYTES] + part(data, 0) + part(data, 0) + part(data, 2) + part(data, 3),
    "chunk inserted": lambda data: data[: HEADER_BYTES + STEP] + data[HEADER_BYTES:],
    "first chunk gone": lambda data: data[:HEADER_BYTES] + data[HEADER_BYTES + STEP :],
    "middle chunk gone": lambda data: without(data, HEADER_BYTES + STEP, STEP),
    "a byte appended": lambda data: data + b"\0",
    "tag appended": lambda data: data + bytes(TAG_BYTES),
    "last chunk appended": lambda data: data + part(data, 3),
    "whole file appended": lambda data: data + data,
    "other magic": lambda data: b"X" + data[1:],
    "other version": lambda data: without(data, 7, 1, b"\2"),
    "smaller chunks": lambda data: without(data, 8, 4, struct.pack(">I", CHUNK // 2)),
    "larger chunks": lambda data: without(data, 8, 4, struct.pack(">I", CHUNK * 2)),
    "enormous chunks": lambda data: without(data, 8, 4, b"\xff" * 4),
    "no chunk size": lambda data: without(data, 8, 4, bytes(4)),
    "other salt": lambda data: without(data, 12, 32, bytes(32)),
    "all zero": lambda data: bytes(len(data)),
}
REASONS = {"empty": "header", "cut in the header": "header", "other magic": "header", "all zero": "header",
           "no chunk size": "header", "smaller chunks": "header", "enormous chunks": "header",
           "cut to the header": "length", "cut in a tag": "length", "cut to the tag": "length",
           "tag appended": "authentication", "other version": "version"}  # fmt: skip


@pytest.mark.parametrize("case", TAMPERED)
def test_a_changed_file_is_a_miss_and_gone(cache: EncryptedCache, directory: Path, case: str) -> None:
    cache.put(NAME, CONTENT)
    cache.put("another", b"stays")
    path = file_of(directory)
    good = path.read_bytes()
    bad = TAMPERED[case](good)
    assert bad != good
    path.write_bytes(bad)
    assert cache.get(NAME) is None
    assert dict(cache.refused) == {REASONS.get(case, "authentication"): 1}
    assert not path.exists()
    write_private(path, good)
    assert cache.get(NAME) == CONTENT, "the control: it was the change that was refused"
    assert cache.get("another") == b"stays"


def write_private(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(0o600)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_bit_can_be_flipped(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    directory = tmp_path_factory.mktemp("cache")
    content = CONTENT[: data.draw(st.sampled_from([0, 1, CHUNK, CHUNK + 1]))]
    with EncryptedCache(directory, scoped(), chunk_bytes=CHUNK, durable=False) as cache:
        cache.put(NAME, content)
        path = file_of(directory)
        good = path.read_bytes()
        at = data.draw(st.integers(0, len(good) - 1))
        bad = bytearray(good)
        bad[at] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(bad)
        assert cache.get(NAME) is None
        write_private(path, good)
        assert cache.get(NAME) == content


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, HEADER_BYTES + len(CONTENT) + 4 * TAG_BYTES - 1))
def test_no_beginning_passes_for_the_whole(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    directory = tmp_path_factory.mktemp("cache")
    with EncryptedCache(directory, scoped(), chunk_bytes=CHUNK, durable=False) as cache:
        cache.put(NAME, CONTENT)
        assert cache.get(NAME) == CONTENT
        os.truncate(file_of(directory), cut)
        assert cache.get(NAME) is None


def test_chunks_of_an_older_version_do_not_mix(cache: EncryptedCache, directory: Path) -> None:
    cache.put(NAME, CONTENT)
    path = file_of(directory)
    old = path.read_bytes()
    cache.put(NAME, CONTENT[::-1])
    new = path.read_bytes()
    path.write_bytes(new[: HEADER_BYTES + STEP] + old[HEADER_BYTES + STEP :])
    assert cache.get(NAME) is None
    write_private(path, new)
    assert cache.get(NAME) == CONTENT[::-1]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (scoped(), "another question"),
        (scoped(digest=OTHER_DIGEST), NAME),
        (scoped(purpose="responses"), NAME),
        (scoped(bytes(32)), NAME),
    ],
    ids=["entry", "model", "purpose", "key"],
)
def test_a_file_in_another_s_place_is_refused(
    cache: EncryptedCache, directory: Path, key: ScopedKey, name: str
) -> None:
    cache.put(NAME, CONTENT)
    mine, theirs = file_of(directory), file_of(directory, name, key)
    assert mine != theirs
    with EncryptedCache(directory, key, chunk_bytes=CHUNK) as other:
        assert other.get(name) is None
        assert not other.refused, "a miss: names differ with the scope"
        write_private(theirs, mine.read_bytes())
        assert other.get(name) is None
        assert dict(other.refused) == {"authentication": 1}
        assert other.put(name, b"own")
        assert other.get(name) == b"own"
    assert cache.get(NAME) == CONTENT


def test_the_scope_is_also_associated_data(directory: Path) -> None:
    secret = bytes(32)  # the same key under two labels, which derivation never gives
    one, two = ScopedKey(secret, "prompt-state", DIGEST), ScopedKey(secret, "prompt-state", OTHER_DIGEST)
    with EncryptedCache(directory, one) as first, EncryptedCache(directory, two) as second:
        first.put(NAME, CONTENT)
        assert first.get(NAME) == CONTENT
        assert second.get(NAME) is None
        assert dict(second.refused) == {"authentication": 1}


def test_a_stream_gives_nothing_unauthenticated_and_raises_before_its_end(
    cache: EncryptedCache, directory: Path
) -> None:
    cache.put(NAME, CONTENT)
    path = file_of(directory)
    good = path.read_bytes()
    os.truncate(path, HEADER_BYTES + 2 * STEP)
    reader = cache.open_reader(NAME)
    assert reader is not None
    got: list[bytes] = []
    with reader, pytest.raises(EntryRefused) as caught:
        got.extend(reader)
    assert b"".join(got) == CONTENT[:CHUNK]
    assert caught.value.reason == "authentication"
    assert isinstance(caught.value, StoreError)
    assert not path.exists()
    write_private(path, good)
    with contextlib.closing(cache.open_reader(NAME)) as whole:  # type: ignore[type-var]
        assert whole is not None
        assert b"".join(whole) == CONTENT


# --- what is on the disk ----------------------------------------------------------------------------------------------


def test_neither_text_nor_name_nor_key_is_on_the_disk(directory: Path, tmp_path: Path) -> None:
    marker = b"CANARY-7f3a9c"

    def found(needle: bytes, folder: Path) -> bool:
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert files
        return any(needle in path.read_bytes() or needle in os.fsencode(path.name) for path in files)

    key = MemoryKey().scoped("responses", DIGEST)
    with EncryptedCache(directory, key, chunk_bytes=CHUNK) as cache:
        assert cache.put(b"name " + marker, marker * 3000)
        assert cache.put("short", marker)
        assert cache.get(b"name " + marker) == marker * 3000
        (tmp_path / "plain").mkdir()
        (tmp_path / "plain" / "file").write_bytes(marker * 3)
        (tmp_path / "plain" / f"of {marker.decode()}").touch()
        assert found(marker, tmp_path / "plain"), "the control"
        assert found(b"odcache", directory), "the control"
        digest = hashlib.sha256(b"name " + marker).hexdigest().encode()
        for needle in (marker, marker[::-1], digest, digest[:16], key.reveal(), key.reveal()[:8]):
            assert not found(needle, directory)


def test_modes_whatever_the_mask(directory: Path) -> None:
    before = os.umask(0)
    try:
        with EncryptedCache(directory / "below", scoped()) as cache:
            cache.put(NAME, b"x")
            modes = {stat.S_IMODE(path.stat().st_mode) for path in (directory, directory / "below")}
            assert modes == {0o700}
            assert stat.S_IMODE(file_of(directory / "below").stat().st_mode) == 0o600
    finally:
        os.umask(before)


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701, 0o777, 0o500])
def test_a_directory_that_others_may_enter_is_refused(directory: Path, mode: int) -> None:
    directory.mkdir(mode=0o700)
    EncryptedCache(directory, scoped()).close()  # the control
    directory.chmod(mode)
    with pytest.raises(StoreError, match="not private"):
        EncryptedCache(directory, scoped())
    directory.chmod(0o700)


@pytest.mark.skipif(os.geteuid() != 0, reason="only the administrator can give files away")
def test_a_directory_or_a_file_of_somebody_else_is_refused(cache: EncryptedCache, directory: Path) -> None:
    cache.put(NAME, b"x")
    os.chown(file_of(directory), 12345, -1)
    assert cache.get(NAME) is None
    assert dict(cache.refused) == {"private": 1}
    os.chown(directory, 12345, -1)
    with pytest.raises(StoreError, match="not private"):
        EncryptedCache(directory, scoped())


def test_a_link_or_a_file_for_a_directory_is_refused(directory: Path, tmp_path: Path) -> None:
    directory.mkdir(mode=0o700)
    link, file = tmp_path / "link", tmp_path / "file"
    link.symlink_to(directory)
    file.touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for place in (link, file, tmp_path / "dangling", file / "below"):
        with pytest.raises(StoreError):
            EncryptedCache(place, scoped())
    assert not (tmp_path / "nowhere").exists()


def copy(source: Path, target: Path, mode: int) -> None:
    write_private(target, source.read_bytes())
    target.chmod(mode)


def odd_files(path: Path, aside: Path) -> dict[str, Callable[[], object]]:
    return {
        "symlink": lambda: path.symlink_to(aside),
        "hard link": lambda: path.hardlink_to(aside),
        "pipe": lambda: os.mkfifo(path, 0o600),
        "open to the group": lambda: copy(aside, path, 0o640),
        "without rights": lambda: copy(aside, path, 0),
    }


@pytest.mark.parametrize("kind", ["symlink", "hard link", "pipe", "open to the group", "without rights"])
def test_no_plain_private_file_is_refused_and_removed(
    cache: EncryptedCache, directory: Path, tmp_path: Path, kind: str
) -> None:
    cache.put(NAME, CONTENT)
    path, aside = file_of(directory), tmp_path / "aside"
    path.rename(aside)
    odd_files(path, aside)[kind]()
    assert cache.get(NAME) is None
    assert dict(cache.refused) == {"private": 1}
    assert not os.path.lexists(path)
    assert aside.exists()
    aside.rename(path)
    assert cache.get(NAME) == CONTENT, "the control"


def test_a_link_in_the_place_of_an_entry_is_replaced_not_followed(
    cache: EncryptedCache, directory: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"untouched")
    file_of(directory).symlink_to(outside)
    assert cache.put(NAME, b"x")
    assert cache.get(NAME) == b"x"
    assert outside.read_bytes() == b"untouched"


def test_a_descriptor_serves_as_the_directory(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    opened = os.open(directory, os.O_RDONLY)
    try:
        with EncryptedCache(opened, scoped()) as cache:
            assert cache.put(NAME, b"x")
        os.fstat(opened)  # still the caller's
    finally:
        os.close(opened)
    assert file_of(directory).exists()


# --- how much is kept -------------------------------------------------------------------------------------------------


def age(directory: Path, *names: str) -> None:
    """Let entries have been used one after the other, long ago."""
    for second, name in enumerate(names):
        os.utime(file_of(directory, name), (second, second))


def test_the_entries_not_used_for_longest_go_first(directory: Path) -> None:
    one = HEADER_BYTES + 1000 + TAG_BYTES
    with EncryptedCache(directory, scoped(), max_bytes=3 * one) as cache:
        for name in "abc":
            assert cache.put(name, bytes(1000))
        age(directory, "a", "b", "c")
        assert cache.get("a") == bytes(1000)  # now b is the oldest
        assert cache.put("d", bytes(1000))
        assert [name for name in "abcd" if file_of(directory, name).exists()] == ["a", "c", "d"]
        assert cache.usage() == CacheDirectory(directory).usage()
        assert cache.usage().bytes == 3 * one
        assert cache.put("e", bytes(2000))
        assert cache.get("e") == bytes(2000)
        assert cache.usage().bytes <= 3 * one


def test_what_was_just_put_stays_where_clocks_are_coarse(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EncryptedCache(directory, scoped(), max_bytes=1 << 20) as cache:
        for number in range(20):
            cache.put(str(number), bytes(1000))
    with CacheDirectory(directory) as seen:
        for number in range(20):
            age(directory, str(number))  # all at the same time
        seen.trim(1100, newest=file_of(directory, "7").name)
        assert [number for number in range(20) if file_of(directory, str(number)).exists()] == [7]


def test_larger_than_the_cache_is_not_kept_and_leaves_nothing(directory: Path) -> None:
    with EncryptedCache(directory, scoped(), max_bytes=10_000, chunk_bytes=CHUNK) as cache:
        assert cache.put("small", b"x")
        assert not cache.put(NAME, bytes(10_001))
        assert not cache.put("small", iter([bytes(6000), bytes(6000)]))
        assert cache.get(NAME) is None
        assert cache.get("small") == b"x"
        assert len(list(directory.iterdir())) == 1
    with EncryptedCache(directory, scoped(), chunk_bytes=CHUNK) as larger:
        assert larger.put(NAME, bytes(10_001))
    with EncryptedCache(directory, scoped(), max_bytes=10_000) as cache:
        assert cache.get(NAME) is None
        assert dict(cache.refused) == {"size": 1}


def test_purge_removes_everything_of_everybody_and_forgets_a_key_in_memory(directory: Path) -> None:
    kept = CallerKey(MASTER)
    memory = MemoryKey()
    with (
        EncryptedCache(directory, kept.scoped("responses", DIGEST)) as one,
        EncryptedCache(directory, memory.scoped("prompt-state", OTHER_DIGEST)) as two,
    ):
        one.put(NAME, b"x")
        two.put(NAME, b"y")
        (directory / f"{'0' * 32}.part").touch()
        (directory / "notes of the user").touch()
        assert two.purge() == 3
        assert [path.name for path in directory.iterdir()] == ["notes of the user"]
        assert memory.forgotten
        with pytest.raises(StoreError, match="forgotten"):
            two.put(NAME, b"y")
        with pytest.raises(StoreError, match="forgotten"):
            two.get(NAME)
        assert one.put(NAME, b"x")  # a key of the caller's goes on
        assert one.purge() == 1
        assert one.get(NAME) is None
        assert not kept.forgotten


def test_purge_needs_no_key(cache: EncryptedCache, directory: Path) -> None:
    cache.put(NAME, b"x")
    with CacheDirectory(directory) as seen:
        assert seen.usage().entries == 1
        assert seen.purge() == 1
        assert seen.purge() == 0
    assert cache.get(NAME) is None


def test_a_put_that_is_purged_on_the_way_is_not_kept(cache: EncryptedCache, directory: Path) -> None:
    def content() -> Iterator[bytes]:
        yield bytes(100)
        cache.purge()
        yield bytes(100)

    assert not cache.put(NAME, content())
    assert list(directory.iterdir()) == []


# --- errors -----------------------------------------------------------------------------------------------------------


def test_what_the_content_raises_passes_through_and_leaves_nothing(cache: EncryptedCache, directory: Path) -> None:
    def content() -> Iterator[bytes]:
        yield bytes(3 * CHUNK)
        raise FileNotFoundError("of the caller")

    cache.put(NAME, b"older")
    with pytest.raises(FileNotFoundError, match="of the caller"):
        cache.put(NAME, content())
    assert len(list(directory.iterdir())) == 1
    assert cache.get(NAME) == b"older"


@pytest.mark.parametrize("chunk", [0, 1000, CHUNK + 1, CHUNK // 2, 1 << 25])
def test_unusable_numbers(directory: Path, chunk: int) -> None:
    with pytest.raises(ConfigurationError):
        EncryptedCache(directory, scoped(), chunk_bytes=chunk)
    with pytest.raises(ConfigurationError):
        EncryptedCache(directory, scoped(), max_bytes=0)
    assert not directory.exists()


def test_a_closed_cache_says_so(directory: Path) -> None:
    cache = EncryptedCache(directory, scoped())
    cache.close()
    cache.close()
    for call in (lambda: cache.put(NAME, b"x"), lambda: cache.get(NAME), cache.usage, lambda: cache.delete(NAME)):
        with pytest.raises(StoreError, match="closed"):
            call()


def test_a_directory_that_went_away_is_a_store_error(cache: EncryptedCache, directory: Path) -> None:
    directory.rmdir()
    with pytest.raises(StoreError) as caught:
        cache.put(NAME, b"x")
    assert NAME not in str(caught.value)
    assert cache.get(NAME) is None
