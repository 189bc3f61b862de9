"""The tensors of a model file, predicted from the shape: which matrices there are, and in which format each is stored.

The rules are those of llama.cpp's quantisation tool (`llama_tensor_get_type` in its llama-quant.cpp): a mixture such as
Q4_K_M stores some matrices more finely, and a matrix whose rows do not divide into blocks of 256 takes another format.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ondevice_sdk.types import ModelShape

# format -> (values of a block, bytes of a block)
BLOCKS: Final[dict[str, tuple[int, int]]] = {
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "Q8_0": (32, 34),
    "Q5_1": (32, 24),
    "Q5_0": (32, 22),
    "Q4_1": (32, 20),
    "Q4_0": (32, 18),
    "Q3_K": (256, 110),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
}
# ggml's number of a format, as files carry it
NUMBERS: Final[dict[int, str]] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K",
    14: "Q6_K", 30: "BF16",
}  # fmt: skip
# llama.cpp's number of a quantisation, as files carry it
FILE_TYPES: Final[dict[int, str]] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 14: "Q4_K_S", 15: "Q4_K_M", 17: "Q5_K_M",
    32: "BF16",
}  # fmt: skip
_MIXTURES: Final = {"Q4_K_M": "Q4_K", "Q4_K_S": "Q4_K", "Q5_K_M": "Q5_K"}
_NARROW: Final = {
    "Q3_K": "Q4_0",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}  # for rows that are no multiple of 256


@dataclass(frozen=True, slots=True)
class Tensor:
    """A matrix of `rows` rows, each as long as the input it multiplies; a vector has one row."""

    name: str
    columns: int
    rows: int
    format: str

    @property
    def values(self) -> int:
        """How many numbers it holds."""
        return self.columns * self.rows

    @property
    def size(self) -> int:
        """Bytes."""
        values, count = BLOCKS[self.format]
        return self.values // values * count


def is_known(quantisation: str) -> bool:
    """Whether `tensors` knows this name of a quantisation."""
    return _MIXTURES.get(quantisation, quantisation) in BLOCKS


def tied(shape: ModelShape) -> bool:
    """Whether the input embedding is the output matrix too, told from the number of parameters."""
    layers = sum(tensor.values for tensor in _layers(shape, "F32"))
    matrix = shape.vocabulary * shape.width
    return shape.parameters < layers + 1.5 * matrix


def tensors(shape: ModelShape, quantisation: str) -> tuple[Tensor, ...]:
    """The tensors of a Llama-like model in this quantisation.

    Raises:
        KeyError: the quantisation is not known (see `is_known`).
    """
    base = _MIXTURES.get(quantisation, quantisation)
    BLOCKS[base]  # unknown: KeyError, before anything is made
    plain = base in ("F32", "F16", "BF16", "Q8_0")
    output = base if plain else _fitting("Q6_K", shape.width)
    embedding = output if tied(shape) else _fitting(base, shape.width)
    made = [
        Tensor("token_embd.weight", shape.width, shape.vocabulary, embedding),
        *_layers(shape, quantisation),
        Tensor("output_norm.weight", shape.width, 1, "F32"),
    ]
    if not tied(shape):
        made.append(Tensor("output.weight", shape.width, shape.vocabulary, output))
    return tuple(made)


def _layers(shape: ModelShape, quantisation: str) -> Iterator[Tensor]:
    base = _MIXTURES.get(quantisation, quantisation)
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    for layer in range(shape.layers):
        finer = "Q6_K" if quantisation.endswith("_K_M") and _finer(layer, shape.layers) else base
        matrices = (
            ("attn_q", shape.width, queries, base),
            ("attn_k", shape.width, keys, base),
            ("attn_v", shape.width, keys, finer),
            ("attn_output", queries, shape.width, base),
            ("ffn_gate", shape.width, shape.feed_forward, base),
            ("ffn_up", shape.width, shape.feed_forward, base),
            ("ffn_down", shape.feed_forward, shape.width, finer),
        )
        yield Tensor(f"blk.{layer}.attn_norm.weight", shape.width, 1, "F32")
        for name, columns, rows, wanted in matrices:
            yield Tensor(f"blk.{layer}.{name}.weight", columns, rows, _fitting(wanted, columns))
        yield Tensor(f"blk.{layer}.ffn_norm.weight", shape.width, 1, "F32")


def _fitting(wanted: str, columns: int) -> str:
    return wanted if columns % BLOCKS[wanted][0] == 0 else _NARROW.get(wanted, "F16")


def _finer(layer: int, layers: int) -> bool:
    """The layers at both ends, and every third between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
