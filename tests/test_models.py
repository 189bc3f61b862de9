from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ondevice_sdk import models
from ondevice_sdk.catalogue.spec import Artifact, ModelSpec, Variant
from ondevice_sdk.errors import ConfigurationError, DownloadFailed, LicenceNotAccepted, ModelCorrupt, ModelNotInstalled
from ondevice_sdk.store import Store
from ondevice_sdk.types import ModelShape


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    """A model in two variants that lie in files."""

    def variant(name: str) -> Variant:
        path = tmp_path / f"{name}.echo"
        path.write_text(json.dumps({"ondevice-echo": 1, "variant": name}))
        return Variant("int4" if name == "int4" else "int8", "echo", "Q", 4.0, (Artifact(f"file:{path}"),))

    return ModelSpec(
        name="parrot",
        title="Parrot",
        shape=ModelShape(1000, 1, 32, 1, 1, 32, 64, 100, 128),
        variants=(variant("int4"), variant("int8")),
        licence="Parrot Terms",
        licence_url="https://parrot.invalid",
        must_accept=True,
        languages=("en",),
    )


def test_the_import_is_light() -> None:
    heavy = "pydantic huggingface_hub psutil numpy urllib.request http.client subprocess filelock tarfile ssl asyncio"
    code = f"import sys, ondevice_sdk.models; print([m for m in {heavy.split()!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_what_has_to_be_accepted_has_to_be_accepted(spec: ModelSpec, store: Store) -> None:
    with pytest.raises(LicenceNotAccepted) as caught:
        models.pull("parrot", spec=spec, store=store)
    assert caught.value.licence == "Parrot Terms"
    assert "https://parrot.invalid" in (caught.value.hint or "")
    assert models.list(store=store) == ()
    made = models.pull("parrot", spec=spec, store=store, accept_licence=True)
    assert store.manifest("parrot").accepted_at
    assert models.pull("parrot", spec=spec, store=store) == made  # it is here: nothing is asked again


def test_variants(spec: ModelSpec, store: Store) -> None:
    made = models.pull("parrot", spec=spec, store=store, accept_licence=True)
    assert made.variant == "int4"
    other = models.pull("parrot:int8", spec=spec, store=store, accept_licence=True)
    assert other.variant == "int8"
    assert models.list(store=store) == (made, other)
    assert models.remove("parrot", store=store) == (made, other)
    chosen = models.pull("parrot", spec=spec, store=store, accept_licence=True, choose=lambda s: s.variants[1].name)
    assert chosen.variant == "int8"
    with pytest.raises(ConfigurationError, match="no variant"):
        models.pull("parrot", variant="int2", spec=spec, store=store)


def test_unknown_names(store: Store) -> None:
    with pytest.raises(ConfigurationError):
        models.pull("no-such-model-at-all", store=store)
    with pytest.raises(ModelNotInstalled):
        models.remove("no-such-model-at-all", store=store)


def test_a_model_that_was_added_is_already_here(echo_path: Path, store: Store) -> None:
    made = models.add(echo_path, name="mine", licence="MIT", store=store)
    assert (made.format, made.variant, made.licence) == ("echo", "other", "MIT")
    assert models.pull("mine", store=store) == made
    assert models.pull("mine:other", store=store) == made


def test_a_damaged_model_is_fetched_again(spec: ModelSpec, store: Store) -> None:
    made = models.pull("parrot", spec=spec, store=store, accept_licence=True)
    Path(made.path).write_text("damaged")
    assert [result.ok for result in models.verify(store=store)] == [False]
    again = models.pull("parrot", spec=spec, store=store, accept_licence=True)
    assert again.sha256 == made.sha256
    assert [result.ok for result in models.verify("parrot", store=store)] == [True]


def test_another_format_than_the_catalogue_says(spec: ModelSpec, store: Store, tmp_path: Path) -> None:
    gguf = Variant("int4", "gguf", "Q", 4.0, spec.variants[0].artifacts)
    wrong = ModelSpec("x", "X", spec.shape, (gguf,), "MIT", "", False, ("en",))
    with pytest.raises(ModelCorrupt, match="format"):
        models.pull("x", spec=wrong, store=store)
    assert models.list(store=store) == ()


@pytest.mark.parametrize("source", ["", "x", "ftp://host/x", "magic:x", "file:"])
def test_sources_that_are_none(store: Store, source: str) -> None:
    with pytest.raises(ConfigurationError):
        models.pull("x", source=source, store=store)


def test_a_source_that_is_not_there(store: Store, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed):
        models.pull("x", source=f"file:{tmp_path / 'missing'}", store=store)
    with pytest.raises(DownloadFailed):
        models.pull("x", source=f"file:{tmp_path}", store=store)


def test_the_store_of_the_environment(echo_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "home"))
    made = models.add(echo_path)
    assert Path(made.path).is_relative_to(tmp_path / "home")
    bundle = models.export_bundle([made.name], tmp_path / "bundle")
    models.remove(made.name)
    assert models.list() == ()
    assert [each.name for each in models.import_bundle(bundle)] == [made.name]
    assert [result.ok for result in models.verify()] == [True]
