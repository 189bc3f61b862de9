from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ondevice_sdk import models
from ondevice_sdk.errors import ConfigurationError, ModelCorrupt, ModelNotInstalled, StoreError
from ondevice_sdk.store import Store
from ondevice_sdk.types import Progress

from .helpers import gguf, leftovers, sha, writable

ONE, TWO = gguf(), gguf(8192, seed=b"two")


@pytest.fixture
def full(tmp_path: Path) -> Store:
    """A store with `one:int4` and `two:int8`."""
    store = Store.open(tmp_path / "full")
    for name, variant, data in (("one", "int4", ONE), ("two", "int8", TWO)):
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(data)
        store.add(path, name=name, variant=variant, licence="Apache-2.0")
    return store


def test_there_and_back(full: Store, store: Store, tmp_path: Path) -> None:
    heard: list[Progress] = []
    path = models.export_bundle(["one", "two:int8"], tmp_path / "b.tar", store=full)
    made = models.import_bundle(path, store=store, on_progress=heard.append)
    assert [(m.name, m.variant, m.sha256, m.licence) for m in made] == [
        ("one", "int4", sha(ONE), "Apache-2.0"),
        ("two", "int8", sha(TWO), "Apache-2.0"),
    ]
    assert all(result.ok for result in store.verify())
    assert heard[-1].done <= (heard[-1].total or 0)
    assert models.import_bundle(path, store=store) == store.installed()  # again: the same
    assert len(leftovers(store.root)) == 4


def test_the_same_models_give_the_same_bytes(full: Store, tmp_path: Path) -> None:
    paths = [models.export_bundle(["one"], tmp_path / name, store=full) for name in ("a", "b")]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with tarfile.open(paths[0]) as archive:  # a tool that everybody has can look into it
        assert archive.getnames() == ["manifest.json", f"blobs/sha256/{sha(ONE)}"]


def test_a_bundle_does_not_tell_where_the_files_lay(full: Store, tmp_path: Path) -> None:
    path = models.export_bundle(["one"], tmp_path / "b", store=full)
    assert str(tmp_path).encode() not in path.read_bytes()


def test_splits_travel_together(full: Store, store: Store, tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"s-0000{number}-of-00002.gguf").write_bytes(gguf(64 * number))
    full.add(tmp_path / "s-00001-of-00002.gguf", name="s")
    models.import_bundle(models.export_bundle(["s"], tmp_path / "b", store=full), store=store)
    assert [Path(p).name for p in store.resolve("s").files] == ["s-00001-of-00002.gguf", "s-00002-of-00002.gguf"]


def test_export_refuses(full: Store, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    with pytest.raises(ConfigurationError, match="exists"):
        models.export_bundle(["one"], tmp_path / "there", store=full)
    assert (tmp_path / "there").read_text() == "mine"
    nothing: list[str] = []
    for names in (nothing, "one"):
        with pytest.raises(ConfigurationError):
            models.export_bundle(names, tmp_path / "b", store=full)
    with pytest.raises(ModelNotInstalled):
        models.export_bundle(["three"], tmp_path / "b", store=full)
    blob = Path(full.resolve("one").path)
    writable(blob).write_bytes(b"?" * len(ONE))
    full.space.stamp(sha(ONE), blob, sha(ONE))  # not noticed before it is read
    with pytest.raises(ModelCorrupt):
        models.export_bundle(["one"], tmp_path / "b", store=full)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".b", "b"))]
    with pytest.raises(StoreError):
        models.export_bundle(["two"], tmp_path / "nowhere" / "b", store=full)


def test_import_refuses_another_model_of_that_name(full: Store, store: Store, tmp_path: Path) -> None:
    path = models.export_bundle(["one", "two"], tmp_path / "b", store=full)
    (tmp_path / "other.gguf").write_bytes(gguf(seed=b"other"))
    store.add(tmp_path / "other.gguf", name="two", variant="int8")
    before = leftovers(store.root)
    with pytest.raises(StoreError, match="another model"):
        models.import_bundle(path, store=store)
    assert leftovers(store.root) == before


