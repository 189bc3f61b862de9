"""A folder in Hugging Face's form becomes a GGUF file that holds the same numbers, in the order that GGUF has them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from ondevice_sdk.catalogue.gguf import read_header, read_tensors
from ondevice_sdk.errors import ModelCorrupt, ModelUnsupported
from ondevice_sdk.quantise.hugging_face import settings
from ondevice_sdk.store.files import hash_file

from . import toys

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def renamed(name: str) -> str:
    stem, _, end = name.rpartition(".")
    if stem.startswith("model.layers."):
        _, _, layer, inner = stem.split(".", 3)
        return f"blk.{layer}.{NAMES[inner]}.{end}"
    return f"{NAMES[stem]}.{end}"


def read(path: Path) -> dict[str, bytes]:
    data, found = path.read_bytes(), {}
    for tensor in read_tensors(path):
        size = {0: 4, 1: 2, 30: 2}[tensor.kind]
        found[tensor.name] = data[tensor.offset : tensor.offset + size * tensor.values]
    return found


def placed(values: NDArray[np.float32], head: int) -> NDArray[np.float32]:
    """Rows in GGUF's order, one by one: number `part` of pair `pair` lies `part` halves of a head after number 0."""
    rows = [
        first + part * (head // 2) + pair
        for first in range(0, len(values), head)
        for pair in range(head // 2)
        for part in range(2)
    ]
    return values[rows]


@pytest.mark.parametrize("form", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("kind", toys.CONFIGS)
def test_every_number_of_every_tensor(tmp_path: Path, kind: str, form: str) -> None:
    folder, target = toys.folder(tmp_path / "model", kind, form=form), tmp_path / "made.gguf"
    toys.convert(folder, target)
    said, found = toys.config(kind), read(target)
    head = said.get("head_dim") or 8
    for name, values in toys.weights(said).items():
        if values.ndim == 1:  # kept exactly, but in 32 bits
            if form == "BF16":
                values = (values.view("<u4") >> 16 << 16).view("<f4")
            values = values.astype({"F16": np.float16}.get(form, np.float32)).astype(np.float32)
        if said["model_type"] in ("llama", "mistral") and ("q_proj" in name or "k_proj" in name):
            values = placed(values, head)
        expected = toys.encoded(values, form if values.ndim == 2 else "F32")
        assert found.pop(renamed(name)) == expected, name
    assert set(found) == ({"rope_freqs.weight"} if kind == "llama3" else set())
    assert read_header(target).file_type == {"F32": 0, "F16": 1, "BF16": 32}[form]


def test_what_the_file_says(tmp_path: Path) -> None:
    folder, target = toys.folder(tmp_path / "model", "qwen3", pre="qwen2"), tmp_path / "made.gguf"
    toys.edit(folder / "tokenizer_config.json", add_bos_token=True)
    told = toys.convert(folder, target, licence="apache-2.0")
    assert told == sorted(set(told))
    assert told[-1] == 1
    fields = {key: field.contents() for key, field in gguf.GGUFReader(target).fields.items()}
    wanted = {
        "general.architecture": "qwen3",
        "general.name": "toy",
        "general.license": "apache-2.0",
        "general.file_type": 0,
        "qwen3.vocab_size": 271,
        "qwen3.context_length": 64,
        "qwen3.embedding_length": 32,
        "qwen3.block_count": 2,
        "qwen3.feed_forward_length": 64,
        "qwen3.attention.head_count": 4,
        "qwen3.attention.head_count_kv": 2,
        "qwen3.attention.key_length": 24,
        "qwen3.attention.value_length": 24,
        "qwen3.attention.layer_norm_rms_epsilon": pytest.approx(1e-5),
        "qwen3.rope.dimension_count": 24,
        "qwen3.rope.freq_base": 1e6,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.bos_token_id": 266,
        "tokenizer.ggml.eos_token_id": 267,
        "tokenizer.ggml.eot_token_id": 267,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.chat_template": "{{ bos_token }}hi",
    }
    assert {key: fields[key] for key in wanted} == wanted
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    assert tokens[266:] == ["<|begin|>", "<|im_end|>", "<think>", "[PAD269]", "[PAD270]"]
    assert kinds == [1] * 266 + [3, 3, 4, 5, 5]
    assert fields["tokenizer.ggml.merges"][:2] == ["t h", "th e"]


def test_the_scalings_of_rotations(tmp_path: Path) -> None:
    files = {kind: tmp_path / f"{kind}.gguf" for kind in ("linear", "llama3", "yarn")}
    fields = {}
    for kind, path in files.items():
        toys.convert(toys.folder(tmp_path / kind, kind), path)
        fields[kind] = {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items()}
    assert fields["linear"]["llama.rope.scaling.type"] == "linear"
    assert (fields["linear"]["llama.rope.scaling.factor"], fields["linear"]["llama.rope.freq_base"]) == (2, 20000)
    assert fields["yarn"]["qwen2.rope.scaling.type"] == "yarn"
    assert fields["yarn"]["qwen2.rope.scaling.factor"] == 4
    assert fields["yarn"]["qwen2.rope.scaling.original_context_length"] == 16
    assert "llama.rope.scaling.type" not in fields["llama3"]
    factors = np.frombuffer(read(files["llama3"])["rope_freqs.weight"], "<f4")
    first = (24 / (2 * math.pi) - 1) / 3  # the only wavelength between 24 / 4 and 24 / 1
    assert factors == pytest.approx([1 / ((1 - first) / 8 + first), 8, 8, 8])


def test_shards_make_the_same_file(tmp_path: Path) -> None:
    whole, shards = toys.folder(tmp_path / "whole"), toys.folder(tmp_path / "shards")
    (shards / "model.safetensors").unlink()
    tensors = toys.weights(toys.config("llama"))
    parts: dict[str, toys.Weights] = {"model-00001-of-00002.safetensors": {}, "model-00002-of-00002.safetensors": {}}
    for number, (name, values) in enumerate(tensors.items()):
        parts[f"model-0000{1 + number % 2}-of-00002.safetensors"][name] = values
    for name, part in parts.items():
        toys.write_safetensors(shards / name, part)
    placed_in = {tensor: name for name, part in parts.items() for tensor in part}
    toys.dump(shards / "model.safetensors.index.json", {"metadata": {}, "weight_map": placed_in})
    toys.write_safetensors(shards / "consolidated.safetensors", {"other": tensors["model.norm.weight"]})  # not named
    for folder in (whole, shards):
        toys.convert(folder, folder.with_suffix(".gguf"))
    assert hash_file(whole.with_suffix(".gguf")) == hash_file(shards.with_suffix(".gguf"))


def test_pieces_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = toys.folder(tmp_path / "model", "llama3", form="BF16")
    toys.convert(folder, tmp_path / "a.gguf")
    monkeypatch.setattr("ondevice_sdk.quantise.hugging_face.tensors._PIECE", 100)
    toys.convert(folder, tmp_path / "b.gguf")
    assert hash_file(tmp_path / "a.gguf") == hash_file(tmp_path / "b.gguf")


def test_a_tied_model_needs_no_output_matrix_and_takes_none(tmp_path: Path) -> None:
    folder = toys.folder(tmp_path / "model", tie_word_embeddings=False)
    toys.edit(folder / "config.json", tie_word_embeddings=True)
    toys.convert(folder, tmp_path / "tied.gguf")
    assert "output.weight" not in read(tmp_path / "tied.gguf")
    folder = toys.folder(tmp_path / "other", tie_word_embeddings=True)
    toys.edit(folder / "config.json", tie_word_embeddings=False)
    with pytest.raises(ModelCorrupt, match=r"lm_head\.weight"):
        toys.convert(folder, tmp_path / "none.gguf")


def test_a_sliding_window_limits_the_context(tmp_path: Path) -> None:
    for name, changes, tokens in (
        ("off", {"use_sliding_window": False, "sliding_window": 40}, 64),
        ("on", {"use_sliding_window": True, "sliding_window": 40}, 40),
        ("layers", {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 33}, 33),
    ):
        toys.convert(toys.folder(tmp_path / name, "qwen2", **changes), tmp_path / f"{name}.gguf")
        shape = read_header(tmp_path / f"{name}.gguf").shape
        assert shape is not None
        assert shape.context_tokens == tokens


UNSUPPORTED: dict[str, dict[str, Any]] = {
    "class": {"architectures": ["PhiForCausalLM"]},
    "no class": {"architectures": None},
    "two classes": {"architectures": ["LlamaForCausalLM", "LlamaForCausalLM"]},
    "no text": {"architectures": ["LlamaForSequenceClassification"]},
    "another type": {"model_type": "granite"},
    "quantised": {"quantization_config": {"quant_method": "gptq"}},
    "code": {"auto_map": {"AutoModelForCausalLM": "modeling.Own"}},
    "activation": {"hidden_act": "gelu"},
    "half rotated": {"partial_rotary_factor": 0.5},
    "interleaved": {"rope_interleaved": True},
    "encoder": {"is_causal": False},
    "dynamic": {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
    "own yarn": {"rope_scaling": {"type": "yarn", "factor": 2.0, "beta_fast": 16}},
    "odd heads": {"num_key_value_heads": 3},
    "tiny context": {"max_position_embeddings": 16},
    "list of scalings": {"rope_scaling": {"type": ["llama3"]}},
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_what_would_be_computed_otherwise_is_refused(tmp_path: Path, case: str) -> None:
    folder = toys.folder(tmp_path / "model")
    toys.edit(folder / "config.json", **UNSUPPORTED[case])
    with pytest.raises(ModelUnsupported):
        toys.convert(folder, tmp_path / "made.gguf")
    assert not (tmp_path / "made.gguf").exists()


def test_biases_that_llama_cpp_would_not_add_are_refused(tmp_path: Path) -> None:
    folder = toys.folder(tmp_path / "model", "qwen3", attention_bias=True)
    with pytest.raises(ModelUnsupported, match="biases"):
        toys.convert(folder, tmp_path / "made.gguf")


IMPOSSIBLE: dict[str, Any] = {
    "hidden_size": [0, -32, "32", 1 << 40, True, 32.0, 16, None],
    "num_hidden_layers": [0, 10**9, 3],
    "num_attention_heads": [0, 8.5],
    "num_key_value_heads": [8, []],
    "vocab_size": [270, 1 << 60],
    "rms_norm_eps": [0, -1.0, math.nan, math.inf, "1"],
    "rope_theta": [math.inf, 0],
    "tie_word_embeddings": ["yes", 1],
    "rope_scaling": [
        [1],
        {"rope_type": "llama3", "factor": 8.0},
        {"rope_type": "linear", "factor": math.nan},
        {"rope_type": "linear", "factor": 0},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 4.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 24,
        },
    ],
}


@pytest.mark.parametrize("key", IMPOSSIBLE)
def test_impossible_configurations(tmp_path: Path, key: str) -> None:
    folder = toys.folder(tmp_path / "model")
    for value in IMPOSSIBLE[key]:
        toys.dump(folder / "config.json", {**toys.config("llama"), key: value})
        with pytest.raises(ModelCorrupt):
            toys.convert(folder, tmp_path / "made.gguf")


def test_tensors_that_are_not_known_or_missing(tmp_path: Path) -> None:
    said = toys.config("llama")
    for name in ("model.layers.0.self_attn.q_proj.bias", "model.layers.2.mlp.up_proj.weight", "classifier.weight"):
        folder = toys.folder(tmp_path / name)
        tensors = toys.weights(said) | {name: np.zeros(32, np.float32)}
        toys.write_safetensors(folder / "model.safetensors", tensors)
        with pytest.raises(ModelUnsupported, match="not known"):
            toys.convert(folder, tmp_path / "made.gguf")
    folder = toys.folder(tmp_path / "old")
    table = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(4, np.float32)}  # of old folders
    toys.write_safetensors(folder / "model.safetensors", toys.weights(said) | table)
    toys.convert(folder, tmp_path / "old.gguf")


def test_weights_of_other_types_are_refused(tmp_path: Path) -> None:
    folder = toys.folder(tmp_path / "model", form="F16")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"F16"', b'"I16"'))
    with pytest.raises(ModelUnsupported, match="I16"):
        toys.convert(folder, tmp_path / "made.gguf")
    path.write_bytes(path.read_bytes().replace(b'"I16"', b'"X16"'))
    with pytest.raises(ModelUnsupported, match="X16"):
        toys.convert(folder, tmp_path / "made.gguf")


@pytest.mark.parametrize("form", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_values_that_are_no_numbers(tmp_path: Path, form: str, value: float) -> None:
    folder = toys.folder(tmp_path / "model")
    tensors = toys.weights(toys.config("llama"))
    tensors["model.layers.1.self_attn.k_proj.weight"][3, 4] = value
    toys.write_safetensors(folder / "model.safetensors", tensors, form)
    with pytest.raises(ModelCorrupt, match="no numbers"):
        toys.convert(folder, tmp_path / "made.gguf")


CARDS = {
    "---\nlicense: apache-2.0\ntags:\n- text\n---\n# Model\n": "apache-2.0",
    "---\nlanguage: en\nlicense: other\nlicense_name: 'own terms'  # see below\n---\n": "own terms",
    "---\nlicense: other\n---\n": "other",
    '---\r\nlicense: "mit"\r\n---\r\n': "mit",
    "# Model\nlicense: mit\n": None,
    "---\nlicence: mit\n": None,
    "---\nlicense:\n- mit\n---\n": None,
    "": None,
}


@pytest.mark.parametrize("card", CARDS)
def test_the_licence_of_a_card(tmp_path: Path, card: str) -> None:
    path = tmp_path / "README.md"
    path.write_bytes(card.encode())
    assert settings.licence(path) == CARDS[card]


def test_no_card(tmp_path: Path) -> None:
    assert settings.licence(tmp_path / "README.md") is None
    (tmp_path / "README.md").write_bytes(b"---\nlicense: \xff\x1b[2J\n---\n")
    assert settings.licence(tmp_path / "README.md") == "\ufffd?[2J"


def test_json_is_read_once_and_whole(tmp_path: Path) -> None:
    folder = toys.folder(tmp_path / "model")
    text = json.dumps(toys.config("llama"))
    for bad in (text[:-1], f"[{text}]", text[:-1] + ', "vocab_size": 271}', "[" * 100_000, "1" * 5000, "\xff"):
        (folder / "config.json").write_text(bad, encoding="latin-1")
        with pytest.raises(ModelCorrupt, match=r"config\.json"):
            toys.convert(folder, tmp_path / "made.gguf")
