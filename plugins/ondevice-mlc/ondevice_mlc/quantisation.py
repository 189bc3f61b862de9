"""Group quantisation of weights, in the layouts of MLC's `q4f32_1` and its 8-bit counterpart.

Each 32 inputs of an output row share a scale `s`, which may be negative. A weight `w` is stored as the unsigned number
`round(w / s) + z`: with 4 bits `z` is 7 and numbers go to 15, with 8 bits `z` is 127 and numbers go to 254. Numbers of
neighbouring inputs are packed into words of 32 bits, the first in the lowest bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ondevice_mlc.architecture.config import GROUP, ModelConfig

Precision = Literal["int4", "int8"]
# The table of tokens, which often gives the logits too, and the projection to logits have 8 bits in all models: with 4
# they alone made a quarter of the divergence (KL 0.36 instead of 0.27) of SmolLM2 in int4 from its original.
TABLE: Final[Precision] = "int8"
FORMATS: Final[Mapping[Precision, str]] = {"int4": "q4f32_1", "int8": "q8f32_1"}
BITS: Final[Mapping[Precision, int]] = {"int4": 4, "int8": 8}
# Highest value of a number, less the zero point. The largest weight of a group is meant for it.
_MOST: Final[Mapping[Precision, int]] = {"int4": 8, "int8": 127}
# With 4 bits numbers are rounded for a scale of the largest weight over each of these, then the scale is fitted to the
# numbers; what has the least squared error is taken. The error (root mean square) of normally distributed weights is
# 0.76 of what the largest weight over 7 gives, and 0.89 of what it over 8 gives. With 8 bits the largest weight gives
# the scale: a search over sixteen scales took minutes for a billion weights and changed next to nothing (SmolLM2 beside
# llama.cpp, 1,280 tokens: KL 0.0038 instead of 0.0044, the same first choice in 96.9 instead of 97.4 percent).
_DIVISORS: Final = (8.0, 8.5, 9.0, 7.5, 7.0)


def zero_point(precision: Precision) -> int:
    """The stored number that stands for 0."""
    return (1 << (BITS[precision] - 1)) - 1


def per_word(precision: Precision) -> int:
    """Weights in a word."""
    return 32 // BITS[precision]


def quantise(weight: NDArray[np.float32], precision: Precision) -> dict[str, NDArray[Any]]:
    """Quantise a matrix (outputs, inputs).

    Gives `q_weight`, (outputs, words) uint32, and `q_scale`, (outputs, groups) float32.
    """
    rows, inputs = weight.shape
    zero, count = zero_point(precision), per_word(precision)
    groups = np.asarray(weight, dtype=np.float32).reshape(rows, inputs // GROUP, GROUP)
    peaks = np.take_along_axis(groups, np.abs(groups).argmax(axis=2)[:, :, None], axis=2)
    if precision == "int8":
        scale = peaks / np.float32(_MOST[precision])
        numbers = _rounded(groups, scale, precision)
    else:
        scale, numbers = _searched(groups, peaks, precision)
    words = (numbers + zero).astype(np.uint32).reshape(rows, inputs // count, count)
    shifts = np.arange(count, dtype=np.uint32) * np.uint32(BITS[precision])
    return {"q_weight": np.bitwise_or.reduce(words << shifts, axis=2), "q_scale": scale[:, :, 0]}


def _rounded(groups: NDArray[np.float32], scale: NDArray[np.float32], precision: Precision) -> NDArray[np.float32]:
    """The numbers nearest to the weights, without the zero point."""
    nearest = np.rint(groups / np.where(scale == 0, np.float32(1), scale))
    numbers: NDArray[np.float32] = np.clip(nearest, -zero_point(precision), _MOST[precision])
    return numbers


def _searched(
    groups: NDArray[np.float32], peaks: NDArray[np.float32], precision: Precision
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The scales, and the numbers, that have the least squared error of those that are tried."""
    best, error = peaks * 0, np.full_like(peaks, np.inf)
    numbers = np.zeros_like(groups)
    for divisor in _DIVISORS:
        candidate = _rounded(groups, peaks / np.float32(divisor), precision)
        scale = _fit(groups, candidate)
        wrong = np.square(candidate * scale - groups).sum(axis=2, keepdims=True)
        better = wrong < error
        best, error = np.where(better, scale, best), np.where(better, wrong, error)
        numbers = np.where(better, candidate, numbers)
    return best, numbers


