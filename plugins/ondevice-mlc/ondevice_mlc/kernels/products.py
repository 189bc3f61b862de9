"""Products of quantised activations with quantised weights, without ever unpacking the weights to memory.

A tile is a few outputs times a few rows: the words of an output are unpacked once for the rows of the tile. Each
product is a sum over vectors of words in one fixed order, whatever the number of rows, so a row gives the same bits
alone and in a batch.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

from tvm.script.ir_builder import tirx as T  # noqa: N812

from ondevice_mlc.architecture.config import GROUP
from ondevice_mlc.kernels.activations import Record
from ondevice_mlc.kernels.function import build, size, tensor
from ondevice_mlc.kernels.simd import (
    Expr,
    Register,
    Simd,
    add,
    cast,
    fold,
    keep,
    lanes_of,
    load,
    reinterpret,
    splat,
    spread,
    stretch,
)
from ondevice_mlc.quantisation import Precision

# Outputs that a thread computes for all rows before it goes on: their weights stay in the first cache.
_BLOCK: Final = 16
# Tiles as (rows, outputs), by the number of vector registers: as much as they hold. Sums of all products and the
# records of all rows are in registers at a time. What is left of rows goes by the lower tiles.
_TILES: Final = {32: ((4, 2), (2, 4), (1, 8)), 16: ((2, 2), (1, 4))}


@dataclass(frozen=True, slots=True)
class Product:
    """`rows (n, inputs) x weights (outputs, inputs) [+ bias] [+ residual (n, outputs)]`, as `(n, outputs)` float32.

    Parameters of the function: records, q_weight, q_scale, [bias], [residual], result.
    """

    outputs: int
    inputs: int
    precision: Precision
    simd: Simd
    bias: bool = False
    residual: bool = False

    @functools.cache  # noqa: B019 - one per shape of a model, asked for once per layer
    def function(self) -> Expr:
        """The function."""
        extras = ("_bias" if self.bias else "") + ("_residual" if self.residual else "")
        name = f"product_{self.outputs}_{self.inputs}_{self.precision}{extras}"
        return build(name, lambda: _Body(self).write())


class _Body:
    def __init__(self, product: Product) -> None:
        self._product = product
        self._simd = product.simd
        self._record = record = Record(product.inputs, product.precision)
        rows, outputs = size("rows"), product.outputs
        self._rows = rows
        self._records = tensor("records", (rows, record.words), "int32")
        self._weight = tensor("q_weight", (outputs, record.weight_words), "uint32")
        self._scale = tensor("q_scale", (outputs, product.inputs // GROUP), "float32")
        self._bias = tensor("bias", (outputs,), "float32") if product.bias else None
        self._residual = tensor("residual", (rows, outputs), "float32") if product.residual else None
        self._result = tensor("result", (rows, outputs), "float32")

    def write(self) -> None:
        block = min(_BLOCK, self._product.outputs & -self._product.outputs)
        largest = _TILES[self._simd.registers][0][0]
        with T.parallel(self._product.outputs // block) as index:
            first = T.Bind(index * block)
            for rows, outputs in _TILES[self._simd.registers]:
                if rows == largest:
                    with T.serial(self._rows // rows) as tile:
                        self._line(tile * rows, rows, first, block, min(outputs, block))
                else:
                    with T.If(self._rows % (2 * rows) >= rows), T.Then():
                        self._line(self._rows - self._rows % (2 * rows), rows, first, block, min(outputs, block))

    def _line(self, row: Expr, rows: int, first: Expr, block: int, outputs: int) -> None:
        row = T.Bind(row)
        with T.serial(block // outputs) as part:
            self._tile(row, rows, T.Bind(first + part * outputs), outputs)

    def _tile(self, row: Expr, rows: int, output: Expr, outputs: int) -> None:
        words, lanes = self._record.weight_words, self._simd.lanes
        narrow = [each for each in (8, 4) if each < lanes and words % (2 * each) >= each]
        sums = {
            width: [[Register(width) for _ in range(rows)] for _ in range(outputs)]
            for width in ([lanes] if words >= lanes else []) + narrow
        }
        if words >= lanes:
            with T.serial(words // lanes) as step:
                self._step(T.Bind(step * lanes), row, output, sums[lanes])
        done = words // lanes * lanes
        for width in narrow:
            self._step(done, row, output, sums[width])
            done += width
        widest, *others = sums.values()
        for column in range(outputs):
            for line in range(rows):
                value = fold(widest[column][line].value, add, [each[column][line].value for each in others])
                self._put(value, row + line, output + column)

    def _step(self, word: Expr, row: Expr, output: Expr, sums: list[list[Register]]) -> None:
        """Add what a vector of words contributes to all products of the tile."""
        record, small = self._record, self._product.precision == "int4"
        lanes = lanes_of(sums[0][0].value)
        for column, line_sums in enumerate(sums):
            unpacked = self._unpack(output + column, word, lanes)
            scale = keep(self._scales(output + column, word, lanes))
            for line, total in enumerate(line_sums):
                at = row + line
                dot = load(self._records, at, record.sums + word, lanes=lanes)
                for part, weights in enumerate(unpacked):
                    numbers = load(self._records, at, part * record.weight_words + word, lanes=lanes)
                    dot = keep(self._simd.dot(dot, weights, numbers, small=small))
                bits = load(self._records, at, record.scales + word, lanes=lanes)
                scales = scale * reinterpret(f"float32x{lanes}", bits)
                total.value = total.value + cast("float32", dot) * scales

    def _unpack(self, output: Expr, word: Expr, lanes: int) -> list[Expr]:
        """The weights of a vector of words as bytes without sign."""
        packed = keep(load(self._weight, output, word, lanes=lanes))
        if self._product.precision == "int8":
            return [packed]
        mask = splat(0x0F0F0F0F, lanes, "uint32")
        return [keep(packed & mask), keep((packed >> splat(4, lanes, "uint32")) & mask)]

    def _scales(self, output: Expr, word: Expr, lanes: int) -> Expr:
        """The scale of each word of a vector."""
        words = self._record.group_words
        group, count = word // words, lanes // words
        if count <= 1:
            return spread(self._scale[output, group], lanes)
        return stretch(load(self._scale, output, group, lanes=count), words)

    def _put(self, value: Expr, row: Expr, output: Expr) -> None:
        if self._bias is not None:
            value = value + self._bias[output]
        if self._residual is not None:
            value = value + self._residual[row, output]
        T.buffer_store(self._result, value, [row, output])
