"""Weights of other forms become those of a model folder."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from ondevice_mlc import folder
from ondevice_mlc.convert import convert, write_config
from ondevice_mlc.quantisation import Precision, dequantise, groups
from ondevice_mlc.runtime import ALIGNMENT
from ondevice_mlc.sources import Source, open_source
from ondevice_sdk.backends.api import LocalModel
from ondevice_sdk.errors import LoadFailed, ModelCorrupt, ModelUnsupported

from . import tiny

KINDS = ["llama", "qwen2", "qwen3"]
# The largest difference to the weights, as a share of the largest weight of the matrix.
FORMS = {"F32": 0.0, "F16": 1e-3, "BF16": 8e-3, "Q8_0": 5e-3, "Q5_1": 4e-2, "Q5_0": 8e-2, "Q4_1": 8e-2, "Q4_0": 0.15}


def whole(source: Source, name: str) -> Any:
    return source.rows(name, 0, source.size(name))


@pytest.mark.parametrize("kind", KINDS)
def test_gguf_gives_hugging_faces_order(tmp_path: Path, kind: str) -> None:
    made = tiny.write_gguf(tmp_path / "m.gguf", kind)
    source = open_source(tmp_path / "m.gguf")
    for name, values in made.items():
        assert np.array_equal(whole(source, name), values), name
        assert np.array_equal(source.rows(name, 5, 17), values[5:17]), name


@pytest.mark.parametrize("form", FORMS)
def test_formats_of_weights(tmp_path: Path, form: str) -> None:
    made = tiny.write_gguf(tmp_path / "m.gguf", "llama", form=form)
    source = open_source(tmp_path / "m.gguf")
    for name, values in made.items():
        most = FORMS[form] * np.abs(values).max() if values.ndim == 2 else 0
        assert np.abs(whole(source, name) - values).max() <= most, name


@pytest.mark.parametrize("form", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL"])
def test_formats_that_only_others_write(tmp_path: Path, form: str) -> None:
    """Blocks of random bytes with a small scale, as they are read by the package that knows them."""
    kind = gguf.GGMLQuantizationType[form]
    values, size = gguf.GGML_QUANT_SIZES[kind]
    rows = np.frombuffer(random.Random(3).randbytes(4 * size), np.uint8).reshape(4, size) & 0x3B
    made = gguf.quants.dequantize(rows, kind)
    assert made.shape == (4, values)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    tiny._describe(writer)
    writer.add_tensor("token_embd.weight", rows, raw_dtype=kind)
    tiny._close(writer)
    source = open_source(tmp_path / "m.gguf")
    assert np.array_equal(source.rows("model.embed_tokens.weight", 1, 3), made[1:3])


@pytest.mark.parametrize("form", ["BF16", "F16", "F32"])
def test_safetensors(tmp_path: Path, form: str) -> None:
    made = tiny.write_safetensors(tmp_path, "qwen3", form)
    source = open_source(tmp_path / "config.json")
    for name, values in made.items():
        assert np.allclose(whole(source, name), values, atol=1e-3 if form == "F16" else 0), name
    assert source.tokens()["eos_token_id"] == [900, 902]
    assert json.loads(source.tokenizer_files()["tokenizer_config.json"])["chat_template"] == tiny.TEMPLATE


@pytest.mark.parametrize("precision", ["int4", "int8"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_folder(tmp_path: Path, kind: str, precision: Precision) -> None:
    """What is written is read again, lies where it need not be copied, and is nearly what it was made of."""
    made = tiny.write_gguf(tmp_path / "m.gguf", kind, tied=kind != "qwen3")
    source, place = open_source(tmp_path / "m.gguf"), tmp_path / "folder"
    place.mkdir()
    names = fill(source, place, precision)
    (place / "model.so").touch()
    assert sorted([*names, "model.so"]) == sorted(path.name for path in place.iterdir())
    found = folder.read(LocalModel("m", precision, "mlc", str(place / names[0]), ""))
    records = found.records()
    assert all(record.offset % ALIGNMENT == 0 for record in records.values())
    layer = "model.layers.1"
    attention = "qkv_proj" if kind == "llama" else "c_attn"
    fused = {
        f"{layer}.self_attn.{attention}": [f"{layer}.self_attn.{name}_proj" for name in "qkv"],
        f"{layer}.mlp.gate_up_proj": [f"{layer}.mlp.gate_proj", f"{layer}.mlp.up_proj"],
        f"{layer}.mlp.down_proj": [f"{layer}.mlp.down_proj"],
        "model.embed_tokens": ["model.embed_tokens"],
    }
    if kind == "qwen3":
        fused["lm_head"] = ["lm_head"]
    wanted = {group.outputs[0].name: group.precision for group in groups(source.config, precision)}
    for name, parts in fused.items():
        before = np.concatenate([made[f"{part}.weight"] for part in parts])
        own = wanted[f"{name}.q_weight"]
        assert own is not None
        after = dequantise({each: read(found, f"{name}.{each}") for each in ("q_weight", "q_scale")}, own)
        assert np.abs(after - before).max() <= np.abs(before).max() / (6 if own == "int4" else 200)
    assert np.array_equal(read(found, "model.norm.weight"), made["model.norm.weight"])
    if kind == "qwen2":
        bias = np.concatenate([made[f"{layer}.self_attn.{name}_proj.bias"] for name in "qkv"])
        assert np.array_equal(read(found, f"{layer}.self_attn.c_attn.bias"), bias)


def fill(source: Source, place: Path, precision: Precision) -> list[str]:
    steps, shares = convert(source, place, precision), []
    while True:
        try:
            shares.append(next(steps))
        except StopIteration as end:
            assert shares == sorted(shares)
            assert shares[-1] == 1
            return [write_config(source, place, precision, {}), *end.value]


def read(found: folder.Folder, name: str) -> Any:
    for shard in found.shards:
        for record in shard.records:
            if record.name == name:
                data = shard.path.read_bytes()[record.offset : record.offset + record.size]
                return np.frombuffer(data, record.dtype).reshape(record.shape)
    raise KeyError(name)


@pytest.mark.parametrize(
    "fields",
    [{"expert_count": 8}, {"rope.dimension_count": 16}, {"attention.sliding_window": 512}, {"logit_scale": 2.0}],
)
def test_options_that_are_not_known(tmp_path: Path, fields: dict[str, Any]) -> None:
    tiny.write_gguf(tmp_path / "m.gguf", "qwen2", fields=fields)
    with pytest.raises(ModelUnsupported):
        open_source(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("key", "error"), [("attention.head_count_kv", ModelUnsupported), ("context_length", ModelCorrupt)]
)
def test_numbers_that_are_none(tmp_path: Path, key: str, error: type[Exception]) -> None:
    """A list is of a model whose layers differ, anything else is damage."""
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "qwen3")
    tiny._describe(writer)
    del writer.kv_data[0][f"qwen3.{key}"]
    if key == "context_length":
        writer.add_string(f"qwen3.{key}", "long")
    else:
        writer.add_array(f"qwen3.{key}", [1, 2])
    writer.add_tensor("token_embd.weight", np.zeros((32, 64), np.float32))
    tiny._close(writer)
    with pytest.raises(error):
        open_source(tmp_path / "m.gguf")


def test_other_architectures(tmp_path: Path) -> None:
    tiny.write_gguf(tmp_path / "m.gguf", "gemma3")
    with pytest.raises(ModelUnsupported):
        open_source(tmp_path / "m.gguf")


def test_tensors_that_are_not_known(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    tiny._describe(writer)
    for name in ("token_embd.weight", "blk.0.attn_sinks.weight"):
        writer.add_tensor(name, np.zeros((32, 64), np.float32))
    tiny._close(writer)
    with pytest.raises(ModelUnsupported, match="attn_sinks"):
        open_source(tmp_path / "m.gguf")


def add_tensor(path: Path, name: str) -> None:
    """An empty one, to a file of safetensors."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    entry = {name: {"dtype": "BF16", "shape": [0], "data_offsets": [0, 0]}}
    head = json.dumps({**json.loads(data[8 : 8 + length]), **entry}).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + data[8 + length :])


