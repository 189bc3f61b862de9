"""Attention over the pages of the cache, as the functions that TVM's cache object calls.

TVM calls `decode` when each sequence has one new row, else `ragged` for the new rows among themselves and `paged` for
what the cache held before, and `merge` to join the two. Each gives, beside its result, the logarithm to base 2 of its
sum of weights. Rotation and scaling inside these functions is never asked for: rows come rotated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from tvm import tirx
from tvm.script.ir_builder import tirx as T  # noqa: N812

from ondevice_mlc.kernels.function import APART, build, size, tensor
from ondevice_mlc.kernels.rotation import PAGE
from ondevice_mlc.kernels.simd import Expr, Register, Simd, add, each_row, exp2, fold, keep, load, splat, spread, store

# (keys 0 or values 1, head, position, column) -> the buffer and the indices
_Place: TypeAlias = Callable[[int, Expr, Expr, Expr], tuple[Expr, tuple[Expr, ...]]]
_Scores: TypeAlias = Callable[[Expr], tuple[Expr, tuple[Expr, ...]]]  # first position -> the buffer and the indices
_LOG2_E: Final = 1.4426950408889634
_NOTHING: Final = -5e4  # the logarithm of no weight at all, as TVM's own functions have it
_ROWS: Final = 4  # query rows of a tile
_WIDE: Final = 2  # vectors of positions of a tile


class Attention:
    """The functions for heads of one shape."""

    def __init__(self, queries: int, keys: int, width: int, simd: Simd) -> None:
        self._queries, self._keys, self._width = queries, keys, width
        self._shared = queries // keys  # query heads of a key head
        self._simd = simd
        self._lanes = min(simd.lanes, width & -width)
        self._positions = _WIDE * simd.lanes  # of a tile

    def decode(self) -> Expr:
        """One row of each sequence over its pages."""

        def body() -> None:
            batch = size("batch")
            q = tensor("q", (batch, self._queries, self._width), "float32")
            pages = self._pages()
            starts = tensor("page_starts", (batch + 1,), "int32", view=True)
            numbers = tensor("page_numbers", (size("page_count"),), "int32", view=True)
            filled = tensor("last_page", (batch,), "int32", view=True)
            tensor("k_offsets", (batch,), "int32", view=True)
            tensor("q_positions", (batch,), "int32", view=True)
            output = tensor("output", (batch, self._queries, self._width), "float32")
            weights = tensor("weights", (batch, self._queries), "float32")
            _, _, _, scale = self._settings(causal=False)
            with T.parallel(batch * self._queries) as task:
                row, head = T.Bind(task // self._queries), T.Bind(task % self._queries)
                first = keep(starts[row])
                count = keep(starts[row + 1] - first)
                length = keep(tirx.Select(count > 0, (count - 1) * PAGE + filled[row], tirx.const(0, "int32")))
                scores = T.alloc_buffer((T.Bind(tirx.Max(count, 1) * PAGE),), "float32")
                self._decode_scores(q, pages, numbers, scores, row, head, first, count, length, scale)
                total, largest = self._soften(lambda at: (scores, (at,)), count * PAGE)
                sums = [Register(self._lanes) for _ in range(0, self._width, self._lanes)]
                with T.serial(length) as position:
                    page = keep(numbers[first + position // PAGE])
                    weight = keep(scores[position])
                    for step, each in enumerate(sums):
                        at = (page, 1, head // self._shared, position % PAGE, step * self._lanes)
                        each.value = each.value + spread(weight, self._lanes) * load(pages, *at, lanes=self._lanes)
                self._finish(sums, total, largest, output, weights, row, head)

        return build("attention_decode", body)

    def paged(self) -> Expr:
        """Several rows of each sequence over its pages."""

        def body() -> None:
            rows, batch = size("rows"), size("batch")
            q = tensor("q", (rows, self._queries, self._width), "float32")
            q_starts = tensor("q_starts", (batch + 1,), "int32", view=True)
            pages = self._pages()
            starts = tensor("page_starts", (batch + 1,), "int32", view=True)
            numbers = tensor("page_numbers", (size("page_count"),), "int32", view=True)
            filled = tensor("last_page", (batch,), "int32", view=True)
            tensor("k_offsets", (batch,), "int32", view=True)
            tensor("q_positions", (rows,), "int32", view=True)
            output = tensor("output", (rows, self._queries, self._width), "float32")
            weights = tensor("weights", (rows, self._queries), "float32")
            causal, _, _, scale = self._settings(causal=True)
            with T.serial(batch) as sequence:
                first = keep(starts[sequence])
                count = keep(starts[sequence + 1] - first)
                length = keep(tirx.Select(count > 0, (count - 1) * PAGE + filled[sequence], tirx.const(0, "int32")))

                def place(kind: int, head: Expr, position: Expr, at: Expr) -> tuple[Expr, tuple[Expr, ...]]:
                    return pages, (numbers[first + position // PAGE], kind, head, position % PAGE, at)

                self._sequence(q, q_starts, sequence, place, length, output, weights, causal, scale)

        return build("attention_paged", body)

    def ragged(self) -> Expr:
        """Several rows of each sequence over the rows that came with them."""

        def body() -> None:
            rows, batch, others = size("rows"), size("batch"), size("others")
            q = tensor("q", (rows, self._queries, self._width), "float32")
            q_starts = tensor("q_starts", (batch + 1,), "int32", view=True)
            k = tensor("k", (others, self._keys, self._width), "float32")
            v = tensor("v", (others, self._keys, self._width), "float32")
            starts = tensor("k_starts", (batch + 1,), "int32", view=True)
            tensor("q_positions", (rows,), "int32", view=True)
            tensor("k_offsets", (batch,), "int32", view=True)
            output = tensor("output", (rows, self._queries, self._width), "float32")
            weights = tensor("weights", (rows, self._queries), "float32")
            causal, _, _, scale = self._settings(causal=True)
            with T.serial(batch) as sequence:
                first = keep(starts[sequence])
                length = keep(starts[sequence + 1] - first)

                def place(kind: int, head: Expr, position: Expr, at: Expr) -> tuple[Expr, tuple[Expr, ...]]:
                    return (k, v)[kind], (first + position, head, at)

                self._sequence(q, q_starts, sequence, place, length, output, weights, causal, scale)

        return build("attention_ragged", body)

    def merge(self) -> Expr:
        """Join two results over different positions into the first."""

        def body() -> None:
            rows = size("rows")
            output = tensor("output", (rows, self._queries, self._width), "float32")
            weights = tensor("weights", (rows, self._queries), "float32")
            other_output = tensor("other_output", (rows, self._queries, self._width), "float32")
            other_weights = tensor("other_weights", (rows, self._queries), "float32")

            def row(index: Expr) -> None:
                with T.serial(self._queries) as head:
                    mine, other = keep(weights[index, head]), keep(other_weights[index, head])
                    largest = keep(tirx.Max(mine, other))
                    mine, other = exp2(mine - largest), exp2(other - largest)
                    share = keep(other / (mine + other))
                    T.buffer_store(weights, largest + tirx.log2(mine + other), [index, head])
                    with T.serial(self._width // self._lanes) as step:
                        at = (index, head, step * self._lanes)
                        value = keep(load(output, *at, lanes=self._lanes))
                        change = load(other_output, *at, lanes=self._lanes) - value
                        store(output, value + change * spread(share, self._lanes), *at)

            each_row(rows, row, apart=APART)

        return build("attention_merge", body)

    def _pages(self) -> Expr:
        return tensor("pages", (size("pages_count"), 2, self._keys, PAGE, self._width), "float32", view=True)

    def _settings(self, *, causal: bool) -> tuple[Expr, Expr, Expr, Expr]:
        """The scalar parameters: whether causal, rotation, its base (both unused), the scale of scores."""
        masked = T.arg("causal", tirx.Var("causal", "int32")) if causal else None
        rotation = T.arg("rotary_mode", tirx.Var("rotary_mode", "int32"))
        T.arg("rope_scale", tirx.Var("rope_scale", "float32"))
        base = T.arg("rope_theta", tirx.Var("rope_theta", "float32"))
        return masked, rotation, base, T.arg("scale", tirx.Var("scale", "float32"))

    def _decode_scores(
        self, q: Expr, pages: Expr, numbers: Expr, scores: Expr, row: Expr, head: Expr,
        first: Expr, count: Expr, length: Expr, scale: Expr,
    ) -> None:  # fmt: skip
        """Products of one query row with the keys of all pages."""
        lanes = self._lanes
        factor = spread(scale * _LOG2_E, lanes)
        query = [keep(load(q, row, head, at, lanes=lanes) * factor) for at in range(0, self._width, lanes)]
        with T.serial(count) as index:
            page = keep(numbers[first + index])
            with T.serial(PAGE) as slot:
                at = (page, 0, head // self._shared, slot)
                total = query[0] * load(pages, *at, 0, lanes=lanes)
                for step, each in enumerate(query[1:], start=1):
                    total = total + each * load(pages, *at, step * lanes, lanes=lanes)
                value = fold(keep(total), add)
                position = index * PAGE + slot
                value = tirx.Select(position < length, value, tirx.const(_NOTHING, "float32"))
                T.buffer_store(scores, value, [position])

    def _sequence(
        self, q: Expr, q_starts: Expr, sequence: Expr, place: _Place, length: Expr,
        output: Expr, weights: Expr, causal: Expr, scale: Expr,
    ) -> None:  # fmt: skip
        """The rows of one sequence over its `length` positions, which `place` finds."""
        start = keep(q_starts[sequence])
        rows = keep(q_starts[sequence + 1] - start)
        span = self._positions
        tiles = keep((length + span - 1) // span)
        turned = T.alloc_buffer((self._keys, T.Bind(tirx.Max(tiles, 1)), self._width, span), "float32")
        with T.parallel(self._keys * tiles) as task:
            self._turn(turned, place, T.Bind(task // tiles), T.Bind(task % tiles), length)
        blocks = keep((rows + _ROWS - 1) // _ROWS)
        with T.parallel(self._queries * blocks) as task:
            head, block = T.Bind(task // blocks), T.Bind(task % blocks)
            lines = [keep(tirx.Min(block * _ROWS + line, rows - 1)) for line in range(_ROWS)]
            # positions that each row may see
            seen = [keep(tirx.Select(causal > 0, length - rows + line + 1, length)) for line in lines]
            near = keep((seen[-1] + span - 1) // span)
            scores = T.alloc_buffer((_ROWS, T.Bind(tirx.Max(near, 1) * span)), "float32")
            with T.serial(near) as tile:
                self._tile_scores(q, turned, scores, start, lines, seen, head, tile, scale)
            softened = [self._soften(_line(scores, line), near * span) for line in range(_ROWS)]
            self._weigh(place, scores, softened, start, lines, seen, head, block, rows, output, weights)

    def _turn(self, turned: Expr, place: _Place, head: Expr, tile: Expr, length: Expr) -> None:
        """Copy a tile of keys so that neighbours in memory are positions; beyond the end zeros."""
        span = self._positions
        with T.serial(span) as slot:
            position = keep(tile * span + slot)
            with T.If(position < length):
                with T.Then(), T.serial(self._width) as at:
                    buffer, index = place(0, head, position, at)
                    T.buffer_store(turned, buffer[index], [head, tile, at, slot])
                with T.Else(), T.serial(self._width) as at:
                    T.buffer_store(turned, tirx.const(0.0, "float32"), [head, tile, at, slot])

    def _tile_scores(
        self, q: Expr, turned: Expr, scores: Expr, start: Expr, lines: list[Expr], seen: list[Expr],
        head: Expr, tile: Expr, scale: Expr,
    ) -> None:  # fmt: skip
        """Products of a few query rows with a tile of keys."""
        lanes, span = self._simd.lanes, self._positions
        sums = [[Register(lanes) for _ in range(_WIDE)] for _ in lines]
        with T.serial(self._width) as at:
            keys = [
                keep(load(turned, head // self._shared, tile, at, part * lanes, lanes=lanes)) for part in range(_WIDE)
            ]
            for line, parts in zip(lines, sums, strict=True):
                query = keep(q[start + line, head, at])
                for key, total in zip(keys, parts, strict=True):
                    total.value = total.value + spread(query, lanes) * key
        for index, parts in enumerate(sums):
            for part, total in enumerate(parts):
                first = tile * span + part * lanes
                positions = tirx.Ramp(first, tirx.const(1, "int32"), lanes)
                hidden = splat(_NOTHING, lanes, "float32")
                value = total.value * spread(scale * _LOG2_E, lanes)
                value = tirx.Select(positions < spread(seen[index], lanes), value, hidden)
                store(scores, value, index, first)

    def _soften(self, where: _Scores, count: Expr) -> tuple[Expr, Expr]:
        """Turn scores into weights relative to the largest; give their sum, and the largest score."""
        lanes = self._simd.lanes
        largest = Register(lanes, start=_NOTHING)
        with T.serial(count // lanes) as step:
            buffer, index = where(step * lanes)
            largest.value = tirx.Max(largest.value, load(buffer, *index, lanes=lanes))
        peak = fold(largest.value, tirx.Max)
        total = Register(lanes)
        with T.serial(count // lanes) as step:
            buffer, index = where(step * lanes)
            weight = exp2(load(buffer, *index, lanes=lanes) - spread(peak, lanes))
            total.value = total.value + weight
            store(buffer, weight, *index)
        return fold(total.value, add), peak

    def _weigh(
        self, place: _Place, scores: Expr, softened: list[tuple[Expr, Expr]], start: Expr, lines: list[Expr],
        seen: list[Expr], head: Expr, block: Expr, rows: Expr, output: Expr, weights: Expr,
    ) -> None:  # fmt: skip
        """Weighted sums of the values for a few rows, as many columns at a time as registers hold."""
        lanes = self._lanes
        most = max(1, self._simd.registers // 2 // _ROWS) * lanes
        for begin in range(0, self._width, most):
            columns = range(begin, min(begin + most, self._width), lanes)
            sums = [[Register(lanes) for _ in columns] for _ in lines]
            with T.serial(seen[-1]) as position:
                values = []
                for column in columns:
                    buffer, index = place(1, head // self._shared, position, column)
                    values.append(keep(load(buffer, *index, lanes=lanes)))
                for line, parts in enumerate(sums):
                    weight = keep(scores[line, position])
                    for value, total in zip(values, parts, strict=True):
                        total.value = total.value + spread(weight, lanes) * value
            for line, parts in enumerate(sums):
                with T.If(block * _ROWS + line < rows), T.Then():
                    self._finish(parts, *softened[line], output, weights, start + lines[line], head, begin)

    def _finish(
        self, sums: list[Register], total: Expr, largest: Expr, output: Expr, weights: Expr, row: Expr, head: Expr,
        begin: int = 0,
    ) -> None:  # fmt: skip
        """Divide by the sum of the weights; a row that saw nothing becomes zeros."""
        some = total > 0.0
        inverse = keep(tirx.const(1.0, "float32") / tirx.Select(some, total, tirx.const(1.0, "float32")))
        for step, each in enumerate(sums):
            store(output, each.value * spread(inverse, self._lanes), row, head, begin + step * self._lanes)
        logarithm = largest + tirx.log2(tirx.Max(total, tirx.const(1e-30, "float32")))
        T.buffer_store(weights, tirx.Select(some, logarithm, tirx.const(_NOTHING, "float32")), [row, head])


def _line(scores: Expr, line: int) -> _Scores:
    """One row of a buffer of scores."""
    return lambda first: (scores, (line, first))
