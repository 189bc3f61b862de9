"""The models in plain numpy: what a compiled library has to compute, position by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondevice_mlc.architecture.config import GROUP, ModelConfig
from ondevice_mlc.quantisation import Precision, dequantise, groups

Array = NDArray[Any]


def random_weights(config: ModelConfig, seed: int) -> dict[str, Array]:
    """Tensors of a model by Hugging Face's names, with outputs of about unit size everywhere."""
    generator = np.random.default_rng(seed)
    weights: dict[str, Array] = {}
    heads, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    rows = {"q_proj": heads, "k_proj": keys, "v_proj": keys}
    rows |= {"gate_proj": config.intermediate_size, "up_proj": config.intermediate_size}
    for group in groups(config, "int4"):
        for name in group.sources:
            last = name.split(".")[-2]
            if group.precision is None and name.endswith("norm.weight"):
                size = group.outputs[0].shape[0]
                weights[name] = generator.uniform(0.5, 1.5, size).astype(np.float32)
            elif group.precision is None:
                weights[name] = generator.normal(0, 0.2, rows[last]).astype(np.float32)
            else:
                inputs = group.outputs[1].shape[1] * GROUP
                size = rows.get(last, group.outputs[0].shape[0])
                scale = 1.0 if last == "embed_tokens" else inputs**-0.5
                weights[name] = generator.normal(0, scale, (size, inputs)).astype(np.float32)
    return weights


def parameters(config: ModelConfig, precision: Precision, weights: Mapping[str, Array]) -> list[Array]:
    """The parameters of a compiled library, in their order."""
    return [
        array for group in groups(config, precision) for array in group.make([weights[name] for name in group.sources])
    ]


class Reference:
    """One pass over a whole sequence, with the quantised weights, and activations rounded as the library does."""

    def __init__(self, config: ModelConfig, precision: Precision, weights: Mapping[str, Array]) -> None:
        self._config = config
        values = iter(parameters(config, precision, weights))
        self._weights: dict[str, Array] = {}
        for group in groups(config, precision):
            parts = [next(values) for _ in group.outputs]
            name = group.outputs[0].name.removesuffix(".q_weight")
            quantised = {"q_weight": parts[0], "q_scale": parts[-1]}
            self._weights[name] = dequantise(quantised, group.precision) if group.precision else parts[0]

    def logits(self, tokens: Sequence[int]) -> Array:
        """Shape (tokens, vocabulary)."""
        config, weights = self._config, self._weights
        values = weights["model.embed_tokens"][np.asarray(tokens)].astype(np.float64)
        for index in range(config.num_hidden_layers):
            layer = f"model.layers.{index}"
            values = values + self._attention(f"{layer}.self_attn", self._norm(f"{layer}.input_layernorm", values))
            both = self._linear(f"{layer}.mlp.gate_up_proj", self._norm(f"{layer}.post_attention_layernorm", values))
            gate, up = np.split(both, 2, axis=1)
            values = values + self._linear(f"{layer}.mlp.down_proj", gate / (1 + np.exp(-gate)) * up)
        head = "model.embed_tokens" if config.tie_word_embeddings else "lm_head"
        return self._linear(head, self._norm("model.norm", values))

    def _attention(self, name: str, values: Array) -> Array:
        config, weights = self._config, self._weights
        heads, keys, width = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        fused = self._linear(f"{name}.{config.attention_name}", values)
        if config.attention_bias:
            fused = fused + weights[f"{name}.{config.attention_name}.bias"]
        count = len(values)
        q, k, v = np.split(fused.reshape(count, -1, width), [heads, heads + keys], axis=1)
        if config.head_norms:
            q = _normalise(q, config.rms_norm_eps) * weights[f"{name}.q_norm.weight"]
            k = _normalise(k, config.rms_norm_eps) * weights[f"{name}.k_norm.weight"]
        q, k = self._rotate(q), self._rotate(k)
        k, v = (np.repeat(each, heads // keys, axis=1) for each in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) * width**-0.5
        scores = np.where(np.tril(np.ones((count, count), dtype=bool)), scores, -np.inf)
        shares = np.exp(scores - scores.max(axis=2, keepdims=True))
        shares /= shares.sum(axis=2, keepdims=True)
        return self._linear(f"{name}.o_proj", np.einsum("hqk,khd->qhd", shares, v).reshape(count, -1))

    def _rotate(self, heads: Array) -> Array:
        angles = np.arange(len(heads))[:, None] * np.asarray(self._config.rope_frequencies())
        cosine, sine = np.cos(angles)[:, None], np.sin(angles)[:, None]
        low, high = np.split(heads, 2, axis=2)
        return np.concatenate([low * cosine - high * sine, high * cosine + low * sine], axis=2)

    def _norm(self, name: str, values: Array) -> Array:
        return _normalise(values, self._config.rms_norm_eps) * self._weights[f"{name}.weight"]

    def _linear(self, name: str, values: Array) -> Array:
        groups_of = values.reshape(len(values), -1, GROUP)
        scale = np.maximum(np.abs(groups_of).max(axis=2, keepdims=True), 1e-30) / 127
        rounded: Array = (np.rint(groups_of / scale) * scale).reshape(values.shape)
        return rounded @ self._weights[name].T.astype(np.float64)


def _normalise(values: Array, epsilon: float) -> Array:
    normal: Array = values / np.sqrt((values**2).mean(axis=-1, keepdims=True) + epsilon)
    return normal