def test_tensors_of_safetensors_that_nothing_uses(tmp_path: Path) -> None:
    tiny.write_safetensors(tmp_path, "llama")
    path = tmp_path / "model.safetensors"
    for harmless in ("lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"):
        add_tensor(path, harmless)
    open_source(tmp_path)
    add_tensor(path, "model.layers.0.self_attn.o_proj.bias")
    with pytest.raises(ModelUnsupported, match=r"o_proj\.bias"):
        open_source(tmp_path)


def test_other_files_beside_the_model(tmp_path: Path) -> None:
    """The same model in another form, which nothing reads."""
    made = tiny.write_safetensors(tmp_path, "llama")
    path, index = tmp_path / "model.safetensors", tmp_path / "model.safetensors.index.json"
    (tmp_path / "consolidated.safetensors").write_bytes(path.read_bytes())
    add_tensor(tmp_path / "consolidated.safetensors", "tok_embeddings.weight")
    assert np.array_equal(whole(open_source(tmp_path), "model.norm.weight"), made["model.norm.weight"])
    path.rename(tmp_path / "model-1.safetensors")
    index.write_text(json.dumps({"weight_map": dict.fromkeys(made, "model-1.safetensors")}))
    assert np.array_equal(whole(open_source(tmp_path), "model.norm.weight"), made["model.norm.weight"])
    for wrong in ({"x": "../model-1.safetensors"}, {"x": 3}, {}, ["model-1.safetensors"]):
        index.write_text(json.dumps({"weight_map": wrong}))
        with pytest.raises(ModelCorrupt):
            open_source(tmp_path)


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    tiny.write_safetensors(tmp_path, "llama", "F32")
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\x00\x00\xc0\x7f")
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelCorrupt):
        fill(open_source(tmp_path), tmp_path / "out", "int8")


def test_a_tensor_is_missing_or_of_another_size(tmp_path: Path) -> None:
    tiny.write_safetensors(tmp_path, "llama", "F32")
    for key, value in (("num_hidden_layers", 3), ("intermediate_size", 128)):
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, key: value}))
        (tmp_path / key).mkdir()
        with pytest.raises(ModelCorrupt):
            fill(open_source(tmp_path), tmp_path / key, "int8")
        (tmp_path / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("keep", [3, 100, 5000, 40_000])
def test_cut_files(tmp_path: Path, keep: int) -> None:
    tiny.write_gguf(tmp_path / "m.gguf", "llama")
    (tmp_path / "m.gguf").write_bytes((tmp_path / "m.gguf").read_bytes()[:keep])
    with pytest.raises((ModelCorrupt, ModelUnsupported)):
        open_source(tmp_path / "m.gguf")
    folder = tmp_path / "hf"
    folder.mkdir()
    tiny.write_safetensors(folder, "llama")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises((ModelCorrupt, LoadFailed)):
        open_source(folder)


def test_weights_that_were_quantised_by_others(tmp_path: Path) -> None:
    tiny.write_safetensors(tmp_path, "llama")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": {"bits": 4}}))
    with pytest.raises(ModelUnsupported):
        open_source(tmp_path)
