"""Installed models measured with the backends that can run them, kept, and believed only where they can be."""

from __future__ import annotations

import dataclasses
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ondevice_sdk import Client, errors, measuring
from ondevice_sdk.backends.api import LocalModel
from ondevice_sdk.backends.measured import ModelSpeed, Round
from ondevice_sdk.chooser import Chooser, Settings
from ondevice_sdk.device import detect
from ondevice_sdk.inventory import Inventory
from ondevice_sdk.measuring import Rival
from ondevice_sdk.store import Store
from ondevice_sdk.store.from_builder import add_built
from ondevice_sdk.types import Progress

from .backends.test_registry import install
from .selection.support import MB, device, spec

DEVICE = device()
ECHO = Rival(
    "m", "int4", "d" * 64, "echo", "ondevice_sdk.backends.echo:EchoBackend", "echo 1", 80 * MB, predicted=False
)
SWIFT = """
from dataclasses import replace
from ondevice_sdk.backends.echo import EchoBackend

class SwiftBackend(EchoBackend):
    name = "swift"

    def load(self, model, options):
        runner = super().load(model, options)
        runner._settings = replace(runner._settings, delay_s=0.0)
        return runner
"""


def rival(**changes: Any) -> Rival:
    return dataclasses.replace(ECHO, **changes)


def figures(of: Rival = ECHO, session: str = "one") -> ModelSpeed:
    rounds = (Round(0.5, 0.01), Round(0.6, 0.02), Round(0.4, 0.015))
    return ModelSpeed(of.name, of.variant, of.backend, of.library, DEVICE.threads, session, 500, 40, rounds)


