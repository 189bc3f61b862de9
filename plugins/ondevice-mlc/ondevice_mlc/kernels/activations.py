"""Activations rounded to 8 bits, in the layout that the products with weights read.

Each 32 inputs of a row share a scale, as in the weights, so that one large value spoils only its own group. A row is a
record of 32-bit words, in three parts:

* the numbers from -127 to 127, four in a word. For 4-bit weights those of even inputs come first, then those of odd
  ones: that is how the lower and the upper halves of the bytes of a weight word unpack;
* for each word of weights, minus the zero point of the weights times the sum of the word's numbers;
* for each word of weights, the scale, as the bits of a float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tvm import tirx
from tvm.script.ir_builder import tirx as T  # noqa: N812

from ondevice_mlc.architecture.config import GROUP
from ondevice_mlc.kernels.function import APART, build, size, tensor
from ondevice_mlc.kernels.simd import (
    Expr,
    Register,
    Simd,
    add,
    cast,
    each_row,
    exp2,
    fold,
    keep,
    load,
    pick,
    reinterpret,
    splat,
    spread,
    store,
)
from ondevice_mlc.quantisation import Precision, per_word, zero_point

_LOG2_E: Final = 1.4426950408889634
_LEVELS: Final = 127.0
_SMALLEST: Final = 1e-30  # groups whose largest value is below it become zeros; its inverse is finite

Source = Callable[[Expr, int], Expr]  # (first input, lanes) -> float32 lanes


@dataclass(frozen=True, slots=True)
class Record:
    """The layout of a row of activations for weights of a precision."""

    inputs: int
    precision: Precision

    @property
    def weight_words(self) -> int:
        """Words of weights of one output."""
        return self.inputs // per_word(self.precision)

    @property
    def group_words(self) -> int:
        """Words of weights that share a scale."""
        return GROUP // per_word(self.precision)

    @property
    def parts(self) -> int:
        """Vectors of numbers that belong to one vector of weight words."""
        return per_word(self.precision) // 4

    @property
    def sums(self) -> int:
        """Where the sums begin."""
        return self.inputs // 4

    @property
    def scales(self) -> int:
        """Where the scales begin."""
        return self.sums + self.weight_words

    @property
    def words(self) -> int:
        """Length of the record."""
        return self.scales + self.weight_words


@functools.cache
def quantise(inputs: int, precision: Precision, simd: Simd) -> Expr:
    """`(rows (n, inputs)) -> records (n, words)`."""

    def body() -> None:
        rows = size("rows")
        values = tensor("values", (rows, inputs), "float32")
        record = Record(inputs, precision)
        records = tensor("records", (rows, record.words), "int32")

        def row(index: Expr) -> None:
            _write(records, index, record, simd, lambda first, lanes: load(values, index, first, lanes=lanes))

        each_row(rows, row, apart=APART)

    return build(f"quantise_{inputs}_{precision}", body)


@functools.cache
def norm_quantise(inputs: int, epsilon: float, precision: Precision, simd: Simd) -> Expr:
    """`(rows (n, inputs), weight (inputs)) -> records (n, words)` of the rows normalised by their root mean square."""

    def body() -> None:
        rows = size("rows")
        values = tensor("values", (rows, inputs), "float32")
        weight = tensor("weight", (inputs,), "float32")
        record = Record(inputs, precision)
        records = tensor("records", (rows, record.words), "int32")

        def row(index: Expr) -> None:
            def plain(first: Expr, lanes: int) -> Expr:
                return load(values, index, first, lanes=lanes)

            def source(first: Expr, lanes: int) -> Expr:
                return plain(first, lanes) * spread(scale, lanes) * load(weight, first, lanes=lanes)

            scale = keep(root_mean_square(plain, inputs, epsilon, simd))
            _write(records, index, record, simd, source)

        each_row(rows, row, apart=APART)

    return build(f"norm_quantise_{inputs}_{precision}", body)


@functools.cache
def silu_quantise(inputs: int, precision: Precision, simd: Simd) -> Expr:
    """`(gate and up (n, 2 * inputs)) -> records (n, words)` of silu(gate) * up."""

    def body() -> None:
        rows = size("rows")
        values = tensor("values", (rows, 2 * inputs), "float32")
        record = Record(inputs, precision)
        records = tensor("records", (rows, record.words), "int32")

        def row(index: Expr) -> None:
            def source(first: Expr, lanes: int) -> Expr:
                gate = keep(load(values, index, first, lanes=lanes))
                power = exp2(gate * splat(-_LOG2_E, lanes, "float32"))
                return gate / (splat(1.0, lanes, "float32") + power) * load(values, index, first + inputs, lanes=lanes)

            _write(records, index, record, simd, source)

        each_row(rows, row, apart=APART)

    return build(f"silu_quantise_{inputs}_{precision}", body)


def root_mean_square(source: Source, inputs: int, epsilon: float, simd: Simd) -> Expr:
    """One divided by the root of the mean square of `inputs` values."""
    lanes = min(simd.lanes, inputs & -inputs)
    total = Register(lanes)
    with T.serial(inputs // lanes) as step:
        value = keep(source(step * lanes, lanes))
        total.value = total.value + value * value
    return tirx.const(1.0, "float32") / tirx.sqrt(fold(total.value, add) / float(inputs) + epsilon)


def _write(records: Expr, row: Expr, record: Record, simd: Simd, source: Source) -> None:
    """Write the record of one row."""
    lanes, zero = simd.lanes, zero_point(record.precision)
    with T.serial(record.inputs // GROUP) as group:
        values = [keep(source(group * GROUP + first, lanes)) for first in range(0, GROUP, lanes)]
        largest = tirx.abs(values[0])
        for value in values[1:]:
            largest = tirx.Max(largest, tirx.abs(value))
        peak = fold(keep(largest), tirx.Max)
        inverse = keep(_LEVELS / tirx.Max(peak, tirx.const(_SMALLEST, "float32")))
        numbers = [
            keep(cast("int8", cast("int32", tirx.nearbyint(value * spread(inverse, lanes))))) for value in values
        ]
        words, parts = record.group_words, record.parts
        ordered = [keep(pick(numbers, range(part, GROUP, parts))) for part in range(parts)]
        total = splat(0, words, "int32")
        for part, each in enumerate(ordered):
            packed = keep(reinterpret(f"int32x{words}", each))
            store(records, packed, row, part * record.weight_words + group * words)
            zeros = splat(zero * 0x01010101, words, "uint32")
            total = keep(simd.dot(total, zeros, packed, small=zero < 16))
        store(records, splat(0, words, "int32") - total, row, record.sums + group * words)
        scale = spread(reinterpret("int32", peak / _LEVELS), words)
        store(records, scale, row, record.scales + group * words)
