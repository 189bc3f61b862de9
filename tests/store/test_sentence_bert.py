"""A sentence embedder's folder becomes one GGUF file: always the same bytes, and nothing but what can be checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ondevice_sdk import models
from ondevice_sdk.catalogue.gguf import read_header, read_tensors
from ondevice_sdk.catalogue.spec import Artifact
from ondevice_sdk.errors import DownloadFailed, ModelCorrupt, ModelUnsupported
from ondevice_sdk.store import Store
from ondevice_sdk.store.files import hash_file
from ondevice_sdk.store.from_sentence_bert import convert
from ondevice_sdk.types import Progress
from tests import bert

from .helpers import leftovers, spec, wheel
from .test_pypi import index

__all__ = ["index"]  # a fixture


def converted(folder: Path, target: Path) -> Path:
    convert(folder, target, "tiny", lambda done, total: None)
    return target


def test_what_the_file_says(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    folder, target = bert.write_folder(tmp_path / "model"), tmp_path / "tiny.gguf"
    convert(folder, target, "tiny", lambda done, total: heard.append((done, total)))
    header = read_header(target)
    assert (header.architecture, header.name, header.pooling, header.embeds) == ("bert", "tiny", 1, True)
    assert header.shape is not None
    assert (header.shape.layers, header.shape.width, header.shape.heads, header.shape.context_tokens) == (2, 32, 2, 64)
    assert heard[-1] == (target.stat().st_size, target.stat().st_size)
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)


def test_the_numbers_are_those_of_the_weights(tmp_path: Path) -> None:
    folder = bert.write_folder(tmp_path / "model")
    weights = bert.read_safetensors(folder / "model.safetensors")
    target = converted(folder, tmp_path / "tiny.gguf")
    data = target.read_bytes()
    found = {
        tensor.name: np.frombuffer(data, "<f2" if tensor.kind else "<f4", tensor.values, tensor.offset)
        for tensor in read_tensors(target)
    }
    assert len(found) == 5 + 2 * 16  # all but the unused pooler
    expected = weights["embeddings.word_embeddings.weight"]
    assert np.array_equal(found["token_embd.weight"], expected.astype(np.float16).reshape(-1))
    expected = weights["encoder.layer.1.output.dense.weight"]
    assert np.array_equal(found["blk.1.ffn_down.weight"], expected.astype(np.float16).reshape(-1))
    assert np.array_equal(found["blk.0.attn_q.bias"], weights["encoder.layer.0.attention.self.query.bias"])
    position = weights["embeddings.position_embeddings.weight"]
    assert np.array_equal(found["position_embd.weight"], position[:64].reshape(-1))


def test_the_same_bytes_every_time(tmp_path: Path) -> None:
    folder = bert.write_folder(tmp_path / "model")
    first, second = converted(folder, tmp_path / "a.gguf"), converted(folder, tmp_path / "b.gguf")
    assert hash_file(first) == hash_file(second)


def test_weights_of_16_bits_are_read_too(tmp_path: Path) -> None:
    whole = converted(bert.write_folder(tmp_path / "F32"), tmp_path / "whole.gguf").read_bytes()
    for kind in ("F16", "BF16"):
        target = converted(bert.write_folder(tmp_path / kind, kind=kind), tmp_path / f"{kind}.gguf")
        for tensor in read_tensors(target):
            form = "<f2" if tensor.kind else "<f4"
            mine = np.frombuffer(target.read_bytes(), form, tensor.values, tensor.offset)
            exact = np.frombuffer(whole, form, tensor.values, tensor.offset)
            assert np.allclose(mine, exact, rtol=2**-7)


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "roberta"},
        {"hidden_act": "relu"},
        {"position_embedding_type": "relative_key"},
        {"pooling": "max_tokens"},
    ],
)
def test_other_models_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ModelUnsupported):
        converted(bert.write_folder(tmp_path / "model", **change), tmp_path / "tiny.gguf")
    assert not (tmp_path / "tiny.gguf").exists()


def test_a_vocabulary_with_capitals_is_refused(tmp_path: Path) -> None:
    folder = bert.write_folder(tmp_path / "model")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    with pytest.raises(ModelUnsupported, match="uncased"):
        converted(folder, tmp_path / "tiny.gguf")


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "model.safetensors"])
def test_damaged_and_missing_files(tmp_path: Path, name: str) -> None:
    folder = bert.write_folder(tmp_path / "model")
    (folder / name).write_bytes((folder / name).read_bytes()[: len((folder / name).read_bytes()) // 2])
    with pytest.raises(ModelCorrupt):
        converted(folder, tmp_path / "tiny.gguf")
    (folder / name).unlink()
    with pytest.raises(ModelCorrupt, match=name):
        converted(folder, tmp_path / "tiny.gguf")


@pytest.mark.parametrize(
    "entry",
    [
        None,
        5,
        {},
        {"dtype": "F32", "shape": [32], "data_offsets": [0, 1 << 60]},
        {"dtype": "F32", "shape": [32], "data_offsets": [-128, 0]},
        {"dtype": "F32", "shape": [33], "data_offsets": [0, 132]},
        {"dtype": "F64", "shape": [32], "data_offsets": [0, 256]},
        {"dtype": "F32", "shape": "32", "data_offsets": "x"},
        {"dtype": ["F32"], "shape": [32], "data_offsets": [0, 128]},
        {"dtype": "F32", "shape": [32], "data_offsets": [0.0, 128.0]},
    ],
)
def test_a_lying_table_of_contents(tmp_path: Path, entry: object) -> None:
    folder = bert.write_folder(tmp_path / "model")
    path = folder / "model.safetensors"
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    contents = json.loads(data[8:start])
    contents["embeddings.LayerNorm.weight"] = entry
    head = json.dumps(contents).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + data[start:])
    with pytest.raises(ModelCorrupt):
        converted(folder, tmp_path / "tiny.gguf")


@pytest.mark.parametrize("name", ["1_Pooling/config.json", "modules.json", "tokenizer_config.json", "config.json"])
@pytest.mark.parametrize("content", ["5", '"x"', "{", "[" * 100_000])
def test_small_files_of_another_form(tmp_path: Path, name: str, content: str) -> None:
    folder = bert.write_folder(tmp_path / "model")
    (folder / name).write_text(content)
    with pytest.raises(ModelCorrupt):
        converted(folder, tmp_path / "tiny.gguf")


@pytest.mark.parametrize("number", ["NaN", "1e400", "-5", "true", '"64"', "99999999999"])
def test_impossible_numbers_in_the_configuration(tmp_path: Path, number: str) -> None:
    folder = bert.write_folder(tmp_path / "model")
    for key in ("hidden_size", "num_hidden_layers", "layer_norm_eps"):
        text = json.dumps(bert.CONFIG)
        (folder / "config.json").write_text(text.replace(f'"{key}": {bert.CONFIG[key]}', f'"{key}": {number}'))
        with pytest.raises(ModelCorrupt):
            converted(folder, tmp_path / "tiny.gguf")


def test_pull_from_a_folder(tmp_path: Path, store: Store) -> None:
    folder = bert.write_folder(tmp_path / "Tiny Model")
    made = models.pull("tiny-embedder", source=f"file:{folder}/", store=store)
    assert (made.format, made.name, made.digest_origin) == ("gguf", "tiny-embedder", "first_use")
    assert read_header(store.resolve("tiny-embedder").path).embeds
    with pytest.raises(DownloadFailed, match="no folder"):
        models.pull("other", source=f"file:{tmp_path}/nothing/", store=store)


def test_pull_from_a_wheel_checks_the_digest_of_what_was_made(index: Path, tmp_path: Path, store: Store) -> None:
    folder = bert.write_folder(tmp_path / "model")
    members = {
        f"tiny_bert/model/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    wheel(index, "tiny_bert", "1", {**members, "tiny_bert/model/pytorch_model.bin": b"\x80\x02never read"})
    convert(folder, tmp_path / "expected", "tiny_bert", lambda done, total: None)
    size, digest = (tmp_path / "expected").stat().st_size, hash_file(tmp_path / "expected")
    source = "pypi:tiny_bert==1/tiny_bert/model/"
    with pytest.raises(ModelCorrupt, match="promised"):
        models.pull("tiny", spec=spec(Artifact(source, size, "0" * 64)), store=store)
    assert leftovers(store.root) == []
    heard: list[Progress] = []
    made = models.pull("tiny", spec=spec(Artifact(source, size, digest)), store=store, on_progress=heard.append)
    assert (made.sha256, made.digest_origin) == (digest, "catalogue")
    assert heard[-1] == Progress("convert", size, size, "bytes")


def test_a_wheel_without_the_folder(index: Path, store: Store) -> None:
    wheel(index, "tiny_bert", "1", {"tiny_bert/model/config.json": b"{}"})
    with pytest.raises(ModelCorrupt):
        models.pull("tiny", spec=spec(Artifact("pypi:tiny_bert==1/tiny_bert/model/")), store=store)
    assert leftovers(store.root) == []
