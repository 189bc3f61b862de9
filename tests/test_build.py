"""Models that a plugin makes for itself: real child processes, every fault a maker can have, nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from ondevice_sdk import Client, building, errors, models
from ondevice_sdk.store import InstalledModel, Store
from ondevice_sdk.store.files import check_name
from ondevice_sdk.types import Progress

from . import toys
from .store.helpers import gguf, leftovers, sha
from .store.test_folders import safetensors

BACKEND = "[ondevice_sdk.backends]\ntoy = toy_backend:ToyBackend\n"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the plugin is installed."""
    toys.install(tmp_path / "site", monkeypatch, BACKEND)
    return tmp_path / "site"


@pytest.fixture
def full(store: Store, site: Path, tmp_path: Path) -> Store:
    """A store with the model that is built from."""
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf())
    models.add(path, name="m", variant="int4", licence="Toy Terms", store=store)
    return store


def build(store: Store, target: str | None = None, *, to: str = "int4", name: str = "m") -> InstalledModel:
    return models.build(name, backend="toy", to=to, target=target, store=store)


def notes(store: Store, variant: str = "int4-echo") -> dict[str, object]:
    found: dict[str, object] = json.loads(Path(store.resolve("m", variant).files[1]).read_bytes())
    return found


def test_a_model_is_made_and_runs(full: Store) -> None:
    heard: list[Progress] = []
    made = models.build("m", backend="toy", on_progress=heard.append, store=full)
    assert (made.name, made.variant, made.format, made.licence) == ("m", "int4-echo", "echo", "Toy Terms")
    assert made.source == "built by ondevice-toy 1.0 (toys 1) from m:int4"
    assert heard == [
        Progress(stage, done, 100, "percent") for stage, done in (("read", 0), ("write", 50), ("write", 100))
    ]
    assert [Path(file).name for file in full.resolve("m", "int4-echo").files] == ["model.echo", "notes.json"]
    assert notes(full)["size"] == len(gguf())
    assert full.resolve("m").variant == "int4"  # what was made for one backend is not what a bare name means
    assert full.verify("m", "int4-echo")[0].ok

    blobs = set(leftovers(full.root))
    heard.clear()
    assert models.build("m", backend="toy", on_progress=heard.append, store=full) == made
    assert heard == []  # made before
    assert set(leftovers(full.root)) == blobs


@pytest.mark.slow
def test_it_answers_through_a_client(full: Store) -> None:
    made = build(full)
    with Client(made.path, store=full, backends=["echo"]) as ai:
        assert ai.generate("Say it again.", max_tokens=40).text == "Say it again."


