"""Tiny models with random weights, in the forms that can be compiled."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from .vocabularies import CONTROL, add_byte_level, fragments

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD, MIDDLE, CONTEXT = 64, 2, 2, 1, 32, 96, 2048
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_PLACES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}

Weights = dict[str, NDArray[np.float32]]


def weights(kind: str, vocabulary: int, *, tied: bool = True, hidden: int = HIDDEN, seed: int = 5) -> Weights:
    """Random weights by Hugging Face's names, in its order."""
    draw = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> NDArray[np.float32]:
        return (draw.normal(0, 1, (rows, columns)) / math.sqrt(columns)).astype(np.float32)

    def norm(size: int) -> NDArray[np.float32]:
        return draw.uniform(0.5, 1.5, size).astype(np.float32)

    made = {"model.embed_tokens.weight": matrix(vocabulary, hidden) * 3, "model.norm.weight": norm(hidden)}
    if not tied:
        made["lm_head.weight"] = matrix(vocabulary, hidden)
    for index in range(LAYERS):
        layer = f"model.layers.{index}"
        for name, rows in (("q", HEADS * HEAD), ("k", KV_HEADS * HEAD), ("v", KV_HEADS * HEAD)):
            made[f"{layer}.self_attn.{name}_proj.weight"] = matrix(rows, hidden)
            if kind == "qwen2":
                made[f"{layer}.self_attn.{name}_proj.bias"] = norm(rows)
        made[f"{layer}.self_attn.o_proj.weight"] = matrix(hidden, HEADS * HEAD)
        if kind == "qwen3":
            made |= {f"{layer}.self_attn.{name}_norm.weight": norm(HEAD) for name in "qk"}
        made |= {f"{layer}.mlp.{name}_proj.weight": matrix(MIDDLE, hidden) for name in ("gate", "up")}
        made[f"{layer}.mlp.down_proj.weight"] = matrix(hidden, MIDDLE)
        made |= {f"{layer}.{name}.weight": norm(hidden) for name in ("input_layernorm", "post_attention_layernorm")}
    return made


def gguf_name(name: str) -> str:
    """What GGUF calls a tensor."""
    stem, _, end = name.rpartition(".")
    if stem.startswith("model.layers."):
        _, _, number, inner = stem.split(".", 3)
        return f"blk.{number}.{_PLACES[inner]}.{end}"
    return {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}[stem] + f".{end}"


def write_gguf(
    path: Path, kind: str, *, form: str = "F32", tied: bool = True, fields: Mapping[str, Any] | None = None
) -> Weights:
    """Write a model as a GGUF file; gives its weights, before they were brought into the form."""
    writer = gguf.GGUFWriter(path, kind)
    words = add_byte_level(writer, "qwen2" if kind != "llama" else "smollm")
    vocabulary = -(-(len(words) + len(CONTROL)) // 32) * 32
    _describe(writer)
    writer.add_chat_template(TEMPLATE)
    for key, value in (fields or {}).items():
        (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(f"{kind}.{key}", value)
    made = weights(kind, vocabulary, tied=tied)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in made:
            made[name][fragments(words)] = 0  # others are always likelier
    for name, values in made.items():
        stored = values
        if kind == "llama" and (".q_proj." in name or ".k_proj." in name):
            heads = len(values) // HEAD
            stored = values.reshape(heads, 2, HEAD // 2, -1).swapaxes(1, 2).reshape(values.shape)
        number = gguf.GGMLQuantizationType[form if values.ndim == 2 else "F32"]
        writer.add_tensor(gguf_name(name), gguf.quants.quantize(stored, number), raw_dtype=number)
    _close(writer)
    return made


def write_safetensors(folder: Path, kind: str, form: str = "BF16") -> Weights:
    """Write a model as Hugging Face does; the tokeniser is that of its GGUF form."""
    from ondevice_mlc.gguf_source import GgufSource

    made = write_gguf(folder / "same.gguf", kind)
    files = GgufSource(folder / "same.gguf").tokenizer_files()
    (folder / "same.gguf").unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    header, data = {}, b""
    for name, values in made.items():
        if form == "BF16":
            stored = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
            made[name] = ((values.view(np.uint32) >> 16) << 16).view(np.float32)
        else:
            stored = values.astype(np.float16 if form == "F16" else np.float32).tobytes()
        header[name] = {"dtype": form, "shape": values.shape, "data_offsets": [len(data), len(data) + len(stored)]}
        data += stored
    head = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + data)
    config = {
        "model_type": kind,
        "hidden_size": HIDDEN,
        "intermediate_size": MIDDLE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD,
        "vocab_size": len(made["model.embed_tokens.weight"]),
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "max_position_embeddings": CONTEXT,
        "eos_token_id": 900,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return made


def _describe(writer: Any) -> None:
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(MIDDLE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(10000.0)


def _close(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
