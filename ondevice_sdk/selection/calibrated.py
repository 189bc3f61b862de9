"""Predictions of speed from what was measured on this very device.

A pass over a model costs the weights, each by its format: once read where there is one row, so that memory bounds it,
or multiplied with every row where there are many; a fixed time per layer and pass; attention, by the positions looked
at; and choosing from the vocabulary (the roofline model: Williams, Waterman, Patterson, CACM 52 (4), 2009).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ondevice_sdk.backends.calibration import (
    MANY_ROWS,
    NARROW_WIDTH,
    WIDTH,
    Calibration,
    FormatRates,
    entries,
    prompt_weights,
)
from ondevice_sdk.catalogue import layout
from ondevice_sdk.types import ModelShape

BATCH: Final = 512  # most rows of a pass over a prompt


@dataclass(frozen=True, slots=True)
class Work:
    """What a model makes a processor do: its shape, and how many weights there are in each format.

    The output matrix is used for tokens whose logits are wanted, the others for every token.
    """

    shape: ModelShape
    layers: Mapping[str, int]
    output: Mapping[str, int]


def work(shape: ModelShape, quantisation: str) -> Work:
    """The work of a model of this shape in this quantisation; one that is not known is taken as one format."""
    matrix = shape.vocabulary * shape.width
    if not layout.is_known(quantisation):
        return Work(shape, {quantisation: max(1, shape.parameters - matrix)}, {quantisation: matrix})
    layers: Counter[str] = Counter()
    tensors = {tensor.name: tensor for tensor in layout.tensors(shape, quantisation)}
    for name, tensor in tensors.items():
        if name.startswith("blk.") and tensor.rows > 1:
            layers[tensor.format] += tensor.values
    output = tensors.get("output.weight", tensors["token_embd.weight"])
    return Work(shape, dict(layers), {output.format: output.values})


def decode_s(calibration: Calibration, work: Work, position: int, sequences: int = 1) -> float | None:
    """Seconds of a pass that gives the next token of so many sequences; None if no format of it was measured."""
    layers = _weights_s(calibration, work, work.layers, sequences)
    output = _weights_s(calibration, work, work.output, sequences)
    if layers is None or output is None:
        return None
    shape = work.shape
    looked_at = sequences * position * shape.layers * shape.heads * shape.head_dim
    return (
        layers
        + output
        + calibration.pass_s
        + calibration.layer_s * shape.layers
        + calibration.vocabulary_s * shape.vocabulary * sequences
        + calibration.attention_decode_s * looked_at
    )


def prefill_s(calibration: Calibration, work: Work, tokens: int) -> float | None:
    """Seconds to process a prompt, and the logits of its last token; None if no format of it was measured."""
    tokens = max(1, tokens)
    layers = _weights_s(calibration, work, work.layers, min(tokens, BATCH))
    output = _weights_s(calibration, work, work.output, 1)
    if layers is None or output is None:
        return None
    shape, passes = work.shape, tokens / min(tokens, BATCH)
    computed = min(1.0, prompt_weights(shape) / sum(work.layers.values()))  # of the last layer not all
    looked_at = tokens * tokens / 2 * shape.layers * shape.heads * shape.head_dim
    return (
        layers * passes * computed
        + output
        + (calibration.pass_s + calibration.layer_s * shape.layers) * -(-tokens // BATCH)
        + calibration.row_s * entries(shape) * shape.layers * tokens
        + calibration.attention_prompt_s * looked_at
    )


def _weights_s(calibration: Calibration, work: Work, weights: Mapping[str, int], rows: int) -> float | None:
    """Seconds to multiply the matrices with so many rows."""
    total = 0.0
    for kind, values in weights.items():
        rates = _rates(calibration, kind, work.shape.width)
        if rates is None:
            return None
        decode, prompt = rates
        total += values * max(decode, rows * prompt * (calibration.few_rows if rows < MANY_ROWS else 1.0))
    return total


def _rates(calibration: Calibration, kind: str, width: int) -> tuple[float, float] | None:
    """Seconds per weight for one row, and for each of many; of the format next in size where it was not measured."""
    exact = calibration.rate(kind)
    if exact is not None:
        return _at(exact, width), exact.prompt_s
    if kind not in layout.BLOCKS:
        return None
    size = _bytes(kind)
    near = min(
        (each for each in calibration.rates if each.threads == calibration.threads and each.format in layout.BLOCKS),
        key=lambda each: abs(_bytes(each.format) - size),
        default=None,
    )
    return None if near is None else (_at(near, width) * size / _bytes(near.format), near.prompt_s)


def _at(rates: FormatRates, width: int) -> float:
    """Seconds per weight of one row, between what was measured in narrow matrices and in wide ones."""
    share = math.log(max(width, 1) / NARROW_WIDTH) / math.log(WIDTH / NARROW_WIDTH)
    return rates.narrow_s + (rates.decode_s - rates.narrow_s) * min(1.0, max(0.0, share))


def _bytes(kind: str) -> float:
    values, size = layout.BLOCKS[kind]
    return size / values
