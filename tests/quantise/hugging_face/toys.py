"""Tiny folders in Hugging Face's form with random weights, and what such a model computes, by the book and in numpy."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondevice_sdk.quantise.hugging_face.vocabulary import ALPHABET
from ondevice_sdk.quantise.hugging_face.write import write

Weights = dict[str, NDArray[np.float32]]

LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_WORDS = LLAMA3_WORDS.replace("{1,3}", "")
TEKKEN_WORDS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}


def split(pattern: str) -> dict[str, Any]:
    cut = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [cut, {**BYTE_LEVEL, "use_regex": False}]}


def digits() -> dict[str, Any]:
    cut = {"type": "Digits", "individual_digits": True}
    return {"type": "Sequence", "pretokenizers": [cut, {**BYTE_LEVEL, "use_regex": True}]}


# By llama.cpp's name: normaliser, pre-tokeniser, whether whole words are taken without merging.
PRETOKENISERS: dict[str, tuple[Any, dict[str, Any], bool]] = {
    "gpt-2": (None, {**BYTE_LEVEL, "use_regex": True}, False),
    "smollm": (None, digits(), False),
    "llama-bpe": (None, split(LLAMA3_WORDS), True),
    "smaug-bpe": (None, split(LLAMA3_WORDS), False),
    "qwen2": ({"type": "NFC"}, split(QWEN2_WORDS), False),
    "tekken": (None, split(TEKKEN_WORDS), True),
}
SPECIAL = {"<|begin|>": True, "<|im_end|>": True, "<think>": False}  # text: whether it is control, not content
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": True},
    "llama3": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": True,
        "mlp_bias": True,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 24,
        },
    },
    "linear": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 20000.0},
    },
    "mistral": {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "head_dim": 12, "sliding_window": 48},
    "qwen2": {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "use_sliding_window": False},
    "yarn": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    },
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 24, "rope_theta": 1e6},
}
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}


def tokenizer(pre: str = "smollm", words: tuple[str, ...] = ("the", "Ġthe", "Ġcat", "ing")) -> dict[str, Any]:
    """A `tokenizer.json` whose merges spell a few words from left to right."""
    vocabulary = {letter: number for number, letter in enumerate(sorted(ALPHABET))}
    merges: list[str] = []
    for word in words:
        for end in range(2, len(word) + 1):
            if word[:end] not in vocabulary:
                vocabulary[word[:end]] = len(vocabulary)
                merges.append(f"{word[: end - 1]} {word[end - 1]}")
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": len(vocabulary) + place, "content": text, "special": control, **flags}
        for place, (text, control) in enumerate(SPECIAL.items())
    ]
    normaliser, cut, whole = copy.deepcopy(PRETOKENISERS[pre])
    return {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": normaliser,
        "pre_tokenizer": cut,
        "post_processor": None,
        "decoder": BYTE_LEVEL,
        "model": {"type": "BPE", "ignore_merges": whole, "vocab": vocabulary, "merges": merges},
    }


def config(kind: str, **changes: Any) -> dict[str, Any]:
    return {**SHAPE, "vocab_size": len(tokenizer()["model"]["vocab"]) + 5, **CONFIGS[kind], **changes}


def weights(said: Mapping[str, Any], seed: int = 0) -> Weights:
    """Random weights of the shape that a configuration says, under Hugging Face's names."""
    random = np.random.default_rng(seed)
    width, wide, vocabulary = said["hidden_size"], said["intermediate_size"], said["vocab_size"]
    head = said.get("head_dim") or width // said["num_attention_heads"]
    queries, keys = head * said["num_attention_heads"], head * said["num_key_value_heads"]
    kind = said["model_type"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, width),
        "model.norm.weight": (width,),
    }
    for layer in range(said["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        for name, rows, columns, biased in (
            ("self_attn.q_proj", queries, width, kind == "qwen2" or said.get("attention_bias")),
            ("self_attn.k_proj", keys, width, kind == "qwen2" or said.get("attention_bias")),
            ("self_attn.v_proj", keys, width, kind == "qwen2" or said.get("attention_bias")),
            ("self_attn.o_proj", width, queries, said.get("attention_bias")),
            ("mlp.gate_proj", wide, width, said.get("mlp_bias")),
            ("mlp.up_proj", wide, width, said.get("mlp_bias")),
            ("mlp.down_proj", width, wide, said.get("mlp_bias")),
        ):
            shapes[f"{at}.{name}.weight"] = (rows, columns)
            if biased:
                shapes[f"{at}.{name}.bias"] = (rows,)
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{at}.{name}.weight"] = (width,)
        if kind == "qwen3":
            shapes[f"{at}.self_attn.q_norm.weight"] = shapes[f"{at}.self_attn.k_norm.weight"] = (head,)
    if not said["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocabulary, width)
    return {
        name: (random.standard_normal(shape) * (0.2 if len(shape) > 1 else 0.5) + name.endswith("norm.weight")).astype(
            np.float32
        )
        for name, shape in shapes.items()
    }


def encoded(values: NDArray[Any], form: str) -> bytes:
    if form == "BF16":
        return (values.view("<u4") >> 16).astype("<u2").tobytes()
    return values.astype({"F16": "<f2", "F32": "<f4"}[form]).tobytes()


def write_safetensors(path: Path, tensors: Mapping[str, NDArray[Any]], form: str | None = "F32") -> None:
    """All tensors in one form, or, without one, each in its own."""
    own = {name: form or {"float16": "F16", "float32": "F32"}[values.dtype.name] for name, values in tensors.items()}
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, values in tensors.items():
        length = values.size * (4 if own[name] == "F32" else 2)
        table[name] = {"dtype": own[name], "shape": values.shape, "data_offsets": [at, at + length]}
        at += length
    head = json.dumps(table).encode()
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for name, values in tensors.items():
            file.write(encoded(values, own[name]))


def folder(path: Path, kind: str = "llama", *, form: str = "F32", pre: str = "smollm", **changes: Any) -> Path:
    """A whole folder."""
    path.mkdir(parents=True)
    said = config(kind, **changes)
    write_safetensors(path / "model.safetensors", weights(said), form)
    dump(path / "config.json", said)
    dump(path / "tokenizer.json", tokenizer(pre))
    settings = {"bos_token": "<|begin|>", "eos_token": {"content": "<|im_end|>"}, "chat_template": "{{ bos_token }}hi"}
    dump(path / "tokenizer_config.json", settings)
    return path


def dump(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def edit(path: Path, **changes: Any) -> None:
    """Change entries of a JSON file; None takes one out."""
    value = {**json.loads(path.read_text()), **changes}
    dump(path, {key: each for key, each in value.items() if each is not None})


def convert(path: Path, target: Path, *, licence: str | None = None) -> list[float]:
    """Convert here, without a worker: what was told of the progress."""
    files = {each.name: str(each) for each in path.iterdir()}
    return list(write(files=files, target=str(target), name="toy", licence=licence))


# --- what the model computes --------------------------------------------------------------------------------------


def logits(said: Mapping[str, Any], tensors: Weights, tokens: list[int]) -> NDArray[np.float64]:
    """The logits after every token, in 64 bits."""
    heads, kv_heads = said["num_attention_heads"], said["num_key_value_heads"]
    head = said.get("head_dim") or said["hidden_size"] // heads

    def linear(values: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        made = values @ tensors[f"{name}.weight"].T.astype(np.float64)
        return made + tensors[f"{name}.bias"] if f"{name}.bias" in tensors else made

    def norm(values: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        scaled = values / np.sqrt((values**2).mean(-1, keepdims=True) + said["rms_norm_eps"])
        made: NDArray[np.float64] = scaled * tensors[f"{name}.weight"]
        return made

    cosine, sine = _rotation(said, head, len(tokens))

    def rotated(values: NDArray[np.float64]) -> NDArray[np.float64]:
        left, right = values[..., : head // 2], values[..., head // 2 :]
        made: NDArray[np.float64] = values * cosine + np.concatenate([-right, left], -1) * sine
        return made

    state = tensors["model.embed_tokens.weight"][tokens].astype(np.float64)
    hidden = np.triu(np.full((len(tokens), len(tokens)), -np.inf), 1)
    for layer in range(said["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        normed = norm(state, f"{at}.input_layernorm")
        queries, keys, values = (
            linear(normed, f"{at}.self_attn.{word}_proj").reshape(len(tokens), -1, head) for word in "qkv"
        )
        if f"{at}.self_attn.q_norm.weight" in tensors:
            queries, keys = norm(queries, f"{at}.self_attn.q_norm"), norm(keys, f"{at}.self_attn.k_norm")
        queries, keys = rotated(queries.swapaxes(0, 1)), rotated(keys.swapaxes(0, 1))
        keys, values = (np.repeat(each, heads // kv_heads, 0) for each in (keys, values.swapaxes(0, 1)))
        scores = queries @ keys.swapaxes(1, 2) / math.sqrt(head) + hidden
        odds = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (odds / odds.sum(-1, keepdims=True)) @ values
        state = state + linear(mixed.swapaxes(0, 1).reshape(len(tokens), -1), f"{at}.self_attn.o_proj")
        normed = norm(state, f"{at}.post_attention_layernorm")
        gate = linear(normed, f"{at}.mlp.gate_proj")
        state = state + linear(gate / (1 + np.exp(-gate)) * linear(normed, f"{at}.mlp.up_proj"), f"{at}.mlp.down_proj")
    head_name = "model.embed_tokens" if said["tie_word_embeddings"] else "lm_head"
    return linear(norm(state, "model.norm"), head_name)


def _rotation(said: Mapping[str, Any], head: int, length: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cosines and sines by position; the scalings as transformers computes them."""
    scaling = said.get("rope_parameters") or said.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type"))
    base = scaling.get("rope_theta", said.get("rope_theta", 10000.0))
    frequencies = base ** (-np.arange(0, head, 2) / head)
    size = 1.0
    if kind == "linear":
        frequencies = frequencies / scaling["factor"]
    elif kind == "llama3":
        wavelengths, original = 2 * math.pi / frequencies, scaling["original_max_position_embeddings"]
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        smooth = (original / wavelengths - low) / (high - low)
        between = (1 - smooth) * frequencies / scaling["factor"] + smooth * frequencies
        frequencies = np.where(
            wavelengths > original / low,
            frequencies / scaling["factor"],
            np.where(wavelengths < original / high, frequencies, between),
        )
    elif kind == "yarn":
        original = scaling["original_max_position_embeddings"]

        def dimension(turns: float) -> float:
            return head * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

        low, high = max(math.floor(dimension(32)), 0), min(math.ceil(dimension(1)), head - 1)
        ramp = np.clip((np.arange(head // 2) - low) / max(high - low, 0.001), 0, 1)
        frequencies = frequencies / scaling["factor"] * ramp + frequencies * (1 - ramp)
        size = 0.1 * math.log(scaling["factor"]) + 1
    angles = np.outer(np.arange(length), np.concatenate([frequencies, frequencies]))
    return np.cos(angles) * size, np.sin(angles) * size