def test_a_bundle_vouches_for_nothing(full: Store, store: Store, tmp_path: Path) -> None:
    path = craft(tmp_path, head=lambda head: head["models"][0].update(digest_origin="catalogue"))
    assert models.import_bundle(path, store=store)[0].digest_origin == "first_use"


def test_what_is_no_bundle(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ModelNotInstalled):
        models.import_bundle(tmp_path / "missing", store=store)
    with pytest.raises(ModelNotInstalled):
        models.import_bundle(tmp_path, store=store)
    for data in (b"", bytes(512), bytes(10240), os.urandom(5000), ONE):
        (tmp_path / "b").write_bytes(data)
        with pytest.raises(ModelCorrupt):
            models.import_bundle(tmp_path / "b", store=store)


# --- hostile bundles --------------------------------------------------------------------------------------------------

BLOB = f"blobs/sha256/{sha(ONE)}"
Members = list[tuple[tarfile.TarInfo, bytes]]


def craft(
    tmp_path: Path,
    *,
    head: Callable[[dict[str, Any]], object] | None = None,
    members: Callable[[Members], object] | None = None,
    form: int = tarfile.GNU_FORMAT,
) -> Path:
    """A good bundle of one model, except for what is done to its manifest or its members."""
    model = {
        "schema": 1,
        "name": "one",
        "variant": "int4",
        "format": "gguf",
        "files": [{"digest": sha(ONE), "size": len(ONE), "name": "one.gguf"}],
        "source": "file:one.gguf",
        "licence": "Apache-2.0",
        "accepted_at": None,
        "installed_at": "2026-01-01T00:00:00+00:00",
        "digest_origin": "first_use",
    }
    value: dict[str, Any] = {"bundle": 1, "models": [model], "blobs": {sha(ONE): len(ONE)}}
    if head is not None:
        head(value)
    entries: Members = [member("manifest.json", json.dumps(value).encode()), member(BLOB, ONE)]
    if members is not None:
        members(entries)
    path = tmp_path / "crafted.tar"
    with tarfile.open(path, "w", format=form) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return path


