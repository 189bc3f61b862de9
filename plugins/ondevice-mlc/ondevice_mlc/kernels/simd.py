"""Vector instructions: what a target has, and how tensor IR says it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from tvm import tirx
from tvm.script.ir_builder import tirx as T  # noqa: N812 - as everybody calls it

Expr: TypeAlias = Any  # TVM's expressions and buffers have no types
Level = Literal["avx512vnni", "avxvnni", "avx2", "generic"]
# Elements of 32 bits in the widest vectors of each level.
_LANES: Final[dict[Level, int]] = {"avx512vnni": 16, "avxvnni": 8, "avx2": 8, "generic": 4}


@dataclass(frozen=True, slots=True)
class Simd:
    """The instruction set that kernels are written for."""

    level: Level

    @property
    def lanes(self) -> int:
        """Elements of 32 bits in a vector."""
        return _LANES[self.level]

    @property
    def registers(self) -> int:
        """Vectors that the processor holds at a time."""
        return 32 if self.level in ("avx512vnni", "generic") else 16

    def dot(self, total: Expr, unsigned: Expr, signed: Expr, *, small: bool) -> Expr:
        """`total` plus, in each lane, the sum of the products of four bytes.

        Args:
            total: int32 lanes.
            unsigned: uint32 lanes, each four bytes without sign.
            signed: int32 lanes, each four bytes from -127 to 127.
            small: the unsigned bytes are at most 15.
        """
        lanes = lanes_of(total)
        if self.level in ("avx512vnni", "avxvnni"):
            name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
            return _intrinsic(total, name, total, _bytes(unsigned), _bytes(signed))
        if self.level == "avx2" and small:
            add = "llvm.x86.avx2.pmadd.ub.sw" if lanes == 8 else "llvm.x86.ssse3.pmadd.ub.sw.128"
            pairs = tirx.call_llvm_pure_intrin(f"int16x{2 * lanes}", add, _bytes(unsigned), _bytes(signed))
            return total + _pairs(total, pairs, tirx.Broadcast(tirx.const(1, "int16"), 2 * lanes))
        if self.level == "avx2":
            low = _shorts(unsigned & splat(0x00FF00FF, lanes, "uint32"))
            high = _shorts((unsigned >> splat(8, lanes, "uint32")) & splat(0x00FF00FF, lanes, "uint32"))
            both, eight = _shorts(signed), tirx.Broadcast(tirx.const(8, "int16"), 2 * lanes)
            return total + _pairs(total, low, (both << eight) >> eight) + _pairs(total, high, both >> eight)
        for index in range(4):
            byte = (unsigned >> splat(8 * index, lanes, "uint32")) & splat(255, lanes, "uint32")
            left = cast("int32", byte)
            right = (signed << splat(24 - 8 * index, lanes, "int32")) >> splat(24, lanes, "int32")
            total = total + left * right
        return total


def lanes_of(value: Expr) -> int:
    """Elements of a vector."""
    return int(str(value.ty.dtype).partition("x")[2] or 1)


def splat(value: float, lanes: int, dtype: str) -> Expr:
    """A vector of one constant; of one lane: the constant."""
    constant = tirx.const(value, dtype)
    return constant if lanes == 1 else tirx.Broadcast(constant, lanes)


def spread(value: Expr, lanes: int) -> Expr:
    """A vector of one value."""
    return tirx.Broadcast(value, lanes)


def constants(values: Sequence[float]) -> Expr:
    """A vector of float32 constants."""
    return tirx.Shuffle([tirx.FloatImm("float32", value) for value in values], _indices(range(len(values))))


def load(buffer: Expr, *indices: Expr, lanes: int) -> Expr:
    """`lanes` neighbours along the last dimension."""
    return tirx.BufferLoad(buffer, [*indices[:-1], tirx.Ramp(_wide(indices[-1]), tirx.const(1, "int64"), lanes)])


def store(buffer: Expr, value: Expr, *indices: Expr) -> None:
    """Write a vector along the last dimension."""
    ramp = tirx.Ramp(_wide(indices[-1]), tirx.const(1, "int64"), lanes_of(value))
    T.buffer_store(buffer, value, [*indices[:-1], ramp])


def pick(vectors: Sequence[Expr], indices: Sequence[int]) -> Expr:
    """Chosen elements of the vectors put after one another."""
    return tirx.Shuffle(list(vectors), _indices(indices))


def stretch(value: Expr, times: int) -> Expr:
    """Each element `times` times."""
    return pick([value] * times, [lane // times for lane in range(times * lanes_of(value))])


def reinterpret(dtype: str, value: Expr) -> Expr:
    """The same bits as another type."""
    return T.reinterpret(dtype, value)


def cast(dtype: str, value: Expr) -> Expr:
    """Convert each element to an element of `dtype`, which names the scalar type."""
    lanes = lanes_of(value)
    return tirx.Cast(f"{dtype}x{lanes}" if lanes > 1 else dtype, value)


def fold(value: Expr, combine: Callable[[Expr, Expr], Expr], extra: Sequence[Expr] = ()) -> Expr:
    """Combine all elements, halving the vector; `extra` are narrower vectors that join on the way."""
    waiting = {lanes_of(each): each for each in extra}
    while (lanes := lanes_of(value)) > 1:
        half = lanes // 2
        both = combine(pick([value], range(half)), pick([value], range(half, lanes)))
        value = keep(combine(both, waiting[half]) if half in waiting else both)
    return value


def add(left: Expr, right: Expr) -> Expr:
    """Their sum."""
    return left + right


def horner(value: Expr, coefficients: Sequence[float]) -> Expr:
    """A polynomial, the highest power first."""
    lanes = lanes_of(value)
    return functools.reduce(
        lambda total, each: total * value + splat(each, lanes, "float32"),
        coefficients[1:],
        splat(coefficients[0], lanes, "float32"),
    )


_LN2: Final = 0.6931471805599453
_EXP2: Final = tuple(_LN2**n / d for n, d in ((6, 720), (5, 120), (4, 24), (3, 6), (2, 2), (1, 1), (0, 1)))


def exp2(value: Expr) -> Expr:
    """Two to the power of each element, to 2 units in the last place; exponents are limited to +-126."""
    lanes = lanes_of(value)
    limited = tirx.Min(tirx.Max(value, splat(-126.0, lanes, "float32")), splat(126.0, lanes, "float32"))
    limited = keep(limited)
    whole = keep(tirx.nearbyint(limited))
    part = keep(limited - whole)
    power = (cast("int32", whole) + splat(127, lanes, "int32")) << splat(23, lanes, "int32")
    return keep(horner(part, _EXP2) * reinterpret(f"float32x{lanes}", power))


class Register:
    """A number or a vector that is written more than once."""

    def __init__(self, lanes: int, dtype: str = "float32", start: Expr = 0.0) -> None:
        self._lanes = lanes
        # TVM puts small buffers of this scope, "global", on the stack, where LLVM makes registers of them; those of
        # scope "local" it allocates by a call.
        self._buffer = T.alloc_buffer((lanes,), dtype)
        self.value = splat(start, lanes, dtype) if isinstance(start, int | float) else start

    @property
    def value(self) -> Expr:
        """What it holds at the statement that uses it."""
        return self._buffer[0] if self._lanes == 1 else load(self._buffer, 0, lanes=self._lanes)

    @value.setter
    def value(self, value: Expr) -> None:
        if self._lanes == 1:
            T.buffer_store(self._buffer, value, [0])
        else:
            store(self._buffer, value, 0)


def keep(value: Expr) -> Expr:
    """Compute the value here, once. TVM puts plain bindings of pure values back into the expressions that use them."""
    dtype, _, lanes = str(value.ty.dtype).partition("x")
    return Register(int(lanes or 1), dtype, value).value


def each_row(rows: Expr, body: Callable[[Expr], None], *, apart: int) -> None:
    """Run `body` for each row: in all threads if there are at least `apart` rows, else without the cost of that."""
    with T.If(rows >= apart):
        with T.Then(), T.parallel(rows) as row:
            body(row)
        with T.Else(), T.serial(rows) as row:
            body(row)


def _intrinsic(like: Expr, name: str, *arguments: Expr) -> Expr:
    return tirx.call_llvm_pure_intrin(like.ty.dtype, name, *arguments)


def _bytes(value: Expr) -> Expr:
    return reinterpret(f"int8x{4 * lanes_of(value)}", value)


def _shorts(value: Expr) -> Expr:
    return reinterpret(f"int16x{2 * lanes_of(value)}", value)


def _pairs(like: Expr, left: Expr, right: Expr) -> Expr:
    name = "llvm.x86.avx2.pmadd.wd" if lanes_of(like) == 8 else "llvm.x86.sse2.pmadd.wd"
    return _intrinsic(like, name, left, right)


def _indices(values: Sequence[int]) -> list[Expr]:
    return [tirx.const(value, "int32") for value in values]


def _wide(index: Expr) -> Expr:
    return tirx.const(index, "int64") if isinstance(index, int) else tirx.Cast("int64", index)
