"""`models.optimise`, end to end with a small random model; only how fast layouts are is made up."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ondevice_sdk import Client, models
from ondevice_sdk.backends.api import LocalModel
from ondevice_sdk.chooser import Chooser, Settings
from ondevice_sdk.device import detect
from ondevice_sdk.errors import LoadFailed, ModelNotInstalled, OnDeviceError, StoreError, Unsupported, WorkerCrashed
from ondevice_sdk.quantise import optimise, search
from ondevice_sdk.store import ModelFile, Store, derived
from ondevice_sdk.store.derived import SpeedUp
from ondevice_sdk.store.files import hash_file
from ondevice_sdk.types import Progress

from .support import exactly, faster, install

Speeds = dict[str, SpeedUp | OnDeviceError]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[[Speeds], list[str]]:
    """Let layouts have these speeds; the list is of those that were compared."""

    def with_speeds(speeds: Speeds) -> list[str]:
        compared: list[str] = []

        def compare(self: Any, copy: LocalModel) -> SpeedUp:
            layout = self._stage.split()[0]
            compared.append(layout)
            assert len(list(self.work.rglob("*.gguf"))) <= 2  # the best so far, and this one
            speed = speeds.get(layout, faster(0.8))
            if isinstance(speed, OnDeviceError):
                raise speed
            return speed

        monkeypatch.setattr(search.Search, "_compare", compare)
        monkeypatch.setattr(optimise, "_calibration", lambda *_: None)
        monkeypatch.setattr(search, "TOKENS", 4 * search.WINDOW)
        return compared

    return with_speeds


def traces(store: Store) -> list[str]:
    """What lies in the store besides models, locks and stamps."""
    kept = {"blobs", "manifests", "locks", "stamps"}
    parts = (path.relative_to(store.root).parts for path in store.root.rglob("*") if path.is_file())
    return ["/".join(each) for each in parts if each[0] not in kept]


@pytest.mark.slow
def test_the_fastest_that_is_exact_is_kept_and_used(
    store: Store, tmp_path: Path, pretend: Callable[[Speeds], list[str]]
) -> None:
    compared = pretend({"Q8_0": faster(1.5), "BF16": faster(1.8), "F16": faster(1.7)})
    install(store, tmp_path)
    source = store.resolve("small")
    told: list[Progress] = []
    made = models.optimise("small", store=store, on_progress=told.append)
    assert made.made
    assert (made.name, made.variant, made.layout, made.source_sha256) == ("small", "int4", "BF16", source.sha256)
    assert made.kl is not None
    assert 0 < made.kl.high <= 0.005
    assert made.speed_up == faster(1.8)
    assert Path(made.path).stat().st_size == made.size > source.size()
    assert {each.layout for each in made.tried} == {"Q8_0", "Q4_0", "BF16", "F16"}
    assert {each.stage.split(": ")[1] for each in told} >= {"writing", "exactness"}
    assert all(each.total == 100 and 0 <= each.done <= 100 for each in told)
    # Four bits are rounded anew: that is seen before their speed is measured.
    (four,) = (each for each in made.tried if each.layout == "Q4_0")
    assert ("Q4_0" in compared) == (four.kl is not None and four.kl.low <= 0.005)
    assert traces(store) == ["optimised/small/int4.json"]
    assert len(list(store.space.blobs.iterdir())) == 2
    (listed,) = models.list(store=store)
    assert listed.optimised is not None
    assert listed.optimised.sha256 == made.sha256
    assert [each.ok for each in models.verify(store=store)] == [True]

    compared.clear()
    again = models.optimise("small", store=store)
    assert compared == []
    assert (again.made, again.path, again.kl, again.speed_up) == (False, made.path, made.kl, made.speed_up)

    with Client("small", store=store) as ai:
        assert (ai.model.path, ai.model.sha256, ai.model.variant) == (made.path, made.sha256, "int4")
        assert ai.generate("a", max_tokens=2).receipt is not None
    with Client(source.path, store=store) as ai:  # a path is taken as it is
        assert ai.model.path == source.path

    models.remove("small", store=store)
    assert traces(store) == []
    assert list(store.space.blobs.iterdir()) == []


@pytest.mark.slow
def test_where_nothing_is_faster_nothing_is_made(
    store: Store, tmp_path: Path, pretend: Callable[[Speeds], list[str]]
) -> None:
    slow_stream = dataclasses.replace(faster(1.5), decode=exactly(0.7))
    compared = pretend({"Q8_0": faster(1.05), "BF16": slow_stream})
    install(store, tmp_path)
    source = store.resolve("small")
    found = models.optimise("small", store=store)
    assert not found.made
    assert (found.path, found.sha256, found.layout, found.kl) == (source.path, source.sha256, "Q4_1", None)
    verdicts = {each.layout: each.verdict for each in found.tried}
    assert verdicts["Q8_0"].startswith("not faster")
    assert verdicts["BF16"].startswith("one stream is slower")
    assert "already the fastest" in found.reason
    assert len(list(store.space.blobs.iterdir())) == 1
    assert models.list(store=store)[0].optimised is None
    tries = len(compared)
    assert models.optimise("small", store=store).path == source.path  # remembered
    assert len(compared) == tries
    models.optimise("small", store=store, again=True)
    assert len(compared) == 2 * tries


@pytest.mark.slow
def test_a_layout_that_cannot_be_run_does_not_end_the_search(
    store: Store, tmp_path: Path, pretend: Callable[[Speeds], list[str]]
) -> None:
    pretend({"Q8_0": WorkerCrashed("it died"), "BF16": faster(1.3)})
    install(store, tmp_path)
    made = models.optimise("small", store=store)
    assert made.layout == "BF16"
    assert next(each.verdict for each in made.tried if each.layout == "Q8_0") == "cannot be run: it died"


@pytest.mark.slow
def test_whatever_ends_it_leaves_nothing_behind(
    store: Store, tmp_path: Path, pretend: Callable[[Speeds], list[str]]
) -> None:
    pretend({"Q8_0": faster(2)})
    install(store, tmp_path)

    def interrupt(progress: Progress) -> None:
        if progress.stage.endswith("exactness"):  # the copy is there
            assert list((store.root / "tmp").rglob("copy.gguf"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        models.optimise("small", store=store, on_progress=interrupt)
    assert traces(store) == []
    assert len(list(store.space.blobs.iterdir())) == 1


@pytest.mark.slow
def test_a_model_that_runs_nowhere_gives_its_own_error(
    store: Store, tmp_path: Path, pretend: Callable[[Speeds], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend({})
    install(store, tmp_path)

    def fail(self: object, *_: object) -> None:
        raise LoadFailed("not enough memory for the model")

    monkeypatch.setattr(search.Search, "_divergence", fail)
    with pytest.raises(LoadFailed, match="not enough memory"):
        models.optimise("small", store=store)
    assert traces(store) == []


def test_a_full_disk_is_told_in_numbers(
    store: Store, tmp_path: Path, pretend: Callable[[Speeds], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend({})
    install(store, tmp_path)

    class Usage:
        free = 1000

    monkeypatch.setattr("ondevice_sdk.store.files.shutil.disk_usage", lambda _: Usage)
    with pytest.raises(StoreError, match=r"MB are needed, 1 kB are free"):
        models.optimise("small", store=store)
    assert traces(store) == []


def test_where_two_do_not_fit_into_memory_nothing_is_concluded(
    store: Store, tmp_path: Path, pretend: Callable[[Speeds], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = pretend({"Q8_0": faster(2)})
    install(store, tmp_path)
    monkeypatch.setattr(search, "usable_memory", lambda _: 50_000_000)
    found = models.optimise("small", store=store)
    assert not found.made
    assert all("50 MB can be used" in each.verdict for each in found.tried)
    assert (compared, traces(store)) == ([], [])


def test_what_cannot_be_optimised(store: Store, tmp_path: Path, echo_path: Path) -> None:
    with pytest.raises(ModelNotInstalled):
        models.optimise("nothing", store=store)
    store.add(echo_path, name="parrot")
    with pytest.raises(Unsupported) as caught:
        models.optimise("parrot", store=store)
    assert caught.value.capability == "layouts"


@pytest.fixture
def with_copy(store: Store, tmp_path: Path) -> Path:
    """A store where `small` has a copy that was measured here; where the copy lies."""
    install(store, tmp_path)
    other = install(Store.open(tmp_path / "other"), tmp_path, kind="Q8_0", seed=1)
    model, device = store.resolve("small"), detect()
    runtime = optimise.runtime_for(model, optimise_backends(), device)
    with store.space.session() as work:
        file = ModelFile(hash_file(other), other.stat().st_size, "small.gguf")
        copy = other.rename(work / "copy")
        made = derived.Derived(
            "small", "int4", model.sha256, runtime.measured_on(device), "Q8_0", "now", file, exactly(0.001), faster(1.5)
        )
        assert store.copies.keep(made, copy, work)
    return store.space.blob(file.digest)


def optimise_backends() -> Any:
    from ondevice_sdk.backends import registry

    return registry.installed()


def chosen(store: Store, **settings: Any) -> str:
    return Chooser(Settings(model="small", **settings), store).resolve().model.path


def test_a_client_uses_the_copy_by_itself(store: Store, with_copy: Path) -> None:
    assert chosen(store) == str(with_copy)
    assert chosen(store, prefer="memory") != str(with_copy)  # which is larger
    known = models.optimise("small", store=store)
    assert (known.path, known.made) == (str(with_copy), False)


def test_a_damaged_copy_is_as_good_as_none(store: Store, with_copy: Path) -> None:
    with_copy.chmod(0o600)
    with_copy.write_bytes(b"GGUF")
    assert chosen(store) == store.resolve("small").path


@pytest.mark.parametrize("field", ["library", "cpu_name", "instruction_sets"])
def test_a_copy_from_another_processor_or_version_is_not_used(store: Store, with_copy: Path, field: str) -> None:
    found = store.copies.find("small", "int4")
    assert found is not None
    change: dict[str, Any] = {field: () if field == "instruction_sets" else "another"}
    elsewhere = dataclasses.replace(found.measured_on, **change)
    with store.space.session() as work:
        store.copies.keep(dataclasses.replace(found, measured_on=elsewhere), None, work)
    assert with_copy.exists()
    assert chosen(store) == store.resolve("small").path
    chooser = Chooser(Settings(model="small"), store)
    (copy,) = chooser.inventory.copies(store.installed())
    assert copy.stale.startswith("it was measured ")
