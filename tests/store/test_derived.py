"""Optimised copies in the store: kept with their source, gone with it, checked, and never trusted when damaged."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from ondevice_sdk import models
from ondevice_sdk.errors import StoreError
from ondevice_sdk.intervals import Interval
from ondevice_sdk.store import ModelFile, Store, derived
from ondevice_sdk.store.derived import Derived, MeasuredOn, SpeedUp

from .helpers import gguf, leftovers, sha, writable

ONE = Interval(1.5, 1.4, 1.6)
WHERE = MeasuredOn("x86_64", "a processor", ("avx2",), "llama_cpp", "llama.cpp 1")


def install(store: Store, folder: Path, name: str = "tiny", seed: bytes = b"x") -> str:
    path = folder / f"{name}.gguf"
    path.write_bytes(gguf(seed=seed))
    return store.add(path, name=name, variant="int4").sha256


def record(store: Store, data: bytes | None, *, made_from: str | None = None, name: str = "tiny") -> Derived:
    file = None if data is None else ModelFile(sha(data), len(data), f"{name}.gguf")
    source = made_from or store.manifest(name, "int4").files[0].digest
    kl = None if data is None else Interval(0.001, 0.0009, 0.0011)
    speeds = None if data is None else SpeedUp(ONE, ONE, ONE, ONE)
    return Derived(name, "int4", source, WHERE, "Q8_0", "2026-01-01T00:00:00+00:00", file, kl, speeds)


def keep(store: Store, data: bytes | None, **more: str) -> bool:
    with store.space.session() as work:
        path = work / "copy"
        if data is not None:
            path.write_bytes(data)
        return store.copies.keep(record(store, data, **more), None if data is None else path, work)


def test_a_copy_is_a_property_of_its_model(store: Store, tmp_path: Path) -> None:
    source, data = install(store, tmp_path), gguf(seed=b"copy")
    assert models.list(store=store)[0].optimised is None
    assert keep(store, data)
    (model,) = models.list(store=store)
    copy = model.optimised
    assert copy is not None
    assert (model.sha256, model.variant) == (source, "int4")
    assert (copy.sha256, copy.size, copy.layout, copy.measured_on) == (sha(data), len(data), "Q8_0", WHERE)
    assert Path(copy.path).read_bytes() == data
    assert copy.kl.high == 0.0011
    local = store.resolve("tiny")
    assert local.sha256 == source  # who resolves a model gets the model
    made = store.copies.resolve(local)
    assert made is not None
    assert (made.path, made.sha256, made.variant, made.files) == (copy.path, sha(data), "int4", (copy.path,))


def test_nothing_faster_is_remembered_too(store: Store, tmp_path: Path) -> None:
    install(store, tmp_path)
    assert keep(store, None)
    found = store.copies.find("tiny", "int4")
    assert found is not None
    assert found.file is None
    assert models.list(store=store)[0].optimised is None
    assert store.copies.resolve(store.resolve("tiny")) is None


def test_it_goes_with_its_source(store: Store, tmp_path: Path) -> None:
    install(store, tmp_path)
    install(store, tmp_path, "other", b"o")
    data = gguf(payload=5000, seed=b"copy")
    keep(store, data)
    plan = store.removal("tiny")
    assert plan.freed == store.manifest("tiny").size + len(data)
    models.remove("tiny", store=store)
    rest = leftovers(store.root)
    assert len(rest) == 2
    assert not any("optimised" in each or "tiny" in each for each in rest)


def test_another_file_under_the_same_name_has_no_copy(store: Store, tmp_path: Path) -> None:
    install(store, tmp_path)
    keep(store, gguf(seed=b"copy"))
    with store.space.session() as work:
        (work / "new").write_bytes(gguf(seed=b"new"))
        files = {"tiny.gguf": work / "new"}
        store.install(files, work, name="tiny", variant="int4", source="x", licence="y", replace=True)
    assert store.copies.find("tiny", "int4") is None
    assert models.list(store=store)[0].optimised is None
    assert not any(sha(gguf(seed=b"copy")) in each for each in leftovers(store.root))
    assert not keep(store, gguf(seed=b"copy"), made_from="0" * 64)  # one of what was there before comes too late
    assert len(leftovers(store.root)) == 2


def test_a_new_copy_takes_the_place_of_the_old(store: Store, tmp_path: Path) -> None:
    install(store, tmp_path)
    old, new = gguf(seed=b"old"), gguf(seed=b"new")
    keep(store, old)
    keep(store, new)
    copy = models.list(store=store)[0].optimised
    assert copy is not None
    assert copy.sha256 == sha(new)
    assert not store.space.blob(sha(old)).exists()


def test_a_copy_that_changed_is_found_and_not_used(store: Store, tmp_path: Path) -> None:
    install(store, tmp_path)
    data = gguf(seed=b"copy")
    keep(store, data)
    local = store.resolve("tiny")
    assert [each.ok for each in models.verify(store=store)] == [True]
    path = writable(store.space.blob(sha(data)))
    path.write_bytes(data[:-1] + b"!")
    (found,) = models.verify(store=store)
    assert not found.ok
    assert "optimised copy" in found.reason
    assert (found.expected, found.actual) == (sha(data), sha(data[:-1] + b"!"))
    assert store.copies.resolve(local) is None
    path.unlink()
    assert store.copies.resolve(local) is None
    assert store.resolve("tiny") == local


DAMAGE = [
    {"schema": 2},
    {"made_from": "x"},
    {"file": None, "extra": 1},
    {"file": {"digest": "../../etc/passwd", "size": 1, "name": "a.gguf"}},
    {"file": {"digest": "0" * 64, "size": -1, "name": "a.gguf"}},
    {"file": {"digest": "0" * 64, "size": 1, "name": "../a"}},
    {"file": {"digest": "0" * 64, "size": 1, "name": "a.so", "code": "built", "mark": "0" * 64}},
    {"kl": None},
    {"kl": {"value": 0.1, "low": 0.0, "high": float("nan")}},
    {"kl": {"value": -0.1, "low": 0.0, "high": 0.0}},
    {"speed_up": None},
    {"layout": "a\nb"},
    {"name": "../x"},
    {"measured_on": {}},
]


@pytest.mark.parametrize("damage", DAMAGE, ids=str)
def test_a_damaged_record_is_none(store: Store, tmp_path: Path, damage: dict[str, object]) -> None:
    install(store, tmp_path)
    data = gguf(seed=b"copy")
    keep(store, data)
    path = writable(derived.place(store.space, "tiny", "int4"))
    good = json.loads(path.read_text())
    assert derived.parse(json.dumps(good).encode()) == store.copies.find("tiny", "int4")
    path.write_text(json.dumps(good | damage))
    assert store.copies.find("tiny", "int4") is None
    with pytest.raises(StoreError):
        derived.parse(path.read_bytes())
    install(store, tmp_path, "other", b"o")  # the next change sweeps up what nobody names any more
    assert not path.exists()
    assert not store.space.blob(sha(data)).exists()


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_record(data: bytes) -> None:
    with pytest.raises(StoreError):
        derived.parse(data)


def test_a_record_of_another_model_is_none(store: Store, tmp_path: Path) -> None:
    install(store, tmp_path)
    install(store, tmp_path, "other", b"o")
    keep(store, gguf(seed=b"copy"))
    path = derived.place(store.space, "tiny", "int4")
    target = derived.place(store.space, "other", "int4")
    target.parent.mkdir()
    target.write_bytes(path.read_bytes())
    assert store.copies.find("other", "int4") is None


def test_a_bundle_leaves_it_out(store: Store, tmp_path: Path) -> None:
    install(store, tmp_path)
    keep(store, gguf(seed=b"copy"))
    path = models.export_bundle(["tiny"], tmp_path / "bundle", store=store)
    other = Store.open(tmp_path / "other")
    (made,) = models.import_bundle(path, store=other)
    assert made.optimised is None
    assert made.sha256 == store.resolve("tiny").sha256


def test_a_full_record_survives_the_round_trip(store: Store, tmp_path: Path) -> None:
    install(store, tmp_path)
    made = record(store, b"data")
    assert derived.parse(made.to_bytes()) == made
    assert derived.parse(dataclasses.replace(made, file=None, kl=None, speed_up=None).to_bytes()).file is None
