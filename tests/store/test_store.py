from __future__ import annotations

import dataclasses
import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from ondevice_sdk.errors import ConfigurationError, ModelCorrupt, ModelNotInstalled, StoreError
from ondevice_sdk.store import Store, files, workspace
from ondevice_sdk.store import store as store_module

from .helpers import gguf, leftovers, sha, writable

DATA = gguf()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "My Model Q4.gguf"
    path.write_bytes(DATA)
    return path


def make_stale(path: Path) -> None:
    """Another time, so that no stamp fits."""
    os.utime(path, ns=(1, 1))


# --- where it lies ----------------------------------------------------------------------------------------------------


def test_the_root_is_read_when_the_store_is_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "a"))
    assert Store.open().root == tmp_path / "a"
    monkeypatch.delenv("ONDEVICE_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "b"))
    monkeypatch.setenv("HOME", str(tmp_path / "c"))
    assert "ondevice-sdk" in str(Store.open().root)
    assert Store.open(tmp_path / "d").root == tmp_path / "d"
    assert list(tmp_path.iterdir()) == []


def test_no_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("ONDEVICE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does where nobody knows the user
    with pytest.raises(StoreError) as caught:
        Store.open()
    assert "ONDEVICE_HOME" in (caught.value.hint or "")


def test_a_root_that_is_a_file(tmp_path: Path, model: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        Store.open(tmp_path / "file" / "store").add(model)
    assert Store.open(tmp_path / "file" / "store").installed() == ()


def test_files_are_private(store: Store, model: Path) -> None:
    made = store.add(model)
    assert stat.S_IMODE(Path(made.path).stat().st_mode) == 0o400
    for path in [store.root, *store.root.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_read_only_store_can_be_read(small_disk: Path, model: Path) -> None:
    store = Store.open(small_disk / "store")
    store.add(model, name="m")
    shutil.rmtree(store.root / "stamps")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert store.resolve("m").sha256 == sha(DATA)
    assert store.verify()[0].ok
    assert store.from_path(model).sha256 == sha(DATA)
    for write in (lambda: store.add(model, name="other"), store.removal("m").execute):
        with pytest.raises(StoreError, match="may not") as caught:
            write()
        assert "ONDEVICE_HOME" in (caught.value.hint or "")


# --- add and resolve --------------------------------------------------------------------------------------------------


def test_add_and_resolve(store: Store, model: Path) -> None:
    made = store.add(model)
    assert (made.name, made.variant, made.format, made.size) == ("my-model-q4", "int4", "gguf", len(DATA))
    assert (made.licence, made.digest_origin) == ("unknown", "first_use")
    assert store.installed() == (made,)
    found = store.resolve("my-model-q4:int4")
    assert (found.name, found.variant, found.format, found.sha256) == ("my-model-q4", "int4", "gguf", sha(DATA))
    assert Path(found.path).read_bytes() == DATA
    assert found.files == (found.path,)
    assert store.resolve("my-model-q4") == found


def test_without_a_variant_int4_comes_first(store: Store, model: Path) -> None:
    for variant in ("f16", "int8"):
        store.add(model, name="m", variant=variant)
    assert store.resolve("m").variant == "f16"
    store.add(model, name="m", variant="int4")
    assert store.resolve("m").variant == "int4"
    assert len(leftovers(store.root)) == 4  # one blob


def test_adding_the_same_again_changes_nothing_and_another_is_refused(store: Store, model: Path) -> None:
    store.add(model, name="m")
    store.add(model, name="m")
    model.write_bytes(gguf(seed=b"other"))
    with pytest.raises(StoreError, match="another model"):
        store.add(model, name="m")
    assert store.resolve("m").sha256 == sha(DATA)
    assert len(leftovers(store.root)) == 2


def test_what_is_not_there(store: Store, model: Path) -> None:
    with pytest.raises(ModelNotInstalled) as caught:
        store.resolve("m")
    assert (caught.value.model, caught.value.hint) == ("m", "ondevice models pull m")
    store.add(model, name="m")
    with pytest.raises(ModelNotInstalled):
        store.resolve("m", "int8")
    with pytest.raises(ModelNotInstalled):
        store.removal("n")
    with pytest.raises(ModelNotInstalled):
        store.verify("n")
    with pytest.raises(ModelNotInstalled):
        store.add(model.with_name("missing.gguf"))


@pytest.mark.parametrize(
    "name",
    ["", "A", "../m", "m/../n", "/m", "m\0", "nul", "com1.x", "m.", "-m", "m:", "m:../x", "m:a:b", "ü", "m" * 101],
)
def test_names_that_are_none(store: Store, model: Path, name: str) -> None:
    with pytest.raises(ConfigurationError):
        store.resolve(name)
    with pytest.raises(ConfigurationError):
        store.add(model, name=name)


def test_two_variants_named_at_once(store: Store) -> None:
    with pytest.raises(ConfigurationError, match="two variants"):
        store.resolve("m:int4", "int8")


def test_what_is_no_model_is_not_added(store: Store, model: Path) -> None:
    for data in (b"", b"GGUF", os.urandom(500), DATA[:-1]):
        model.write_bytes(data)
        with pytest.raises(ModelCorrupt):
            store.add(model)
    assert leftovers(store.root) == []


def test_all_splits_or_none(store: Store, tmp_path: Path) -> None:
    first = tmp_path / "big-00001-of-00002.gguf"
    first.write_bytes(gguf(64))
    with pytest.raises(ModelNotInstalled):
        store.add(first)
    second = tmp_path / "big-00002-of-00002.gguf"
    second.write_bytes(gguf(128))
    made = store.add(second)
    assert made.name == "big"
    assert [Path(path).name for path in store.resolve("big").files] == [first.name, second.name]
    Path(store.resolve("big").files[1]).unlink()
    with pytest.raises(ModelCorrupt, match="missing"):
        store.resolve("big")


# --- corruption -------------------------------------------------------------------------------------------------------


def test_another_size_is_noticed_by_resolve(store: Store, model: Path) -> None:
    made = store.add(model, name="m")
    with writable(made.path).open("ab") as file:
        file.write(b"x")
    with pytest.raises(ModelCorrupt) as caught:
        store.resolve("m")
    assert caught.value.expected == sha(DATA)
    assert caught.value.actual == sha(DATA + b"x")


def test_other_bytes_of_the_same_size_are_noticed_by_resolve(store: Store, model: Path) -> None:
    made = store.add(model, name="m")
    writable(made.path).write_bytes(DATA[:-1] + b"!")
    make_stale(Path(made.path))
    with pytest.raises(ModelCorrupt):
        store.resolve("m")


def test_verify_reads_every_byte(store: Store, model: Path) -> None:
    made = store.add(model, name="m")
    store.add(model, name="n")
    assert [result.ok for result in store.verify()] == [True, True]
    blob = Path(made.path)
    writable(blob).write_bytes(DATA[:-1] + b"!")
    store.space.stamp(made.sha256, blob, made.sha256)  # a stamp that lies
    store.resolve("m")
    result = store.verify("m")[0]
    assert (result.ok, result.expected, result.actual) == (False, sha(DATA), sha(DATA[:-1] + b"!"))
    with pytest.raises(ModelCorrupt):  # and now everybody knows
        store.resolve("n")


def test_a_file_that_did_not_change_is_hashed_once(store: Store, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = store.add(model, name="m")
    hashed: list[Path] = []

    def hash_file(path: Path) -> str:
        hashed.append(path)
        return files.hash_file(path)

    monkeypatch.setattr(store_module, "hash_file", hash_file)
    store.resolve("m")
    assert hashed == []
    make_stale(Path(made.path))
    store.resolve("m")
    store.resolve("m")
    assert hashed == [Path(made.path)]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"schema": 2}', b"[" * 5000, b'{"schema": 1, "files": []}'])
def test_a_damaged_manifest(store: Store, model: Path, data: bytes) -> None:
    store.add(model, name="m")
    store.add(model, name="n")
    store.space.manifest("m", "int4").write_bytes(data)
    with pytest.raises(ModelCorrupt):
        store.resolve("m")
    assert [each.name for each in store.installed()] == ["n"]
    assert [(result.name, result.ok) for result in store.verify()] == [("m", False), ("n", True)]
    store.removal("n").execute()  # what the damaged one needs is unknown: its blob stays
    assert f"blobs/sha256/{sha(DATA)}" in leftovers(store.root)
    store.removal("m").execute()
    assert leftovers(store.root) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "other"),
        ("variant", "../x"),
        ("files", [{"digest": "../../etc/passwd", "size": 1, "name": "x"}]),
        ("files", [{"digest": "0" * 64, "size": -1, "name": "x"}]),
        ("files", [{"digest": "0" * 64, "size": 1, "name": "../x"}]),
        ("files", [{"digest": "0" * 64, "size": True, "name": "x"}]),
        ("digest_origin", "me"),
        ("licence", "a\x1b[31m"),
    ],
)
def test_a_manifest_with_a_bad_value(store: Store, model: Path, key: str, value: object) -> None:
    store.add(model, name="m")
    path = store.space.manifest("m", "int4")
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {key: value}))
    with pytest.raises(ModelCorrupt):
        store.resolve("m")


