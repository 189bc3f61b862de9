"""TVM's paged cache of keys and values, with this package's attention functions in it."""

from __future__ import annotations

from typing import Any, Final

from tvm import relax
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn.llm import kv_cache as upstream

from ondevice_mlc.architecture.config import ModelConfig
from ondevice_mlc.kernels.attention import Attention
from ondevice_mlc.kernels.rotation import append, rotate
from ondevice_mlc.kernels.simd import Simd

_DTYPE: Final = "float32"  # of keys and values: that of q4f32_1
_HEADS_WITH_POSITIONS: Final = 1  # TVM's code for "keys are rotated before they go into the cache"


def create(config: ModelConfig, simd: Simd, sizes: list[Any]) -> upstream.PagedKVCache:
    """Emit the call that makes the cache object.

    Args:
        config: the model.
        simd: what the functions are written for.
        sizes: variables: most sequences, positions of all, rows of a pass, positions of a page, sliding window or not.

    The functions for sliding windows and token trees are left out; TVM refuses a cache that needs them.
    """
    heads, keys, width = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    builder = relax.BlockBuilder.current()
    attention = Attention(heads, keys, width, simd)

    def function(body: Any, name: str) -> Any:
        return builder.add_func(body, name)

    def method(body: Any, name: str) -> Any:
        return relax.Tuple([relax.StringImm("tirx"), function(body, name)])

    nothing = relax.Tuple([])
    arguments = [
        relax.ShapeExpr(sizes),
        relax.ShapeExpr([0, config.num_hidden_layers]),  # where the layers of the one stage begin and end
        relax.prim_value(heads),
        relax.prim_value(keys),
        relax.prim_value(width),
        relax.prim_value(width),
        relax.ShapeExpr([int(upstream.AttnKind.MHA)] * config.num_hidden_layers),
        relax.prim_value(False),  # caches of other processes
        relax.prim_value(_HEADS_WITH_POSITIONS),
        relax.prim_value(1),  # scale and base of the rotation: `rotate` has its own
        relax.prim_value(int(config.rope_theta)),
        relax.prim_value(0),  # no factors that depend on the length
        relax.const(0.0, _DTYPE),  # tells the type of keys and values
        function(append(keys, width, simd), "append"),
        nothing,
        method(attention.ragged(), "attention_ragged"),
        method(attention.paged(), "attention_paged"),
        method(attention.decode(), "attention_decode"),
        nothing,  # sliding windows
        nothing,
        nothing,  # token trees
        nothing,
        nothing,  # compressed caches
        relax.Tuple([function(attention.merge(), "attention_merge")]),
        function(rotate(heads, keys, width, config.rope_frequencies(), simd), "rotate"),
        function(upstream._copy_single_page_cpu(keys, sizes[3], width, _DTYPE), "copy_single_page"),
        function(upstream._kv_cache_debug_get_kv(config.num_hidden_layers, keys, width, _DTYPE), "get_kv"),
        function(upstream._compact_kv_copy_cpu(keys, width, _DTYPE), "compact_copy"),
    ]
    call = relax.call_pure_packed("vm.builtin.paged_attention_kv_cache_create", *arguments, ty_args=relax.AnyType())
    return upstream.PagedKVCache(_expr=call, _name="paged_kv_cache")


def attend(cache: upstream.PagedKVCache, layer: int, heads: nn.Tensor, queries: int) -> nn.Tensor:
    """Rotate, store and attend: `heads (n, queries + 2 * keys, width) -> (n, queries, width)`."""
    rows, _, width = heads.shape
    call = relax.call_dps_packed(
        "vm.builtin.attention_kv_cache_attention_with_fused_qkv",
        [
            cache._expr,
            relax.prim_value(layer),
            relax.prim_value(float(width) ** -0.5),
            heads._expr,
        ],
        out_ty=relax.TensorType((rows, queries, width), _DTYPE),
    )
    return nn.Tensor(_expr=relax.BlockBuilder.current().emit(call))