def member(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, link
    return info, data


def file_of(**values: object) -> Callable[[dict[str, Any]], object]:
    return lambda head: head["models"][0]["files"][0].update(values)


def model_of(**values: object) -> Callable[[dict[str, Any]], object]:
    return lambda head: head["models"][0].update(values)


OTHER = sha(TWO)
HOSTILE_MEMBERS: dict[str, Callable[[Members], object]] = {
    "absolute": lambda m: m.append(member("/etc/cron.d/x", b"x")),
    "parent": lambda m: m.append(member("../x", b"x")),
    "parent inside": lambda m: m.append(member("blobs/sha256/../../x", b"x")),
    "drive": lambda m: m.append(member("C:\\x", b"x")),
    "backslash": lambda m: m.append(member("blobs\\sha256\\x", b"x")),
    "symbolic link": lambda m: m.append(member(BLOB, kind=tarfile.SYMTYPE, link="/etc/passwd")),
    "hard link": lambda m: m.append(member(BLOB, kind=tarfile.LNKTYPE, link="manifest.json")),
    "symbolic link in place": lambda m: m.__setitem__(1, member(BLOB, kind=tarfile.SYMTYPE, link="/etc/passwd")),
    "directory": lambda m: m.insert(1, member("blobs/", kind=tarfile.DIRTYPE)),
    "character device": lambda m: m.__setitem__(1, member(BLOB, kind=tarfile.CHRTYPE)),
    "block device": lambda m: m.__setitem__(1, member(BLOB, kind=tarfile.BLKTYPE)),
    "fifo": lambda m: m.__setitem__(1, member(BLOB, kind=tarfile.FIFOTYPE)),
    "sparse": lambda m: m.__setitem__(1, member(BLOB, ONE, kind=tarfile.GNUTYPE_SPARSE)),
    "long name": lambda m: m.append(member("blobs/sha256/" + "x" * 300, b"x")),
    "name in upper case": lambda m: m.append(member(BLOB.upper(), ONE)),
    "twice": lambda m: m.append(m[1]),
    "manifest twice": lambda m: m.append(m[0]),
    "manifest last": lambda m: m.reverse(),
    "unnamed file": lambda m: m.append(member(f"blobs/sha256/{OTHER}", TWO)),
    "missing file": lambda m: m.pop(),
    "other bytes": lambda m: m.__setitem__(1, member(BLOB, b"!" + ONE[1:])),
    "shorter": lambda m: m.__setitem__(1, member(BLOB, ONE[:-1])),
    "longer": lambda m: m.__setitem__(1, member(BLOB, ONE + b"x")),
    "nothing": lambda m: m.clear(),
    "contiguous file": lambda m: m.__setitem__(1, member(BLOB, ONE, kind=tarfile.CONTTYPE)),
    "old kind of file": lambda m: m.__setitem__(1, member(BLOB, ONE, kind=tarfile.AREGTYPE)),
    "GNU long link": lambda m: m.insert(1, member("././@LongLink", b"x" * 300, kind=tarfile.GNUTYPE_LONGLINK)),
    "global PAX header": lambda m: m.insert(0, member("g", b"20 comment=whatever\n", kind=tarfile.XGLTYPE)),
    "volume label": lambda m: m.insert(0, member("label", kind=b"V")),
    "multi-volume": lambda m: m.__setitem__(1, member(BLOB, ONE, kind=b"M")),
    "unknown kind": lambda m: m.__setitem__(1, member(BLOB, ONE, kind=b"Z")),
    "plain file with a link": lambda m: m.__setitem__(1, member(BLOB, ONE, link="/etc/passwd")),
    "thousands of entries": lambda m: m.extend(member(f"blobs/sha256/{n:064}") for n in range(5000)),
    "home": lambda m: m.append(member("~/.profile", b"x")),
    "reserved name": lambda m: m.append(member("blobs/sha256/NUL", b"x")),
}
HOSTILE_HEADS: dict[str, Callable[[dict[str, Any]], object]] = {
    "version": lambda h: h.update(bundle=2),
    "no models": lambda h: h.update(models=[]),
    "models no list": lambda h: h.update(models={}),
    "too many models": lambda h: h.update(models=[h["models"][0] | {"name": f"m{n}"} for n in range(101)]),
    "model twice": lambda h: h.update(models=h["models"] * 2),
    "names that differ in case": lambda h: h["models"].append(h["models"][0] | {"name": "ONE"}),
    "model of parent": model_of(name="../one"),
    "model absolute": model_of(name="/one"),
    "model with NUL": model_of(name="o\0ne"),
    "model of a drive": model_of(name="c:one"),
    "variant of parent": model_of(variant="../../x"),
    "a device as name": model_of(name="con"),
    "another format": model_of(format="echo"),
    "escape sequence": model_of(licence="\x1b[2J"),
    "long text": model_of(source="x" * 5000),
    "file of parent": file_of(name="../one.gguf"),
    "file absolute": file_of(name="/one.gguf"),
    "file with NUL": file_of(name="one\0.gguf"),
    "hidden file": file_of(name=".profile"),
    "file digest": file_of(digest="../x"),
    "file of another digest": file_of(digest=OTHER),
    "file of another size": file_of(size=1),
    "file of a huge size": lambda h: (
        h["models"][0]["files"][0].update(size=1 << 45),
        h.update(blobs={sha(ONE): 1 << 45}),
    ),
    "two names that differ in case": lambda h: h["models"][0]["files"].append(
        h["models"][0]["files"][0] | {"name": "ONE.gguf"}
    ),
    "two sizes": lambda h: h["models"][0]["files"].append(h["models"][0]["files"][0] | {"name": "b", "size": 2}),
    "blobs no mapping": lambda h: h.update(blobs=[sha(ONE)]),
    "more blobs": lambda h: h["blobs"].update({OTHER: 1}),
}


def refused(store: Store, path: Path) -> None:
    with pytest.raises(ModelCorrupt):
        models.import_bundle(path, store=store)
    assert leftovers(store.root) == []
    assert not (store.root / "tmp").exists() or list((store.root / "tmp").iterdir()) == []


def test_the_crafted_bundle_is_good_when_nothing_is_done_to_it(store: Store, tmp_path: Path) -> None:
    assert models.import_bundle(craft(tmp_path), store=store)[0].sha256 == sha(ONE)


@pytest.mark.parametrize("case", HOSTILE_MEMBERS)
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_hostile_members(store: Store, tmp_path: Path, case: str, form: int) -> None:
    refused(store, craft(tmp_path, members=HOSTILE_MEMBERS[case], form=form))


@pytest.mark.parametrize("case", HOSTILE_HEADS)
def test_hostile_manifests(store: Store, tmp_path: Path, case: str) -> None:
    refused(store, craft(tmp_path, head=HOSTILE_HEADS[case]))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"[" * 10_000, b"\xff\xfe"])
