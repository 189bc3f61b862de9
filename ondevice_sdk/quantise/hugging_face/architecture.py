"""What a `config.json` says of a Llama, Mistral, Qwen2 or Qwen3 model, and how GGUF says it.

Sources: the configuration classes of transformers for the names and defaults, docs/gguf.md of ggml for the keys.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from ondevice_sdk.errors import ModelCorrupt, ModelUnsupported
from ondevice_sdk.store.gguf_writer import Value

T = TypeVar("T", int, float)

# By the class that a configuration names: the model type that goes with it, and what GGUF calls the architecture.
CLASSES: Final[Mapping[str, tuple[str, str]]] = {
    "LlamaForCausalLM": ("llama", "llama"),
    "MistralForCausalLM": ("mistral", "llama"),  # the same but for its window
    "Qwen2ForCausalLM": ("qwen2", "qwen2"),
    "Qwen3ForCausalLM": ("qwen3", "qwen3"),
}
_QWEN3_HEAD: Final = 128  # of Qwen3, where nothing is said
_LEAST_CONTEXT: Final = 32  # tokens; with less llama.cpp ends the process
_YARN_KEYS: Final = {"rope_theta", "type", "rope_type", "factor", "original_max_position_embeddings"}


@dataclass(frozen=True, slots=True)
class Architecture:
    """The shape of a model and all that decides what it computes.

    Attributes:
        name: GGUF's word.
        context: tokens; where the model was made with a sliding window, no more than that window, within which it
            computes the same without one.
        scaling: GGUF's metadata on the scaling of rotations, without the name of the architecture.
        factors: what each frequency of the rotation is divided by, as Llama 3 has it.
        attention_bias: which of q, k, v, o add a bias.
        mlp_bias: whether gate, up and down do.
        tied: the input embedding is the output matrix too.
    """

    name: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    vocabulary: int
    context: int
    epsilon: float
    theta: float
    scaling: Mapping[str, Value]
    factors: tuple[float, ...] | None
    attention_bias: str
    mlp_bias: bool
    tied: bool

    @property
    def permuted(self) -> bool:
        """Whether GGUF has the rows of queries and keys in another order: the two that rotate together side by side."""
        return self.name == "llama"

    @property
    def normed_heads(self) -> bool:
        """Whether queries and keys are normed, head by head."""
        return self.name == "qwen3"

    def metadata(self) -> dict[str, Value]:
        """The part of GGUF's metadata that is named after the architecture."""
        said: dict[str, Value] = {
            "vocab_size": self.vocabulary,
            "context_length": self.context,
            "embedding_length": self.width,
            "block_count": self.layers,
            "feed_forward_length": self.feed_forward,
            "attention.head_count": self.heads,
            "attention.head_count_kv": self.kv_heads,
            "attention.key_length": self.head_dim,
            "attention.value_length": self.head_dim,
            "attention.layer_norm_rms_epsilon": self.epsilon,
            "rope.dimension_count": self.head_dim,
            "rope.freq_base": self.theta,
            **self.scaling,
        }
        return {f"{self.name}.{key}": value for key, value in said.items()}


def is_known(config: Mapping[str, Any]) -> bool:
    """Whether a configuration names one of the classes that are converted."""
    named = config.get("architectures")
    return isinstance(named, list) and len(named) == 1 and isinstance(named[0], str) and named[0] in CLASSES


