"""`models.add` of a folder in Hugging Face's form: converted by a sealed process, installed whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ondevice_sdk import Client, models
from ondevice_sdk.catalogue.gguf import read_header
from ondevice_sdk.errors import (
    BackendUnavailable,
    ConfigurationError,
    ModelCorrupt,
    ModelNotInstalled,
    ModelUnsupported,
    StoreError,
)
from ondevice_sdk.quantise.hugging_face import adding
from ondevice_sdk.store import Store
from ondevice_sdk.types import Progress

from ...store.helpers import leftovers
from . import toys


@pytest.mark.slow
def test_installed_under_its_precision_and_once(store: Store, tmp_path: Path) -> None:
    folder = toys.folder(tmp_path / "My Model", "qwen3", form="BF16", pre="qwen2")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Model\n")
    (folder / "pytorch_model.bin").write_bytes(
        b"\x80\x02cos\nsystem\n(S'x'\ntR."
    )  # beside the weights: never looked at
    made = models.add(folder, store=store)
    assert (made.name, made.variant, made.format) == ("my-model", "bf16", "gguf")
    assert (made.licence, made.source) == ("apache-2.0", f"file:{folder}")
    header = read_header(store.resolve("my-model:bf16").path)
    assert (header.architecture, header.name) == ("qwen3", "my-model")
    assert all(each.ok for each in models.verify("my-model", store=store))
    assert models.add(folder, store=store).sha256 == made.sha256  # the same bytes
    toys.write_safetensors(folder / "model.safetensors", toys.weights(toys.config("qwen3"), seed=1), "BF16")
    with pytest.raises(StoreError, match="another model"):
        models.add(folder, store=store)
    other = models.add(folder, name="other:full", licence="Own Terms", store=store)
    assert (other.name, other.variant, other.licence) == ("other", "full", "Own Terms")


@pytest.mark.slow
def test_links_into_a_cache_are_followed(store: Store, tmp_path: Path) -> None:
    """As hub clients keep a model: a folder of links to files that are named by their content."""
    blobs = toys.folder(tmp_path / "blobs", form="F16")
    folder = tmp_path / "snapshot"
    folder.mkdir()
    for number, path in enumerate(sorted(blobs.iterdir())):
        path.rename(blobs / str(number))
        (folder / path.name).symlink_to(f"../blobs/{number}")
    assert models.add(folder, name="linked", store=store).variant == "f16"


@pytest.mark.slow
def test_errors_of_the_process_arrive_as_they_are(store: Store, tmp_path: Path) -> None:
    folder = toys.folder(tmp_path / "model")
    toys.edit(folder / "config.json", hidden_act="gelu")
    with pytest.raises(ModelUnsupported, match="activation") as unsupported:
        models.add(folder, store=store)
    assert unsupported.value.architecture == "LlamaForCausalLM"
    toys.edit(folder / "config.json", hidden_act="silu", vocab_size=270)
    with pytest.raises(ModelCorrupt, match="embed_tokens"):
        models.add(folder, store=store)
    assert models.list(store=store) == ()
    assert leftovers(store.root) == []


@pytest.mark.slow
def test_whoever_stops_it_finds_nothing_left(store: Store, tmp_path: Path) -> None:
    def stop(event: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        models.add(toys.folder(tmp_path / "model"), on_progress=stop, store=store)
    assert leftovers(store.root) == []


def test_what_is_kept_as_it_is(store: Store, tmp_path: Path) -> None:
    folder = toys.folder(tmp_path / "model")
    kept = models.add(folder, variant="other-safetensors", store=store)
    assert (kept.variant, kept.format) == ("other-safetensors", "safetensors")
    assert models.add(folder, name="again:f32-safetensors", store=store).format == "safetensors"
    toys.edit(folder / "config.json", architectures=["PhiForCausalLM"], model_type="phi")
    assert models.add(folder, name="phi", store=store).format == "safetensors"


def test_what_is_no_such_folder(store: Store, tmp_path: Path) -> None:
    folder = toys.folder(tmp_path / "model")
    assert adding.files_of(folder) is not None
    with pytest.raises(ConfigurationError):
        models.add(folder, name="Not A Name", store=store)
    shutil.copy(folder / "config.json", tmp_path / "config.json")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelCorrupt, match="pickle"):
        models.add(folder, store=store)
    with pytest.raises(ModelNotInstalled):
        adding.files_of(tmp_path / "nowhere")


def test_a_client_says_what_to_do_with_a_folder(tmp_path: Path) -> None:
    folder = toys.folder(tmp_path / "model")
    with Client(str(folder), privacy="off") as ai, pytest.raises(BackendUnavailable) as unavailable:
        ai.generate("Hello")
    assert "models add" in str(unavailable.value.hint)


def test_names_in_an_index_cannot_lead_out(store: Store, tmp_path: Path) -> None:
    folder = toys.folder(tmp_path / "model")
    (folder / "model.safetensors").rename(tmp_path / "outside.safetensors")
    toys.write_safetensors(folder / "inside.safetensors", {})
    toys.dump(folder / "model.safetensors.index.json", {"weight_map": {"a": "../outside.safetensors"}})
    with pytest.raises(ModelCorrupt, match="outside"):
        models.add(folder, store=store)
