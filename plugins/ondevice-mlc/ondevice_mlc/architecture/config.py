"""What a model looks like: the `model_config` of `mlc-chat-config.json`. Imports no runtime."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ondevice_sdk.errors import ModelUnsupported

MODEL_TYPES: Final = ("llama", "qwen2", "qwen3")
GROUP: Final = 32  # inputs that share a scale; fixed by the q4f32_1 format
PREFILL_CHUNK: Final = 512  # most rows of a pass, the engine's default; SmolLM2 was as fast with passes of 128
MAX_BATCH: Final = 64  # most sequences of a decoding pass, and most rows of logits: `ModelRunner.max_logits`
_CONTEXT: Final = 8192  # for configurations that do not say
_PARTIAL: Final = "partial_rotary_factor"


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A decoder-only transformer of the Llama family."""

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: Mapping[str, Any] | None = None
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    context_window_size: int = _CONTEXT
    prefill_chunk_size: int = PREFILL_CHUNK
    max_batch_size: int = MAX_BATCH

    def __post_init__(self) -> None:
        """Refuse what the kernels cannot compute."""
        if self.model_type not in MODEL_TYPES:
            raise self._refusal("there is no definition of this architecture")
        sizes = (self.hidden_size, self.intermediate_size, self.num_attention_heads * self.head_dim)
        if any(size <= 0 or size % GROUP for size in sizes):
            raise self._refusal(f"widths have to be multiples of {GROUP}")
        if self.num_key_value_heads <= 0 or self.num_attention_heads % self.num_key_value_heads:
            raise self._refusal("the query heads are not a multiple of the key heads")
        if self.head_dim % 8:
            raise self._refusal("the head size is not a multiple of 8")
        self.rope_frequencies()

    @property
    def attention_name(self) -> str:
        """What upstream calls the fused projection."""
        return "qkv_proj" if self.model_type == "llama" else "c_attn"

    @property
    def head_norms(self) -> bool:
        """Whether queries and keys are normalised per head."""
        return self.model_type == "qwen3"

    @property
    def qkv_size(self) -> int:
        """Rows of the fused projection: queries, keys, values."""
        return (self.num_attention_heads + 2 * self.num_key_value_heads) * self.head_dim

    def rope_frequencies(self) -> tuple[float, ...]:
        """Angle per position of each pair of dimensions (`head_dim` / 2 of them).

        `rope_scaling` may be of type `linear`, `llama3`, or `factors` (ours): a list by which the frequencies are
        divided, as GGUF files have it.
        """
        half = self.head_dim // 2
        plain = [self.rope_theta ** (-index / half) for index in range(half)]
        scaling = dict(self.rope_scaling or {})
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        try:
            if kind == "default":
                return tuple(plain)
            if kind == "linear":
                return tuple(each / float(scaling["factor"]) for each in plain)
            if kind == "llama3":
                return tuple(_llama3(each, scaling) for each in plain)
            if kind == "factors":
                factors = [float(each) for each in scaling["factors"]]
                return tuple(each / factor for each, factor in zip(plain, factors, strict=True))
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise self._refusal("rope_scaling is incomplete") from error
        raise self._refusal("rope_scaling is of an unknown type")

    @classmethod
    def from_json(cls, model_type: str, model_config: Mapping[str, Any]) -> ModelConfig:
        """Read `model_type` and `model_config` of a `mlc-chat-config.json`, or a Hugging Face `config.json`.

        Raises:
            ModelUnsupported: the architecture or one of its options is not supported, or a value is missing.
        """
        get = model_config.get
        rope = get("rope_parameters") or get("rope_scaling") or {}  # newer configurations have all of it in the first
        if not isinstance(rope, Mapping) or any(isinstance(each, Mapping) for each in rope.values()):
            raise ModelUnsupported("not supported: rotations that differ between layers", architecture=model_type)
        refused = [key for key in ("use_sliding_window", "mlp_bias", "rope_interleaved") if get(key)]
        refused += [_PARTIAL for said in (model_config, rope) if said.get(_PARTIAL) not in (None, 1)]
        if refused or get("hidden_act", "silu") not in ("silu", "swish"):
            raise ModelUnsupported(f"not supported: {', '.join(refused) or 'hidden_act'}", architecture=model_type)
        try:
            heads = int(model_config["num_attention_heads"])
            hidden = int(model_config["hidden_size"])
            context = int(get("context_window_size") or get("max_position_embeddings") or _CONTEXT)
            return cls(
                model_type=model_type,
                hidden_size=hidden,
                intermediate_size=int(model_config["intermediate_size"]),
                num_hidden_layers=int(model_config["num_hidden_layers"]),
                num_attention_heads=heads,
                num_key_value_heads=int(get("num_key_value_heads") or heads),
                head_dim=int(get("head_dim") or hidden // heads),
                vocab_size=int(model_config["vocab_size"]),
                rms_norm_eps=float(get("rms_norm_eps") or 1e-5),
                rope_theta=float(
                    get("position_embedding_base") or rope.get("rope_theta") or get("rope_theta") or 10000.0
                ),
                rope_scaling=rope or None,
                tie_word_embeddings=bool(get("tie_word_embeddings", False)),
                attention_bias=bool(get("attention_bias", model_type == "qwen2")),
                context_window_size=context,
                prefill_chunk_size=min(int(get("prefill_chunk_size") or PREFILL_CHUNK), context),
                max_batch_size=int(get("max_batch_size") or MAX_BATCH),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelUnsupported("the model's configuration is incomplete", architecture=model_type) from error

    def to_json(self) -> dict[str, Any]:
        """The `model_config` of a `mlc-chat-config.json`."""
        theta = "position_embedding_base" if self.model_type == "llama" else "rope_theta"
        return {
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocab_size,
            "rms_norm_eps": self.rms_norm_eps,
            theta: self.rope_theta,
            "rope_scaling": dict(self.rope_scaling) if self.rope_scaling else None,
            "hidden_act": "silu",
            "attention_bias": self.attention_bias,
            "tie_word_embeddings": self.tie_word_embeddings,
            "context_window_size": self.context_window_size,
            "prefill_chunk_size": self.prefill_chunk_size,
            "max_batch_size": self.max_batch_size,
            "tensor_parallel_shards": 1,
        }

    def _refusal(self, reason: str) -> ModelUnsupported:
        return ModelUnsupported(f"the model cannot be compiled: {reason}", architecture=self.model_type)


def _llama3(frequency: float, scaling: Mapping[str, Any]) -> float:
    """Long waves are stretched by `factor`, short ones kept, those between blended (Llama 3.1)."""
    factor, low, high = (float(scaling[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    turns = float(scaling["original_max_position_embeddings"]) * frequency / (2 * math.pi)
    share = min(1.0, max(0.0, (turns - low) / (high - low)))
    return frequency * (share + (1.0 - share) / factor)