def _fit(groups: NDArray[np.float32], numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scale of each group with the least squared error for these numbers."""
    squares = np.square(numbers).sum(axis=2, keepdims=True)
    fitted: NDArray[np.float32] = (groups * numbers).sum(axis=2, keepdims=True) / np.where(squares == 0, 1, squares)
    return fitted


def dequantise(parts: Mapping[str, NDArray[Any]], precision: Precision) -> NDArray[np.float32]:
    """The matrix (outputs, inputs) that `quantise` made into `parts`, but for the rounding."""
    words, scale = parts["q_weight"], parts["q_scale"]
    shifts = np.arange(per_word(precision), dtype=np.uint32) * np.uint32(BITS[precision])
    mask = np.uint32((1 << BITS[precision]) - 1)
    numbers = ((words[:, :, None] >> shifts) & mask).reshape(words.shape[0], -1, GROUP).astype(np.float32)
    values = (numbers - np.float32(zero_point(precision))) * scale[:, :, None]
    return np.asarray(values.reshape(words.shape[0], -1), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class ParamSpec:
    """A parameter of the compiled library."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters that are made of the same tensors of the model.

    `sources` are names of Hugging Face's tensors, whose rows are put below one another.
    """

    sources: tuple[str, ...]
    outputs: tuple[ParamSpec, ...]
    precision: Precision | None = None  # None: not quantised

    def make(self, arrays: Sequence[NDArray[np.float32]]) -> list[NDArray[Any]]:
        """The values of `outputs`, from those of `sources`."""
        whole = np.concatenate([np.asarray(array, dtype=np.float32) for array in arrays], axis=0)
        if self.precision is None:
            made: list[NDArray[Any]] = [whole]
        else:
            parts = quantise(whole, self.precision)
            made = [parts["q_weight"], parts["q_scale"]]
        for array, spec in zip(made, self.outputs, strict=True):
            if array.shape != spec.shape:
                raise ValueError(f"{spec.name} has shape {array.shape}, not {spec.shape}")
        return made


def groups(config: ModelConfig, precision: Precision) -> list[Group]:
    """All parameters; the order of the outputs is the order in which the compiled functions take them."""
    return list(_groups(config, precision))


def _groups(config: ModelConfig, precision: Precision) -> Iterator[Group]:
    hidden, middle = config.hidden_size, config.intermediate_size

    def matrix(name: str, sources: Sequence[str], rows: int, inputs: int, precision: Precision = precision) -> Group:
        words = ParamSpec(f"{name}.q_weight", (rows, inputs // per_word(precision)), "uint32")
        scales = ParamSpec(f"{name}.q_scale", (rows, inputs // GROUP), "float32")
        return Group(tuple(f"{source}.weight" for source in sources), (words, scales), precision)

    def vector(name: str, sources: Sequence[str], size: int) -> Group:
        return Group(tuple(sources), (ParamSpec(name, (size,), "float32"),))

    def norm(name: str, size: int) -> Group:
        return vector(f"{name}.weight", [f"{name}.weight"], size)

    yield matrix("model.embed_tokens", ["model.embed_tokens"], config.vocab_size, hidden, TABLE)
    for index in range(config.num_hidden_layers):
        layer = f"model.layers.{index}"
        attention, projections = f"{layer}.self_attn", [f"{layer}.self_attn.{each}_proj" for each in "qkv"]
        yield matrix(f"{attention}.{config.attention_name}", projections, config.qkv_size, hidden)
        if config.attention_bias:
            biases = [f"{each}.bias" for each in projections]
            yield vector(f"{attention}.{config.attention_name}.bias", biases, config.qkv_size)
        heads = config.num_attention_heads * config.head_dim
        yield matrix(f"{attention}.o_proj", [f"{attention}.o_proj"], hidden, heads)
        if config.head_norms:
            yield norm(f"{attention}.q_norm", config.head_dim)
            yield norm(f"{attention}.k_norm", config.head_dim)
        gate_up = [f"{layer}.mlp.gate_proj", f"{layer}.mlp.up_proj"]
        yield matrix(f"{layer}.mlp.gate_up_proj", gate_up, 2 * middle, hidden)
        yield matrix(f"{layer}.mlp.down_proj", [f"{layer}.mlp.down_proj"], hidden, middle)
        yield norm(f"{layer}.input_layernorm", hidden)
        yield norm(f"{layer}.post_attention_layernorm", hidden)
    yield norm("model.norm", hidden)
    if not config.tie_word_embeddings:
        yield matrix("lm_head", ["lm_head"], config.vocab_size, hidden, TABLE)
