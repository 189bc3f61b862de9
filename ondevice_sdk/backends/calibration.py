"""How a backend is measured on a processor, so that the speed of any model can be told before it is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ondevice_sdk.types import ModelShape

WIDTH: Final = 2048
NARROW_WIDTH: Final = 512
MANY_ROWS: Final = 64  # from so many on, a pass uses kernels for many


@dataclass(frozen=True, slots=True)
class Calibrator:
    """How to make models of any shape for a backend to be measured with, and what is measured.

    `writer` is a function, as "module:function", that is called in a worker as `writer(path, shape, format)` and makes
    a model file with random weights in that format, with a vocabulary that splits a text into its bytes.
    """

    writer: str
    model_format: str  # of the files it makes, one of those that the backend reads
    formats: tuple[str, ...]  # of weights, the most important first
    library: str  # "llama.cpp 0.3.36": a new version is measured anew


@dataclass(frozen=True, slots=True)
class FormatRates:
    """Seconds per weight of a matrix in one format, with a number of threads.

    `decode_s` is for multiplying it with one row, where reading it from memory counts, in matrices as wide as `WIDTH`;
    `narrow_s` the same in those of `NARROW_WIDTH`, which are read less well; `prompt_s` for each row of many, where
    only the arithmetic counts.
    """

    format: str
    threads: int
    decode_s: float
    narrow_s: float
    prompt_s: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Seconds that this processor takes with one library, measured; everything in seconds.

    `pass_s` is for each forward pass whatever the model, `layer_s` for each of its layers, `vocabulary_s` for each
    entry of the vocabulary at each token that is chosen; `row_s` for each row of a prompt and layer, per entry of the
    vectors that are normalised, rotated, gated and added there; `attention_*_s` for each position that is looked
    at, per layer and dimension of all heads together. `few_rows` is by how much a row
    costs more in passes of fewer than `MANY_ROWS`. `disturbance` is by how much the usual step took longer than the
    undisturbed ones, which the figures are of: well over 1 where other programs ran meanwhile.
    """

    library: str
    threads: int
    rates: tuple[FormatRates, ...]
    pass_s: float
    layer_s: float
    row_s: float
    vocabulary_s: float
    attention_decode_s: float
    attention_prompt_s: float
    few_rows: float
    disturbance: float
    took_s: float = 0.0

    def rate(self, kind: str) -> FormatRates | None:
        """The rates of a format, with the number of threads that models run with."""
        return next((each for each in self.rates if each.format == kind and each.threads == self.threads), None)


def entries(shape: ModelShape) -> int:
    """About how many numbers a layer computes for a row besides its products: norms, sums, rotation, gate."""
    return 8 * shape.width + 3 * shape.feed_forward


def prompt_weights(shape: ModelShape) -> float:
    """Weights of the layers that each row of a prompt is multiplied with.

    Of the last layer these are only the projections whose results later tokens look at: runtimes compute the rest of it
    for the last token alone.
    """
    keys = 2 * shape.width * shape.kv_heads * shape.head_dim
    queries = 2 * shape.width * shape.heads * shape.head_dim
    layer = keys + queries + 3 * shape.width * shape.feed_forward
    return (shape.layers - 1) * layer + keys + queries / 2
