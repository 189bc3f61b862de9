"""Which models can be re-parametrised: those whose every tensor and setting has a place in the proof, and no others.

The proof, for one layer of a pre-norm transformer with a gated feed-forward (x is what the layer is given):

- n = normalised(x) * attn_norm, and q, k, v = W n + b: the factors t on `attn_norm` and 1/t on the columns of the three
  matrices cancel, whatever the normalisation does to x, and whatever happens to q and k later.
- attention gives sums of the values of a head with weights that do not depend on them, and the matrix `attn_output`
  multiplies these: factors on the rows and biases of v cancel with those on its columns. Query heads that share values
  share the factors.
- the feed-forward gives W_down (act(gate) * up), linear in up: factors on the rows and bias of up cancel with those on
  the columns of W_down.

What reads the residual stream (other norms, biases of the results, the vocabulary) never sees any of this.

Whatever could break a step, such as experts, a bias of the norm, limits for the values, or one matrix for q, k and v,
shows as a tensor or a setting that is not listed here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from ondevice_sdk.catalogue import gguf, layout
from ondevice_sdk.catalogue.gguf import GgufFile, GgufTensor, Value
from ondevice_sdk.errors import ModelUnsupported

# As llama.cpp names them. "llama" is Mistral and SmolLM2, too. The norms of Gemma are written with the 1 added to them
# that the model adds, and its further norms are on the results.
ARCHITECTURES: Final = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3")
# Their activation is looked up in a table of 16 bits: the smallest rounding before it grows to one step of that. Only
# factors that are powers of two are cancelled to the last bit.
_ROUNDING: Final = ("gemma", "gemma2", "gemma3")
FORMATS: Final = ("F32", "F16", "BF16")  # of matrices that lose nothing in 32 bits

_BLOCK: Final = re.compile(r"blk\.(\d{1,3})\.([a-z_]+\.(?:weight|bias))")
_REQUIRED: Final = (
    "attn_norm.weight", "attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_output.weight", "ffn_norm.weight",
    "ffn_gate.weight", "ffn_up.weight", "ffn_down.weight",
)  # fmt: skip
_SCALED_BIASES: Final = ("attn_v.bias", "ffn_up.bias")
_UNTOUCHED: Final = (
    "attn_q.bias", "attn_k.bias", "attn_output.bias", "ffn_gate.bias", "ffn_down.bias", "attn_q_norm.weight",
    "attn_k_norm.weight", "post_attention_norm.weight", "post_ffw_norm.weight",
)  # fmt: skip
_OUTSIDE: Final = (
    "token_embd.weight", "output_norm.weight", "output.weight", "rope_freqs.weight", "rope_factors_long.weight",
    "rope_factors_short.weight",
)  # fmt: skip
# Settings of an architecture: sizes, and what is done to x, to q and k, or to the logits.
_SETTINGS: Final = (
    "vocab_size", "context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "attention.key_length", "attention.value_length", "attention.key_length_swa",
    "attention.value_length_swa", "attention.layer_norm_rms_epsilon", "attention.causal", "attention.scale",
    "attention.sliding_window", "attention.sliding_window_pattern", "attn_logit_softcapping",
    "final_logit_softcapping",
)  # fmt: skip
_NOTHING_IF_ZERO: Final = ("expert_count", "expert_used_count", "attention.clamp_kqv", "pooling_type")


@dataclass(frozen=True, slots=True)
class Layer:
    """The tensors of a layer that change, by their names in it (`attn_q.weight`)."""

    tensors: Mapping[str, GgufTensor]


@dataclass(frozen=True, slots=True)
class Proved:
    """A model file whose layers can be re-parametrised, and the sizes of its attention."""

    file: GgufFile
    layers: tuple[Layer, ...]
    heads: int
    kv_heads: int
    head_dim: int  # of the values
    rounding: bool  # whether llama.cpp rounds between the layers, so that factors have to be powers of two


def prove(path: str) -> Proved:
    """Look through the head of a GGUF file.

    Raises:
        ModelUnsupported: nothing proves that its function would be kept, or its weights are quantised.
        ModelCorrupt: it is no whole GGUF file. OSError: it cannot be read.
    """
    file = gguf.read_file(path)
    architecture = file.header.architecture
    if architecture not in ARCHITECTURES:
        _refuse(file, "its architecture is not one of those that are proved")
    _check_settings(file)
    layers = _layers(file)
    width, heads = _number(file, "embedding_length"), _number(file, "attention.head_count")
    kv_heads = _number(file, "attention.head_count_kv", heads)
    if heads % kv_heads:
        _refuse(file, "its heads of queries are no multiple of those of values")
    head_dim = _number(file, "attention.value_length", width // heads)
    key_dim = _number(file, "attention.key_length", width // heads)
    expected = {
        "attn_norm.weight": (width,),
        "attn_q.weight": (width, heads * key_dim),
        "attn_k.weight": (width, kv_heads * key_dim),
        "attn_v.weight": (width, kv_heads * head_dim),
        "attn_v.bias": (kv_heads * head_dim,),
        "attn_output.weight": (heads * head_dim, width),
        "ffn_norm.weight": (width,),
    }
    for layer in layers:
        hidden = layer.tensors["ffn_down.weight"].columns
        feed_forward = {
            "ffn_gate.weight": (width, hidden),
            "ffn_up.weight": (width, hidden),
            "ffn_up.bias": (hidden,),
            "ffn_down.weight": (hidden, width),
        }
        for name, sizes in (expected | feed_forward).items():
            tensor = layer.tensors.get(name)
            if tensor is not None and file.sizes[tensor.name] != sizes:
                _refuse(file, f"the sizes of {tensor.name} do not fit the others")
    return Proved(file, layers, heads, kv_heads, head_dim, architecture in _ROUNDING)


def _check_settings(file: GgufFile) -> None:
    prefix = f"{file.header.architecture}."
    for key, value in file.metadata.items():
        if key == "general.type" and value != "model":
            _refuse(file, "it is no model")
        if key == "split.count" and value not in (0, 1):
            _refuse(file, "it lies in several files")
        setting = key.removeprefix(prefix)
        if setting == key or setting in _SETTINGS or setting.startswith("rope."):
            continue
        if setting not in _NOTHING_IF_ZERO or value != 0:
            _refuse(file, f"its setting {_shown(key)} is not one of those that are proved")


def _layers(file: GgufFile) -> tuple[Layer, ...]:
    layers: list[dict[str, GgufTensor]] = [{} for _ in range(_number(file, "block_count"))]
    for tensor in file.tensors:
        _check_format(file, tensor)
        match = _BLOCK.fullmatch(tensor.name)
        if match is not None and int(match[1]) < len(layers) and match[1] == str(int(match[1])):
            if match[2] in _REQUIRED or match[2] in _SCALED_BIASES:
                layers[int(match[1])][match[2]] = tensor
                continue
            if match[2] in _UNTOUCHED:
                continue
        elif tensor.name in _OUTSIDE:
            continue
        _refuse(file, f"its tensor {_shown(tensor.name)} is not one of those that are proved")
    for index, layer in enumerate(layers):
        for name in _REQUIRED:
            if name not in layer:
                _refuse(file, f"layer {index} has no {name}")
    return tuple(map(Layer, layers))


def _check_format(file: GgufFile, tensor: GgufTensor) -> None:
    if layout.NUMBERS.get(tensor.kind) not in FORMATS:
        kind = layout.NUMBERS.get(tensor.kind, f"format {tensor.kind}")
        _refuse(file, f"{tensor.name} is in {kind}, not in 16 or 32 bits")


def _number(file: GgufFile, setting: str, default: int | None = None) -> int:
    value: Value = file.metadata.get(f"{file.header.architecture}.{setting}", default)
    if not isinstance(value, int) or value < 1:
        _refuse(file, f"its setting {setting} is missing, or not one number for all layers")
    return value


def _shown(name: str) -> str:
    return repr(name[:80])


def _refuse(file: GgufFile, reason: str) -> NoReturn:
    architecture = file.header.architecture[:80]
    raise ModelUnsupported(
        f"the {architecture!r} model cannot be re-parametrised: {reason}",
        architecture=architecture,
        hint="quantise it without pre-SINQ (plain or imatrix)",
    )
