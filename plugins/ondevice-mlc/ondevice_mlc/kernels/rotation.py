"""Rotary position embedding, and the rows of keys and values that go into the pages of the cache."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from tvm import tirx
from tvm.script.ir_builder import tirx as T  # noqa: N812

from ondevice_mlc.kernels.function import APART, build, size, tensor
from ondevice_mlc.kernels.simd import Expr, Simd, cast, constants, each_row, horner, keep, load, splat, spread, store

PAGE: Final = 16  # positions of a page of the cache; fixed by TVM's own functions for copying pages

# A quarter turn in three parts. The first two have so few bits that their products with the turns of any context below
# 2**15 positions are exact, so angles are reduced without loss.
_QUARTER: Final = math.pi / 2
_FIRST: Final = round(_QUARTER * 2**7) / 2**7
_SECOND: Final = round((_QUARTER - _FIRST) * 2**18) / 2**18
_THIRD: Final = _QUARTER - _FIRST - _SECOND
_SINE: Final = tuple((-1) ** n / math.factorial(2 * n + 1) for n in (4, 3, 2, 1, 0))
_COSINE: Final = tuple((-1) ** n / math.factorial(2 * n) for n in (5, 4, 3, 2, 1, 0))


def rotate(queries: int, keys: int, width: int, frequencies: Sequence[float], simd: Simd) -> Expr:
    """Split heads into queries, keys and values, and turn pairs (i, i + width / 2) of the first two by their position.

    The function that TVM's cache calls: `(heads (n, queries + 2 * keys, width), positions (n), q, k, v, turn)`.
    """
    half = width // 2
    lanes = min(simd.lanes, half & -half)

    def body() -> None:
        rows = size("rows")
        heads = tensor("heads", (rows, queries + 2 * keys, width), "float32")
        positions = tensor("positions", (rows,), "int32", view=True)
        q = tensor("q", (rows, queries, width), "float32")
        k = tensor("k", (rows, keys, width), "float32")
        v = tensor("v", (rows, keys, width), "float32")
        turn = T.arg("turn", tirx.Var("turn", "int64"))

        def row(index: Expr) -> None:
            position = keep(tirx.Select(turn > 0, cast("float32", positions[index]), tirx.const(0.0, "float32")))
            for step in range(0, half, lanes):
                angle = spread(position, lanes) * constants(frequencies[step : step + lanes])
                sine, cosine = _turn(keep(angle))
                for target, first, count in ((q, 0, queries), (k, queries, keys)):
                    with T.serial(count) as head:
                        low = load(heads, index, head + first, step, lanes=lanes)
                        high = load(heads, index, head + first, step + half, lanes=lanes)
                        store(target, low * cosine - high * sine, index, head, step)
                        store(target, high * cosine + low * sine, index, head, step + half)
            with T.serial(keys) as head, T.serial(width // lanes) as step:
                value = load(heads, index, head + queries + keys, step * lanes, lanes=lanes)
                store(v, value, index, head, step * lanes)

        each_row(rows, row, apart=APART)

    return build("rotate", body)


def append(keys: int, width: int, simd: Simd) -> Expr:
    """Write rows of keys and values to their places in the pages; a place of -1 means none.

    The function that TVM's cache calls: `(pages (p, 2, keys, PAGE, width), k (n, keys, width), v, places (n))`.
    """
    lanes = min(simd.lanes, width & -width)

    def body() -> None:
        rows = size("rows")
        pages = tensor("pages", (size("pages_count"), 2, keys, PAGE, width), "float32", view=True)
        k = tensor("k", (rows, keys, width), "float32")
        v = tensor("v", (rows, keys, width), "float32")
        places = tensor("places", (rows,), "int32", view=True)
        with T.serial(rows) as row:
            place = keep(places[row])
            with T.If(place >= 0), T.Then(), T.serial(keys) as head, T.serial(width // lanes) as step:
                for kind, source in enumerate((k, v)):
                    value = load(source, row, head, step * lanes, lanes=lanes)
                    store(pages, value, place // PAGE, kind, head, place % PAGE, step * lanes)

    return build("append", body)


def _turn(angle: Expr) -> tuple[Expr, Expr]:
    """Sine and cosine."""
    lanes = int(str(angle.ty.dtype).partition("x")[2] or 1)

    def number(value: float) -> Expr:
        return splat(value, lanes, "float32")

    turns = keep(tirx.nearbyint(angle * number(1 / _QUARTER)))
    rest = keep(((angle - turns * number(_FIRST)) - turns * number(_SECOND)) - turns * number(_THIRD))
    square = keep(rest * rest)
    sine, cosine = keep(rest * horner(square, _SINE)), keep(horner(square, _COSINE))
    quarter = keep(cast("int32", turns))
    one, two = splat(1, lanes, "int32"), splat(2, lanes, "int32")
    odd = tirx.EQ(quarter & one, one)
    zero = number(0.0)

    def signed(value: Expr, bits: Expr) -> Expr:
        return keep(tirx.Select(tirx.EQ(bits & two, two), zero - value, value))

    first = signed(tirx.Select(odd, cosine, sine), quarter)
    second = signed(tirx.Select(odd, sine, cosine), quarter + one)
    return first, second
