from __future__ import annotations

from pathlib import Path

import pytest

from ondevice_sdk import models
from ondevice_sdk.errors import ConfigurationError, ModelCorrupt, ModelNotInstalled, ModelUnsupported, StoreError
from ondevice_sdk.store import Store, adapters

from ..backends.lora_files import adapter, random_changes, tiny_base, write
from .helpers import gguf, sha


@pytest.fixture
def file(tmp_path: Path) -> Path:
    base = write(tmp_path / "base.gguf", tiny_base())
    return write(tmp_path / "Medical v2.gguf", adapter(random_changes(base, "attn_v", "ffn_down"), alpha=8.0))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf())
    return path


def test_added_listed_and_removed(store: Store, file: Path, model: Path) -> None:
    made = models.add(file, licence="MIT", store=store)
    assert (made.name, made.variant, made.format, made.sha256) == (
        "medical-v2",
        "lora",
        "gguf-lora",
        sha(file.read_bytes()),
    )
    models.add(model, name="a-model", store=store)
    assert [each.name for each in models.list(store=store)] == ["a-model"], "an adapter is no model"
    (found,) = models.adapters(store=store)
    assert (found.name, found.architecture, found.rank, found.matrices) == ("medical-v2", "llama", 4, 4)
    assert (found.licence, found.size, found.sha256) == ("MIT", file.stat().st_size, made.sha256)
    assert {result.name: result.ok for result in models.verify(store=store)} == {"a-model": True, "medical-v2": True}
    local = adapters.resolve(store, "medical-v2")
    assert Path(local.path).read_bytes() == file.read_bytes()
    assert (local.sha256, local.size) == (made.sha256, file.stat().st_size)
    assert [each.name for each in models.remove("medical-v2", store=store)] == ["medical-v2"]
    assert models.adapters(store=store) == ()
    assert not Path(local.path).exists()


@pytest.mark.parametrize("name", ["medical", "a-model", "a-model:int4", "medical:lora", "Not a name!", "", "x" * 500])
def test_one_that_is_not_there(store: Store, model: Path, name: str) -> None:
    models.add(model, name="a-model", store=store)
    with pytest.raises(ModelNotInstalled) as caught:
        adapters.resolve(store, name)
    assert "models add" in str(caught.value.hint)
    assert not name or name not in str(caught.value).replace("`ondevice models", "")


def test_a_damaged_one_is_found(store: Store, file: Path) -> None:
    made = models.add(file, name="medical", store=store)
    blob = Path(made.path)
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes()[:-5] + b"other")
    (result,) = models.verify("medical", store=store)
    assert not result.ok
    with pytest.raises(ModelCorrupt) as caught:
        adapters.resolve(store, "medical")
    assert "models remove medical" in str(caught.value.hint)


def test_a_name_is_of_a_model_or_of_an_adapter(store: Store, file: Path, model: Path) -> None:
    models.add(file, name="medical", store=store)
    models.add(model, name="base", store=store)
    for path, name in ((model, "medical"), (file, "base")):
        with pytest.raises(StoreError, match="both a model and an adapter"):
            models.add(path, name=name, store=store)
    with pytest.raises(ConfigurationError, match="no variant"):
        models.add(file, name="other:int4", store=store)
    models.add(file, name="medical", store=store)  # again: the same


def test_another_file_under_a_name_that_is_taken(store: Store, file: Path, tmp_path: Path) -> None:
    models.add(file, name="medical", store=store)
    other = write(tmp_path / "other.gguf", adapter(random_changes(tmp_path / "base.gguf", seed=5)))
    with pytest.raises(StoreError, match="another model"):
        models.add(other, name="medical", store=store)


def test_a_bundle_carries_it(store: Store, file: Path, model: Path, tmp_path: Path) -> None:
    full = Store.open(tmp_path / "full")
    models.add(file, name="medical", store=full)
    models.add(model, name="base", variant="int4", store=full)
    path = models.export_bundle(["medical", "base"], tmp_path / "b.tar", store=full)
    made = models.import_bundle(path, store=store)
    assert {(each.name, each.variant) for each in made} == {("medical", "lora"), ("base", "int4")}
    assert [each.sha256 for each in models.adapters(store=store)] == [sha(file.read_bytes())]


def test_a_file_is_not_used_as_a_model(store: Store, file: Path) -> None:
    with pytest.raises(ModelUnsupported, match="adapter") as caught:
        store.from_path(file)
    assert "models add" in str(caught.value.hint)


def test_other_kinds_of_adapters_are_not_installed(store: Store, tmp_path: Path, file: Path) -> None:
    content = adapter(random_changes(tmp_path / "base.gguf", "attn_q"))
    content.tensors[0].name = "blk.0.ffn_norm.weight"
    with pytest.raises(ModelUnsupported):
        models.add(write(tmp_path / "norms.gguf", content), store=store)
    assert models.adapters(store=store) == ()
