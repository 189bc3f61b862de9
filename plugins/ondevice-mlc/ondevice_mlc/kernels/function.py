"""How a function of the library is begun and finished."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T  # noqa: N812

from ondevice_mlc.kernels.simd import Expr

# From how many rows on all threads take part in work of about a microsecond per row, as waking them takes a few. Not
# tuned.
APART: Final = 4


def tensor(name: str, shape: tuple[Expr | int, ...], dtype: str, *, view: bool = False) -> Expr:
    """A parameter of the function. `view`: it may begin anywhere in a larger tensor."""
    handle = T.arg(name, T.handle())
    offset = tirx.Var(f"{name}_offset", "int64") if view else None
    return T.match_buffer(handle, shape, dtype, elem_offset=offset)


def size(name: str) -> Expr:
    """A size that is known at run time."""
    return tirx.Var(name, "int64")


def build(name: str, body: Callable[[], None]) -> Expr:
    """The function whose parameters and statements `body` gives."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(name)
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        body()
    return builder.get()