# --- remove -----------------------------------------------------------------------------------------------------------


def test_what_others_share_stays(store: Store, model: Path) -> None:
    store.add(model, name="m")
    store.add(model, name="n")
    plan = store.removal("m")
    assert plan.freed == 0
    assert len(store.installed()) == 2  # a plan does nothing
    plan.execute()
    assert store.resolve("n").sha256 == sha(DATA)
    plan = store.removal("n")
    assert plan.freed == len(DATA)
    plan.execute()
    assert leftovers(store.root) == []


def test_one_variant_or_all(store: Store, model: Path) -> None:
    for variant in ("int4", "int8", "f16"):
        store.add(model, name="m", variant=variant)
    store.removal("m:int8").execute()
    assert [each.variant for each in store.installed()] == ["f16", "int4"]
    store.removal("m").execute()
    assert store.installed() == ()


def test_what_a_crash_left_goes_with_the_next_installation(store: Store, model: Path) -> None:
    store.space.blobs.mkdir(parents=True)
    store.space.blob("0" * 64).write_bytes(b"of a process that died before it wrote its manifest")
    store.add(model, name="m")
    assert leftovers(store.root) == [f"blobs/sha256/{sha(DATA)}", "manifests/m/int4.json"]


# --- bare paths -------------------------------------------------------------------------------------------------------