@pytest.mark.slow
def test_what_makes_another_model(full: Store, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def recipe(variant: str = "int4-echo") -> str | None:
        return full.manifest("m", variant).recipe

    build(full)
    seen = [recipe()]
    assert build(full, to="int8").variant == "int8-echo"
    assert {model.variant for model in models.list(store=full)} == {"int4", "int4-echo", "int8-echo"}
    seen.append(recipe("int8-echo"))
    elsewhere = build(full, "armv8").variant
    assert notes(full, elsewhere)["target"] == "armv8"
    assert notes(full)["target"] is None  # what was made for this processor is still there
    seen.append(recipe(elsewhere))
    toys.install(site, monkeypatch, BACKEND, version="2.0")
    assert "ondevice-toy 2.0" in build(full, "armv8").source  # it took the place of the one before
    seen.append(recipe(elsewhere))
    models.remove("m:int4", store=full)
    (tmp_path / "m.gguf").write_bytes(gguf(8192))
    models.add(tmp_path / "m.gguf", name="m", variant="int4", store=full)
    build(full, "armv8")
    assert notes(full, elsewhere)["size"] == len(gguf(8192))
    seen.append(recipe(elsewhere))
    assert len(set(seen)) == len(seen)


def test_what_is_made_for_elsewhere_has_a_name_of_its_own() -> None:
    names = [building._variant("int4", "mlc", target) for target in (None, "", "armv8", "armv9")]
    assert names[0] == "int4-mlc"
    assert len(set(names)) == 4
    assert [check_name(each, "variant") for each in names] == names


@pytest.mark.slow
def test_again_makes_it_anew(full: Store) -> None:
    first = build(full)
    stamp = Path(first.path).stat().st_ino
    heard: list[Progress] = []
    again = models.build("m", backend="toy", again=True, on_progress=heard.append, store=full)
    assert heard
    assert again.sha256 == first.sha256
    assert Path(again.path).stat().st_ino != stamp


@pytest.mark.slow
def test_a_damaged_one_is_made_again(full: Store) -> None:
    path = Path(build(full).path)
    path.chmod(0o600)
    path.write_text("{}")
    with pytest.raises(errors.ModelCorrupt):
        full.resolve("m", "int4-echo")
    build(full)
    full.resolve("m", "int4-echo")


@pytest.mark.slow
def test_from_a_path_and_from_the_largest(full: Store, tmp_path: Path) -> None:
    path = tmp_path / "Own Model.gguf"
    path.write_bytes(gguf(8192))
    assert (build(full, name=str(path)).name, build(full, name=str(path)).variant) == ("own-model", "int4-echo")
    assert str(tmp_path) not in full.manifest("own-model", "int4-echo").source
    models.add(path, name="m", variant="other", store=full)
    assert "m:other" in build(full).source
    assert "m:int4" in build(full, name="m:int4").source


@pytest.mark.slow
def test_from_a_folder_of_safetensors(full: Store, tmp_path: Path) -> None:
    folder = safetensors(tmp_path / "weights")
    made = build(full, name=str(folder))
    assert (made.name, made.variant) == ("weights", "int4-echo")
    recipe = full.manifest("weights", "int4-echo").recipe
    (folder / "tokenizer.json").write_text('{"other": 1}')
    build(full, name=str(folder))
    assert full.manifest("weights", "int4-echo").recipe != recipe  # every file counts, not only the first
    models.add(folder, name="kept", store=full)
    assert "kept:other-safetensors" in build(full, name="kept").source


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_what_cannot_be_asked_for(full: Store, tmp_path: Path, echo_path: Path) -> None:
    models.add(echo_path, name="parrot", store=full)
    before = leftovers(full.root)
    with pytest.raises(errors.ConfigurationError, match="nobody"):
        models.build("m", backend="nobody", store=full)
    with pytest.raises(errors.Unsupported, match="echo makes no models"):
        models.build("m", backend="echo", store=full)
    with pytest.raises(errors.ConfigurationError, match="int3"):
        build(full, to="int3")
    with pytest.raises(errors.ModelNotInstalled):
        build(full, name="none")
    with pytest.raises(errors.ModelNotInstalled):
        build(full, name="m:int8")
    with pytest.raises(errors.ModelNotInstalled):
        build(full, name=str(tmp_path / "none.gguf"))
    with pytest.raises(errors.Unsupported, match="format echo"):
        build(full, name="parrot")
    assert leftovers(full.root) == before


def test_a_broken_plugin(full: Store, site: Path) -> None:
    (site / "toy_backend.py").write_text("import no_such_library\n")
    sys.modules.pop("toy_backend", None)
    with pytest.raises(errors.BackendUnavailable, match="ondevice-toy"):
        build(full)


FAULTS: dict[str, tuple[type[errors.OnDeviceError], str]] = {
    "typed architecture": (errors.ModelUnsupported, "not made"),
    "typed linker": (errors.BackendUnavailable, "no linker"),
    "raise something": (errors.LoadFailed, "ValueError"),
    "raise full": (errors.StoreError, "no room"),
    "raise memory": (errors.LoadFailed, "memory"),
    "raise exit": (errors.WorkerCrashed, "code 3"),
    "abort": (errors.WorkerCrashed, "SIGABRT"),
    "names": (errors.LoadFailed, "names"),
    "none": (errors.LoadFailed, "names"),
    "numbers": (errors.LoadFailed, "names"),
    "link": (errors.LoadFailed, "no plain file"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_a_maker_are_typed_and_leave_nothing(full: Store, fault: str) -> None:
    before = leftovers(full.root)
    kind, words = FAULTS[fault]
    with pytest.raises(kind, match=words) as caught:
        build(full, fault)
    if isinstance(caught.value, errors.ModelUnsupported):
        assert (caught.value.architecture, caught.value.hint) == ("bert", "take another")
    if isinstance(caught.value, errors.BackendUnavailable):
        assert caught.value.reason == "cc was not found"
    if fault == "raise something":
        hint = caught.value.hint or ""
        assert hint.startswith("toy_backend.py, line ")
        assert hint.endswith(": a toy broke: something")
    assert leftovers(full.root) == before
    assert build(full).variant == "int4-echo"  # and the next one works


@pytest.mark.slow
def test_a_maker_that_prints(full: Store) -> None:
    assert build(full, "chatty").variant.startswith("int4-echo-")


def test_another_model_of_that_name_is_left_alone(full: Store, echo_path: Path) -> None:
    """It is refused before the work of minutes."""
    mine = models.add(echo_path, name="m", variant="int4-echo", store=full)
    heard: list[Progress] = []
    with pytest.raises(errors.StoreError, match="another model"):
        models.build("m", backend="toy", again=True, on_progress=heard.append, store=full)
    assert heard == []
    assert full.resolve("m", "int4-echo").sha256 == mine.sha256 == sha(echo_path.read_bytes())


# --- what a maker may do ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_maker_has_no_network_and_writes_nowhere_else(full: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        made = build(full, f"network {server.getsockname()[1]}")
        with pytest.raises(BlockingIOError):
            server.accept()
        found = json.loads(Path(full.resolve("m", made.variant).files[2]).read_bytes())
        socket.create_connection(server.getsockname()).close()  # the control
        server.accept()[0].close()
    refused = {"tcp": "EPERM", "udp": "EPERM", "unix": "EPERM", "child": "1"}
    assert {name: found[name] for name in refused} == refused
    assert (found["read"], found["temporary"]) == ("done", "done")
    assert found["elsewhere"] == ("EACCES" if _has_landlock() else "done")


def _has_landlock() -> bool:
    from ondevice_sdk.privacy.sandbox import landlock

    return landlock.version() > 0


@pytest.mark.slow
def test_a_real_library_is_compiled_and_vouched_for(full: Store) -> None:
    made = build(full, "compile")
    found = full.manifest("m", made.variant)
    assert {file.name: file.code for file in found.files}["libtoy.so"] == "built"
    assert Path(full.resolve("m", made.variant).files[2]).read_bytes().startswith(b"\x7fELF")
    models.remove("m", store=full)
    assert leftovers(full.root) == ["installation.key"]


# --- its end ----------------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from ondevice_sdk import models
models.build("m", backend="toy", target="hang")
"""


def _hanging(store: Store) -> tuple[int, int]:
    """The process of a maker that hangs, and the one that it has started; waits for them."""
    for _ in range(1200):
        for path in store.root.glob("tmp/*/temporary/pids"):
            try:
                maker, child, _ = json.loads(path.read_bytes())
            except ValueError:  # being written
                continue
            return maker, child
        time.sleep(0.05)
    raise AssertionError("no maker has started")


def _gone(*pids: int) -> None:
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).wait(20)


@pytest.mark.slow
@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_the_app_is_the_end_of_all(full: Store, site: Path, way: signal.Signals) -> None:
    before = leftovers(full.root)
    app = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(site)],
        env={**os.environ, "ONDEVICE_HOME": str(full.root)},
        stderr=subprocess.PIPE,
    )
    pids = _hanging(full)
    app.send_signal(way)
    _, said = app.communicate(timeout=20)
    assert (b"KeyboardInterrupt" in said) == (way == signal.SIGINT)
    _gone(*pids)
    if way != signal.SIGINT:  # the app could not clear up: the next one does
        with full.space.session():
            pass
    assert leftovers(full.root) == before


@pytest.mark.slow
def test_a_callback_that_raises_ends_it(full: Store) -> None:
    before, running = leftovers(full.root), set(psutil.Process().children(recursive=True))

    def stop(_: Progress) -> None:
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        models.build("m", backend="toy", target="hang", on_progress=stop, store=full)
    assert leftovers(full.root) == before
    assert set(psutil.Process().children(recursive=True)) <= running


@pytest.mark.slow
def test_what_was_built_travels_by_its_digest(full: Store, tmp_path: Path) -> None:
    made = models.build("m", backend="toy", target="compile", store=full)
    path = models.export_bundle([f"m:{made.variant}"], tmp_path / "b", store=full)
    assert full.manifest("m", made.variant).recipe is not None
    assert b'recipe": "' not in path.read_bytes()
    assert [code.origin for code in made.code] == ["built"]
    with pytest.raises(errors.ModelCorrupt, match="libtoy"):
        models.import_bundle(path, store=Store.open(tmp_path / "other"))


@pytest.mark.slow
def test_two_at_once_build_once(full: Store) -> None:
    heard: list[list[Progress]] = [[], []]
    made: list[InstalledModel] = []

    def run(place: list[Progress]) -> None:
        made.append(models.build("m", backend="toy", on_progress=place.append, store=full))

    threads = [threading.Thread(target=run, args=(place,)) for place in heard]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert made[0] == made[1]
    assert sorted(map(bool, heard)) == [False, True]