def read(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a configuration.

    Raises:
        ModelUnsupported: it names another class, or an option that would change what is computed. ModelCorrupt: a
            number is missing or impossible.
    """
    if not is_known(config):
        raise ModelUnsupported(
            f"only {', '.join(CLASSES)} can be converted", architecture=str(config.get("architectures"))[:80]
        )
    named = config["architectures"][0]
    kind, name = CLASSES[named]
    _refuse_options(config, kind, named)
    heads, width = _number(config, "num_attention_heads", 1 << 16), _number(config, "hidden_size", 1 << 24)
    kv_heads = _number(config, "num_key_value_heads", heads, heads if kind == "llama" else None)
    head_dim = _number(config, "head_dim", 1 << 12, _QWEN3_HEAD if kind == "qwen3" else max(1, width // heads))
    context = min(_number(config, "max_position_embeddings", 1 << 31), _window(config, kind))
    if heads % kv_heads or head_dim % 2 or context < _LEAST_CONTEXT:
        raise ModelUnsupported("a shape that nothing here computes with", architecture=named)
    theta, scaling, factors = _rotation(config, head_dim, named)
    with_bias = _flag(config, "attention_bias")
    return Architecture(
        name=name,
        layers=_number(config, "num_hidden_layers", 512),
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        feed_forward=_number(config, "intermediate_size", 1 << 24),
        vocabulary=_number(config, "vocab_size", 1 << 24),
        context=context,
        epsilon=_real(config, "rms_norm_eps", 1.0, 1e-6),
        theta=theta,
        scaling=scaling,
        factors=factors,
        attention_bias="qkv" if kind == "qwen2" else "qkvo" if kind == "llama" and with_bias else "",
        mlp_bias=kind == "llama" and _flag(config, "mlp_bias"),
        tied=_flag(config, "tie_word_embeddings"),
    )


def _refuse_options(config: Mapping[str, Any], kind: str, named: str) -> None:
    """What a reader of this configuration would have to compute differently."""
    reason = ""
    if config.get("model_type") != kind:
        reason = f"a {named} is of the type {kind}, and this is not"
    elif config.get("quantization_config"):
        reason = "its weights are quantised already: take the original model"
    elif config.get("auto_map"):
        reason = "it brings its own program code, which is never run"
    elif config.get("hidden_act", "silu") != "silu":
        reason = "it has another activation than SiLU"
    elif config.get("partial_rotary_factor", 1.0) != 1.0:
        reason = "its heads are rotated in part"
    elif config.get("rope_interleaved"):
        reason = "its heads are rotated in another order"
    elif config.get("is_causal", True) is not True or config.get("use_bidirectional_attention"):
        reason = "it looks at what comes after a token: it makes embeddings, not text"
    elif kind == "qwen3" and _flag(config, "attention_bias"):
        reason = "llama.cpp has no biases in the attention of Qwen3"
    if reason:
        raise ModelUnsupported(f"the model cannot be converted: {reason}", architecture=named)


def _window(config: Mapping[str, Any], kind: str) -> int:
    """Tokens that attention looks back; without a limit, more than any context."""
    layers = config.get("layer_types")
    some = isinstance(layers, list) and "sliding_attention" in layers
    if config.get("sliding_window") is None or not (kind == "mistral" or some or _flag(config, "use_sliding_window")):
        return 1 << 31
    return _number(config, "sliding_window", 1 << 31)


def _rotation(
    config: Mapping[str, Any], head_dim: int, named: str
) -> tuple[float, dict[str, Value], tuple[float, ...] | None]:
    """The base of the rotations, metadata on their scaling, and Llama 3's factors."""
    said = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(said, dict):
        raise ModelCorrupt("config.json: the scaling of rotations is impossible")
    theta = _real({**config, **said}, "rope_theta", 1e12, 10_000.0)
    kind = said.get("rope_type", said.get("type", "default"))
    match kind:
        case "default":
            return theta, {}, None
        case "linear":
            return theta, {"rope.scaling.type": "linear", "rope.scaling.factor": _factor(said)}, None
        case "llama3":
            return theta, {}, _llama3(said, theta, head_dim)
        case "yarn" if not {key for key, value in said.items() if value is not None} - _YARN_KEYS:
            original = _number({**config, **said}, "original_max_position_embeddings", 1 << 31)
            scaling: dict[str, Value] = {
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": _factor(said),
                "rope.scaling.original_context_length": original,
            }
            return theta, scaling, None
    raise ModelUnsupported(
        f"the model cannot be converted: its rotations are scaled in a way that is not known ({str(kind)[:20]!r})",
        architecture=named,
    )


def _factor(said: Mapping[str, Any]) -> float:
    return _real(said, "factor", 1e6)


def _llama3(said: Mapping[str, Any], theta: float, head_dim: int) -> tuple[float, ...]:
    """Long wavelengths are stretched by a factor, short ones are left, those between blend into each other."""
    factor, original = _factor(said), _number(said, "original_max_position_embeddings", 1 << 31)
    low, high = _real(said, "low_freq_factor", 1e6), _real(said, "high_freq_factor", 1e6)
    if not low < high:
        raise ModelCorrupt("config.json: the scaling of rotations is impossible")
    made = []
    for place in range(0, head_dim, 2):
        wavelength = 2 * math.pi * theta ** (place / head_dim)
        blend = min(max((original / wavelength - low) / (high - low), 0.0), 1.0)
        made.append(1 / ((1 - blend) / factor + blend))
    return tuple(made)


def _number(config: Mapping[str, Any], key: str, most: int, default: int | None = None) -> int:
    value = config.get(key)
    return _checked(key, default if value is None else value, int, 1, most)


def _real(config: Mapping[str, Any], key: str, most: float, default: float | None = None) -> float:
    value = config.get(key)
    value = default if value is None else value
    return _checked(key, float(value) if type(value) is int else value, float, 0.0, most)


def _checked(key: str, value: object, kind: type[T], least: T, most: T) -> T:
    if type(value) is not kind or not least <= value <= most or not value:
        raise ModelCorrupt(f"config.json: {key} is missing or impossible")
    return value


def _flag(config: Mapping[str, Any], key: str) -> bool:
    value = config.get(key)
    if value is not None and not isinstance(value, bool):
        raise ModelCorrupt(f"config.json: {key} is impossible")
    return value is True