def test_a_manifest_that_is_none(store: Store, tmp_path: Path, data: bytes) -> None:
    refused(store, craft(tmp_path, members=lambda m: m.__setitem__(0, member("manifest.json", data))))


def test_every_cut_is_noticed(store: Store, tmp_path: Path) -> None:
    data = craft(tmp_path).read_bytes()
    end = len(data.rstrip(b"\0"))
    for length in [*range(0, end, 509), end]:
        (tmp_path / "cut").write_bytes(data[:length])
        refused(store, tmp_path / "cut")


def test_something_behind_the_end(store: Store, tmp_path: Path) -> None:
    with craft(tmp_path).open("ab") as file:
        file.write(b"and more")
    refused(store, tmp_path / "crafted.tar")


def test_something_between_the_files(store: Store, tmp_path: Path) -> None:
    path = craft(tmp_path, head=lambda h: h.update(pad="x"))
    data = bytearray(path.read_bytes())
    at = data.index(b'"pad": "x"}') + 11
    assert data[at] == 0
    data[at] = 1
    path.write_bytes(data)
    refused(store, path)


def test_a_pax_header_of_a_huge_size_is_not_read(store: Store, tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40
    path = tmp_path / "bomb"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    refused(store, path)


def test_one_bad_file_and_no_model_is_installed(full: Store, store: Store, tmp_path: Path) -> None:
    path = models.export_bundle(["one", "two"], tmp_path / "b", store=full)
    data = bytearray(path.read_bytes())
    data[data.rindex(TWO[-64:])] ^= 1
    path.write_bytes(data)
    refused(store, path)


@pytest.mark.parametrize("keyword", ["GNU.sparse.major=1", "GNU.sparse.realsize=1099511627776", "path=../x", "size=9"])
def test_pax_headers_that_would_change_an_entry(store: Store, tmp_path: Path, keyword: str) -> None:
    record = f" {keyword}\n"
    data = f"{len(record) + 2}{record}".encode()
    refused(store, craft(tmp_path, members=lambda m: m.insert(1, member("h", data, kind=tarfile.XHDTYPE))))


@pytest.mark.parametrize("packer", ["gzip", "bz2", "lzma"])
def test_packed_archives_are_refused_unread(store: Store, tmp_path: Path, packer: str) -> None:
    """Nothing is ever unpacked, so nothing can grow: a small bomb, and an honest bundle that was packed."""
    import importlib

    compress = importlib.import_module(packer).compress
    for number, data in enumerate((bytes(50_000_000), craft(tmp_path).read_bytes())):
        path = tmp_path / f"packed{number}"
        path.write_bytes(compress(data))
        refused(store, path)


@pytest.mark.parametrize("size", [-1, 1 << 33, 1 << 62])
def test_sizes_in_base_256_that_lie(store: Store, tmp_path: Path, size: int) -> None:
    info = tarfile.TarInfo("manifest.json")
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = bytes([0x80]) + size.to_bytes(11, "big") if size >= 0 else b"\xff" * 12
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    (tmp_path / "b").write_bytes(bytes(block) + bytes(2048))
    refused(store, tmp_path / "b")


def test_a_name_with_nul_in_its_middle(store: Store, tmp_path: Path) -> None:
    """A reader that stops at NUL and one that does not would see two names."""
    data = bytearray(craft(tmp_path).read_bytes())
    start = data.index(BLOB.encode())
    data[start + 20] = 0
    block = data[start : start + 512]
    block[148:156] = b" " * 8
    data[start + 148 : start + 156] = f"{sum(block):06o}\0 ".encode()
    (tmp_path / "b").write_bytes(data)
    refused(store, tmp_path / "b")
