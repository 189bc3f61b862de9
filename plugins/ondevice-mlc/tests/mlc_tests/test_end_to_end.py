"""From a model of the store to answers of a sealed worker, as users do it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ondevice_sdk import Client, models
from ondevice_sdk.errors import (
    BackendUnavailable,
    ConfigurationError,
    ModelCorrupt,
    ModelUnsupported,
    PrivacyUnavailable,
)
from ondevice_sdk.store import Store
from ondevice_sdk.types import Message

from . import tiny
from .conftest import MODEL

pytestmark = pytest.mark.slow


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with a tiny model."""
    made = Store.open(tmp_path / "store")
    tiny.write_gguf(tmp_path / "tiny.gguf", "qwen3")
    models.add(tmp_path / "tiny.gguf", name="tiny", variant="f32", store=made)
    return made


def ondevice(store: Store, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ondevice_sdk", *words]
    env = {**os.environ, "ONDEVICE_HOME": str(store.root)}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=200)


@pytest.mark.model
def test_the_real_model(model_path: Path, tmp_path: Path) -> None:
    """Compiled by the seam, then used by strict clients: chat, schema, stream, score, deterministic."""
    store = Store.open(tmp_path / "store")
    models.add(model_path, name=MODEL, variant="int4", store=store)
    stages: list[str] = []
    made = models.build(MODEL, backend="mlc", store=store, on_progress=lambda event: stages.append(event.stage))
    assert (made.name, made.variant, made.format) == (MODEL, "int4-mlc", "mlc")
    assert [code.origin for code in made.code] == ["built"]
    assert "quantise" in stages
    again = models.build(MODEL, backend="mlc", store=store)
    assert again == made
    try:
        client = Client(f"{MODEL}:int4-mlc", store=store, context=1024, privacy="strict")
    except PrivacyUnavailable as error:
        pytest.skip(f"no strict privacy on this system: {error.reasons}")
    with client:
        assert client.model.backend == "mlc"
        said = client.generate("What is the capital of France?", max_tokens=30, temperature=0)
        assert "Paris" in said.text
        typed = client.generate("Is Paris a city?", output_type=bool, max_tokens=8, temperature=0)
        assert typed.output in (True, False)
        with client.stream([Message("user", "Count to five.")], max_tokens=20, temperature=0) as stream:
            assert "".join(stream) == stream.result().text
        exact = [client.generate("Tell me a story", max_tokens=24, deterministic=True, seed=3).text for _ in range(2)]
        assert exact[0] == exact[1]
        report = client.privacy_report()
        assert report.enforced


def test_the_command(store: Store) -> None:
    done = ondevice(store, "mlc", "compile", "tiny", "--to", "int8", "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["name"], made["variant"], made["format"]) == ("tiny", "int8-mlc", "mlc")
    listed = ondevice(store, "models", "list", "--json")
    assert {each["variant"] for each in json.loads(listed.stdout)} == {"f32", "int8-mlc"}


def test_no_linker(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendUnavailable):
        models.build("tiny", backend="mlc", store=store)
    assert [model.variant for model in models.list(store=store)] == ["f32"]


@pytest.mark.parametrize(("target", "precision"), [("cuda", "int4"), ("no such thing", "int4"), (None, "int2")])
def test_what_cannot_be_asked_for(store: Store, target: str | None, precision: str) -> None:
    with pytest.raises(ConfigurationError):
        models.build("tiny", backend="mlc", to=precision, target=target, store=store)


def test_another_architecture(store: Store, tmp_path: Path) -> None:
    tiny.write_gguf(tmp_path / "other.gguf", "gemma3")
    models.add(tmp_path / "other.gguf", name="other", variant="f32", store=store)
    with pytest.raises(ModelUnsupported):
        models.build("other", backend="mlc", store=store)


def test_another_target(store: Store) -> None:
    """An older processor of the same kind runs here, too."""
    if shutil.which("gcc") is None or os.uname().machine != "x86_64":
        pytest.skip("names a target of x86-64")
    made = models.build("tiny", backend="mlc", target='{"kind": "llvm", "mcpu": "x86-64-v3"}', store=store)
    assert made.variant.startswith("int4-mlc-")
    with Client(f"tiny:{made.variant}", store=store, context=512) as client:
        assert client.generate("Hello", max_tokens=4, ignore_eos=True).usage.completion_tokens == 4
        assert client.model.path == made.path


def test_a_folder_of_upstreams_needs_its_digest(of_upstream: object, tmp_path: Path) -> None:
    import hashlib

    folder = Path(of_upstream.path).parent  # type: ignore[attr-defined]
    store = Store.open(tmp_path / "store")
    with pytest.raises(ConfigurationError):
        models.add(folder, name="theirs", store=store)
    with pytest.raises(ModelCorrupt):
        models.add(folder, name="theirs", pin={"model.so": "0" * 64}, store=store)
    digest = hashlib.sha256((folder / "model.so").read_bytes()).hexdigest()
    models.add(folder, name="theirs", pin={"model.so": digest}, store=store)
    with Client("theirs", store=store, context=512) as client:
        assert client.generate("Hello", max_tokens=5, ignore_eos=True).usage.completion_tokens == 5
