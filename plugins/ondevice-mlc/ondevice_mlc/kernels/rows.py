"""Functions that read or pick rows: embedding, rows of logits, normalisation of heads."""

from __future__ import annotations

import functools

from tvm import tirx
from tvm.script.ir_builder import tirx as T  # noqa: N812

from ondevice_mlc.architecture.config import GROUP
from ondevice_mlc.kernels.activations import root_mean_square
from ondevice_mlc.kernels.function import APART, build, size, tensor
from ondevice_mlc.kernels.simd import Expr, Simd, cast, each_row, keep, load, splat, spread, store
from ondevice_mlc.quantisation import BITS, Precision, per_word, zero_point


@functools.cache
def embedding(vocabulary: int, width: int, precision: Precision) -> Expr:
    """`(tokens (n) int32, q_weight, q_scale) -> rows (n, width)` of the quantised table."""
    count, bits = per_word(precision), BITS[precision]

    def body() -> None:
        rows = size("rows")
        tokens = tensor("tokens", (rows,), "int32")
        weight = tensor("q_weight", (vocabulary, width // count), "uint32")
        scale = tensor("q_scale", (vocabulary, width // GROUP), "float32")
        result = tensor("result", (rows, width), "float32")
        shifts = tirx.Ramp(tirx.const(0, "uint32"), tirx.const(bits, "uint32"), count)

        def row(index: Expr) -> None:
            token = keep(tokens[index])
            with T.serial(width // GROUP) as group, T.serial(GROUP // count) as word:
                at = group * (GROUP // count) + word
                numbers = (spread(weight[token, at], count) >> shifts) & splat((1 << bits) - 1, count, "uint32")
                values = cast("float32", cast("int32", numbers)) - splat(zero_point(precision), count, "float32")
                store(result, values * spread(scale[token, group], count), index, at * count)

        each_row(rows, row, apart=APART)

    return build("embedding", body)


@functools.cache
def take(width: int, simd: Simd) -> Expr:
    """`(rows (n, width), positions (m) int32) -> (m, width)`."""

    def body() -> None:
        rows, count = size("rows"), size("count")
        values = tensor("values", (rows, width), "float32")
        positions = tensor("positions", (count,), "int32")
        result = tensor("result", (count, width), "float32")
        with T.serial(count) as index:
            position = keep(positions[index])
            _copy(values, position, result, index, width, simd)

    return build("take", body)


@functools.cache
def last(width: int, simd: Simd) -> Expr:
    """`(rows (n, width)) -> (1, width)`."""

    def body() -> None:
        rows = size("rows")
        values = tensor("values", (rows, width), "float32")
        result = tensor("result", (1, width), "float32")
        _copy(values, rows - 1, result, 0, width, simd)

    return build("last", body)


@functools.cache
def head_norms(queries: int, keys: int, width: int, epsilon: float, simd: Simd) -> Expr:
    """`(heads (n, queries + 2 * keys, width), weights (width) of queries and keys) -> the same shape`.

    Queries and keys are normalised, values stay as they are.
    """
    lanes = min(simd.lanes, width & -width)

    def body() -> None:
        rows = size("rows")
        heads = tensor("heads", (rows, queries + 2 * keys, width), "float32")
        query_weight = tensor("query_weight", (width,), "float32")
        key_weight = tensor("key_weight", (width,), "float32")
        result = tensor("result", (rows, queries + 2 * keys, width), "float32")

        def normalise(row: Expr, head: Expr, weight: Expr) -> None:
            def source(first: Expr, lanes: int) -> Expr:
                return load(heads, row, head, first, lanes=lanes)

            factor = keep(root_mean_square(source, width, epsilon, simd))
            with T.serial(width // lanes) as step:
                at = step * lanes
                value = source(at, lanes) * spread(factor, lanes) * load(weight, at, lanes=lanes)
                store(result, value, row, head, at)

        def one(row: Expr) -> None:
            with T.serial(queries) as head:
                normalise(row, head, query_weight)
            with T.serial(keys) as head:
                normalise(row, head + queries, key_weight)
            with T.serial(keys) as head, T.serial(width // lanes) as step:
                at = head + queries + keys
                store(result, load(heads, row, at, step * lanes, lanes=lanes), row, at, step * lanes)

        each_row(rows, one, apart=APART)

    return build("head_norms", body)


def _copy(source: Expr, row: Expr, target: Expr, to: Expr, width: int, simd: Simd) -> None:
    with T.serial(width // simd.lanes) as step:
        at = step * simd.lanes
        store(target, load(source, row, at, lanes=simd.lanes), to, at)