def test_from_path(store: Store, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = store.from_path(model)
    assert (found.path, found.format, found.sha256) == (str(model), "gguf", sha(DATA))
    monkeypatch.setattr(store_module, "hash_file", lambda path: pytest.fail("hashed again"))
    assert store.from_path(str(model)) == found
    assert store.installed() == ()


def test_from_path_sees_a_change(store: Store, model: Path) -> None:
    store.from_path(model)
    other = gguf(seed=b"other")
    model.write_bytes(other)
    make_stale(model)
    assert store.from_path(model).sha256 == sha(other)


def test_from_path_with_a_store_that_cannot_be_written(tmp_path: Path, model: Path) -> None:
    (tmp_path / "file").write_text("")
    assert Store.open(tmp_path / "file" / "store").from_path(model).sha256 == sha(DATA)


def test_from_path_of_what_is_no_model(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ModelNotInstalled):
        store.from_path(tmp_path / "missing.gguf")
    with pytest.raises(ModelCorrupt):
        store.from_path(tmp_path)
    (tmp_path / "noise").write_bytes(os.urandom(1000))
    with pytest.raises(ModelCorrupt):
        store.from_path(tmp_path / "noise")


# --- room and temporary files -----------------------------------------------------------------------------------------


def test_room_is_looked_for_before(store: Store, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(model.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type(usage)(usage.total, usage.used, 100))
    with pytest.raises(StoreError, match=r"4\.\d+ kB are needed, 100 bytes are free"):
        store.add(model)
    assert leftovers(store.root) == []


def test_a_session_leaves_those_of_the_living_alone(store: Store) -> None:
    with store.space.session() as one, store.space.session() as two:
        assert one.is_dir()
        assert two.is_dir()
    assert list((store.root / "tmp").iterdir()) == []


def test_a_session_clears_up_after_the_dead(store: Store) -> None:
    dead = store.root / "tmp" / "0123"
    dead.mkdir(parents=True)
    (dead / "data").write_bytes(b"x")
    (store.root / "tmp" / "4567.lock").write_bytes(b"")
    with store.space.session() as mine:
        assert [path for path in (store.root / "tmp").iterdir() if path.is_dir()] == [mine]
    assert list((store.root / "tmp").iterdir()) == []


def test_a_file_system_without_locks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import filelock

    def refuse(self: object, **options: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with pytest.raises(StoreError, match="no locks"), store.space.lock("x"):
        pass


def test_values_are_frozen(store: Store, model: Path) -> None:
    made = store.add(model)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.name = "x"  # type: ignore[misc]


def test_a_stamp_that_is_damaged_is_none(store: Store, model: Path) -> None:
    store.space.stamp("k", model, "digest")
    assert store.space.stamped("k", model) == "digest"
    for text in ("", "[]", '{"file": 1}'):
        (store.root / "stamps" / "k.json").write_text(text)
        assert store.space.stamped("k", model) is None
    assert isinstance(store.space, workspace.Workspace)