@pytest.fixture
def swift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin that runs echo models, without the delay that they may ask for."""
    folder = tmp_path / "plugin"
    folder.mkdir()
    install(folder, monkeypatch, "ondevice-swift", "swift = ondevice_swift:SwiftBackend", SWIFT)


# --- what is kept -----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "calibration"
    made.mkdir()
    measuring.keep(made, ECHO, DEVICE, figures())
    return made


def test_figures_are_read_back(folder: Path) -> None:
    assert measuring.kept(folder, ECHO, DEVICE) == figures()
    (file,) = folder.iterdir()
    assert file.stat().st_mode & 0o077 == 0
    other_name = rival(name="twin", variant="int8")  # the same file under another name
    found = measuring.kept(folder, other_name, DEVICE)
    assert found is not None
    assert (found.name, found.variant, found.rounds) == ("twin", "int8", figures().rounds)


@pytest.mark.parametrize(
    "change", [{"digest": "e" * 64}, {"backend": "swift"}, {"library": "echo 2"}], ids=lambda change: next(iter(change))
)
def test_they_are_of_one_model_backend_and_library(folder: Path, change: dict[str, Any]) -> None:
    assert measuring.kept(folder, rival(**change), DEVICE) is None


@pytest.mark.parametrize(
    "change", [{"cpu_name": "another"}, {"usable_cores": 99}, {"instruction_sets": ()}, {"physical_cores": 1}]
)
def test_and_of_one_device(folder: Path, change: dict[str, Any]) -> None:
    assert measuring.kept(folder, ECHO, dataclasses.replace(DEVICE, **change)) is None


def test_a_new_library_takes_the_place_of_the_old_one(folder: Path) -> None:
    newer = rival(library="echo 2")
    measuring.keep(folder, newer, DEVICE, figures(newer))
    assert len(list(folder.iterdir())) == 1
    assert measuring.kept(folder, ECHO, DEVICE) is None
    assert measuring.kept(folder, newer, DEVICE) is not None


@pytest.mark.parametrize(
    "damage",
    [
        {"format": 0},
        {"rounds": []},
        {"rounds": [{"first_s": float("nan"), "token_s": 1.0}]},
        {"rounds": [{"first_s": 1.0, "token_s": -1.0}]},
        {"rounds": [{"first_s": 1.0, "token_s": 1.0}] * 1000},
        {"prompt_tokens": 0},
        {"position": 10**9},
        {"threads": 0},
        {"library": "a\nb"},
        {"colour": "red"},
        "",
        "[]",
        "{",
    ],
    ids=str,
)
def test_damaged_figures_are_none(folder: Path, damage: dict[str, Any] | str) -> None:
    (file,) = folder.iterdir()
    value = json.loads(file.read_text())
    if isinstance(damage, dict):
        (value if "format" in damage else value["speed"]).update(damage)
        file.write_text(json.dumps(value))
    else:
        file.write_text(damage)
    assert measuring.kept(folder, ECHO, DEVICE) is None


# --- who takes part ---------------------------------------------------------------------------------------------------


def test_models_are_measured_where_it_tells_something() -> None:
    known, other = rival(backend="llama_cpp", predicted=True), rival(backend="other")
    assert measuring.contests([known]) == []
    assert measuring.contests([known, dataclasses.replace(known, variant="int8")]) == []
    assert measuring.contests([other]) == [(other,)]
    assert measuring.contests([known, other]) == [(known, other)]
    compiled = rival(variant="int4-mlc", backend="mlc")
    elsewhere = rival(name="n", predicted=True)
    assert measuring.contests([known, elsewhere, compiled]) == [(known, compiled)]


def test_a_contest_is_settled_by_one_session(folder: Path) -> None:
    other = rival(backend="swift")
    assert measuring.is_settled(folder, [ECHO], DEVICE, room=10**12)
    assert not measuring.is_settled(folder, [ECHO, other], DEVICE, room=10**12)
    measuring.keep(folder, other, DEVICE, figures(other, "two"))
    assert not measuring.is_settled(folder, [ECHO, other], DEVICE, room=10**12)
    assert measuring.is_settled(folder, [ECHO, other], DEVICE, room=100 * MB)  # they do not fit beside each other
    measuring.keep(folder, other, DEVICE, figures(other))
    assert measuring.is_settled(folder, [ECHO, other], DEVICE, room=10**12)
    failed = dataclasses.replace(figures(other, "two"), rounds=(), failed="the worker crashed")
    measuring.keep(folder, other, DEVICE, failed)
    assert measuring.is_settled(folder, [ECHO, other], DEVICE, room=10**12)  # not tried again by itself


@pytest.mark.parametrize("fault", [errors.ConfigurationError, errors.LoadFailed, errors.WorkerCrashed])
def test_what_a_backend_refuses_harms_nobody(fault: type[errors.OnDeviceError]) -> None:
    with ExitStack() as stack:
        session = measuring._Session([ECHO], DEVICE, stack)
        with session._noting(ECHO):
            raise fault("not this one")
    assert session._failed == {ECHO: "not this one"}


def test_rivals_are_found(store: Store, echo_path: Path, swift: None) -> None:
    store.add(echo_path, name="parrot", variant="int4")
    found = Inventory(found_store=store, found_device=detect()).rivals(store.installed())
    assert [(each.name, each.variant, each.backend) for each in found] == [
        ("parrot", "int4", "echo"),
        ("parrot", "int4", "swift"),
    ]
    assert {each.digest for each in found} == {store.installed()[0].sha256}
    assert found[1].library == "swift 1"
    only = Inventory(("swift",), store, detect()).rivals(store.installed())
    assert [each.backend for each in only] == ["swift"]


def test_a_folder_is_all_its_files(store: Store, tmp_path: Path, swift: None) -> None:
    digests = set()
    for number, second in enumerate(("a", "b")):
        files = {"model.echo": tmp_path / f"m{number}", "other.json": tmp_path / f"o{number}"}
        files["model.echo"].write_text('{"ondevice-echo": 1}')
        files["other.json"].write_text(json.dumps(second))
        add_built(store, files, name=f"m{number}", variant="int4-echo", form="echo")
    for each in Inventory(found_store=store, found_device=detect()).rivals(store.installed()):
        digests.add((each.name, each.digest))
    assert len({digest for _, digest in digests}) == 2


# --- variants that the catalogue does not list ------------------------------------------------------------------------


@pytest.fixture
def with_made(store: Store, echo_path: Path) -> Store:
    store.add(echo_path, name="m", variant="int4-echo")
    store.add(echo_path, name="m", variant="something")
    return store


def chooser(store: Store, model: str | None = None, **settings: Any) -> Chooser:
    return Chooser(Settings(model, privacy="off", **settings), store, detect(), [spec("m", 100 * MB, 0.5)])


def test_they_are_candidates_with_their_real_size(with_made: Store) -> None:
    selection = chooser(with_made).explain()
    (found,) = (each for each in selection.candidates if each.variant == "int4-echo")
    assert (found.backend, found.installed, found.rejected) == ("echo", True, None)
    assert found.memory_bytes < 100 * MB  # not what 100 million parameters would take
    assert not any(each.variant == "something" for each in selection.candidates)


def test_they_can_be_named(with_made: Store) -> None:
    assert chooser(with_made, "m:int4-echo").resolve().model.variant == "int4-echo"
    assert chooser(with_made, backends=("echo",)).resolve().model.variant == "int4-echo"
    with pytest.raises(errors.ModelNotInstalled, match="m:int8-echo is not installed"):
        chooser(with_made, "m:int8-echo").resolve()
    with pytest.raises(errors.ModelNotInstalled):
        chooser(with_made, "m:int4").resolve()


def test_what_nobody_reads_is_left_out(store: Store, tmp_path: Path) -> None:
    weights = tmp_path / "w"
    weights.write_text("{}")
    add_built(store, {"w.json": weights}, name="m", variant="int4-raw", form="raw")
    assert not any(each.variant == "int4-raw" for each in chooser(store).explain().candidates)
    asked = chooser(store, "m:int4-raw").explain()
    assert all("format raw is not among those of" in (each.rejected or "") for each in asked.candidates)


# --- measuring for real -----------------------------------------------------------------------------------------------


@pytest.fixture
def slow_model(tmp_path: Path) -> Path:
    """A model that takes 5 ms for each pass, unless a plugin runs it."""
    path = tmp_path / "slow.echo"
    path.write_text(json.dumps({"ondevice-echo": 1, "context_tokens": 2048, "delay_s": 0.005}))
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """As few rounds as there may be."""
    monkeypatch.setattr(measuring, "MOST_ROUNDS", measuring.LEAST_ROUNDS)


@pytest.mark.slow
@pytest.mark.usefixtures("swift", "quick")
def test_a_client_takes_what_was_measured_to_be_faster(store: Store, slow_model: Path) -> None:
    store.add(slow_model, name="m", variant="int4-echo")
    told: list[Progress] = []
    with Client(store=store, specs=[spec("m", 100 * MB, 0.5)], privacy="off", backends=("echo", "swift")) as ai:
        before = ai.explain()
        assert before.chosen is not None
        assert (before.chosen.backend, before.chosen.calibrated) == ("echo", False)  # guesses: the longer record
        assert ai.calibrate(on_progress=told.append) == ()
        selection = ai.explain()
        assert ai.model.backend == "swift"
    assert {each.stage for each in told} == {"measuring m"}
    assert [each.done for each in told] == sorted(each.done for each in told)
    assert told[-1].done == 100
    found = {each.backend: each for each in selection.candidates if each.variant == "int4-echo"}
    assert selection.chosen == found["swift"]
    for each in found.values():
        assert each.calibrated
        assert each.measured is not None
        assert each.measured.rounds == measuring.LEAST_ROUNDS
    assert found["echo"].measured is not None
    assert 50 < found["echo"].measured.decode_tokens_per_s.high < 200  # 5 ms for a token, and what Python takes
    assert "Measured beside it" in selection.reason


@pytest.mark.slow
@pytest.mark.usefixtures("swift", "quick")
def test_what_is_known_is_not_measured_again(store: Store, slow_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add(slow_model, name="m", variant="int4-echo")
    mine = chooser(store, backends=("echo", "swift"))
    mine.calibrate(again=False, on_progress=None)
    first = mine.inventory.speeds(store.installed())
    assert {each.backend for each in first} == {"echo", "swift"}
    assert len({each.session for each in first}) == 1
    mine.calibrate(again=False, on_progress=None)
    assert mine.inventory.speeds(store.installed()) == first
    mine.calibrate(again=True, on_progress=None)
    assert mine.inventory.speeds(store.installed()) != first
    from ondevice_sdk.backends.echo import EchoBackend

    monkeypatch.setattr(EchoBackend, "library", lambda self: "a new version")
    assert mine.inventory.speeds(store.installed()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("swift", "quick")
def test_files_outside_the_catalogue_are_run_by_the_faster_backend(store: Store, slow_model: Path) -> None:
    both = ("echo", "swift")
    by_path = Chooser(Settings(str(slow_model), privacy="off", backends=both), store, detect())
    assert by_path.resolve().backend == "echo"
    by_path = Chooser(Settings(str(slow_model), privacy="off", backends=both), store, detect())
    by_path.calibrate(again=False, on_progress=None)
    assert by_path.resolve().backend == "swift"
    selection = by_path.explain()
    assert selection.chosen is not None
    assert selection.chosen.backend == "swift"
    store.add(slow_model, name="mine")  # the same file: nothing to measure
    added = Chooser(Settings("mine", privacy="off", backends=both), store, detect())
    assert added.resolve().backend == "swift"


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("fault", ["crash_at_token", "fail_at_token"])
def test_one_that_cannot_be_run_harms_nobody(store: Store, tmp_path: Path, echo_path: Path, fault: str) -> None:
    broken = tmp_path / "broken.echo"
    broken.write_text(json.dumps({"ondevice-echo": 1, fault: 30}))
    store.add(echo_path, name="m", variant="int8-echo")
    store.add(broken, name="m", variant="int4-echo")
    mine = chooser(store, backends=("echo",))
    mine.calibrate(again=False, on_progress=None)
    found = {each.variant: each for each in mine.explain().candidates if each.installed}
    assert found["int8-echo"].measured is not None
    assert found["int4-echo"].measured is None
    (note,) = found["int4-echo"].notes
    assert note.startswith("it did not run when it was to be measured: ")


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_short_context_gets_a_shorter_prompt(tmp_path: Path) -> None:
    path = tmp_path / "short.echo"
    path.write_text(json.dumps({"ondevice-echo": 1, "context_tokens": 160}))
    model = LocalModel("m", "int4", "echo", str(path), "")
    (made,) = measuring.measure(tmp_path / "kept", {ECHO: model}, detect(), room=10**12)
    assert made.failed == ""
    assert 60 <= made.prompt_tokens <= 120


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_damaged_model_is_left_out(store: Store, echo_path: Path, slow_model: Path) -> None:
    store.add(echo_path, name="m", variant="int4-echo")
    damaged = Path(store.add(slow_model, name="m", variant="int8-echo").path)
    damaged.chmod(0o600)
    damaged.write_bytes(damaged.read_bytes() + b" ")
    mine = chooser(store, backends=("echo",))
    for _ in range(2):
        mine.calibrate(again=False, on_progress=None)
        (found,) = mine.inventory.speeds(store.installed())
        assert found.variant == "int4-echo"
    assert mine.resolve().model.variant == "int4-echo"


@pytest.mark.slow
@pytest.mark.usefixtures("swift", "quick")
def test_without_room_for_all_they_run_one_after_the_other(tmp_path: Path, slow_model: Path) -> None:
    model = LocalModel("m", "int4", "echo", str(slow_model), "0" * 64, (str(slow_model),))
    contest = (ECHO, rival(backend="swift", entry="ondevice_swift:SwiftBackend", library="swift 1"))
    made = measuring.measure(tmp_path / "kept", dict.fromkeys(contest, model), detect(), room=100 * MB)
    assert len({each.session for each in made}) == 2
    assert [each.backend for each in made] == ["echo", "swift"]
    assert all(each.rounds for each in made)


@pytest.mark.slow
@pytest.mark.model
def test_real_backends_beside_each_other(installed_store: Store, store: Store, model_path: Path) -> None:
    """Whichever is faster here is chosen, or the built-in one where that cannot be told."""
    pytest.importorskip("openvino_genai")
    store.add(model_path, name="smollm2-135m-instruct", variant="int4")
    with Client("smollm2-135m-instruct:int4", store=store, privacy="off", prefer="speed") as ai:
        ai.calibrate()
        selection = ai.explain()
    found = {each.backend: each for each in selection.candidates if each.installed}
    assert {"llama_cpp", "openvino"} <= set(found)
    rows = [each.measured for each in found.values()]
    assert all(each is not None and each.decode_tokens_per_s.low > 1 for each in rows)
    assert selection.chosen is not None
    tied = any("not clearly faster" in note for each in found.values() for note in each.notes)
    seconds = {name: each.ttft_s + 200 / each.decode_tokens_per_s for name, each in found.items()}
    assert selection.chosen.backend == ("llama_cpp" if tied else min(seconds, key=lambda name: seconds[name]))
