"""The tensors of a GGUF file out of those of a folder: names, order of rows, and types; piece by piece."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from ondevice_sdk.errors import ModelCorrupt, ModelUnsupported
from ondevice_sdk.quantise.hugging_face.architecture import Architecture
from ondevice_sdk.quantise.hugging_face.safetensors import Stored
from ondevice_sdk.store.gguf_writer import BF16, F16, F32, Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

KINDS: Final = {"F32": F32, "F16": F16, "BF16": BF16}
_TYPES: Final = {"F32": "<u4", "F16": "<u2", "BF16": "<u2"}  # the bits of a number
_EXPONENTS: Final = {"F32": 0x7F80_0000, "F16": 0x7C00, "BF16": 0x7F80}  # all set: infinite, or no number
# Bytes read at a time: a 1B shape in BF16 (2.5 GB) took 4 s with 4 MB and 6 s with 16 MB, of 2 cores one.
_PIECE: Final = 1 << 22
_IGNORED: Final = "rotary_emb.inv_freq"  # a table that old folders carry, and which follows from the configuration


def plan(found: Mapping[str, Stored], shape: Architecture) -> list[Tensor]:
    """The tensors to write, in order.

    Raises:
        ModelCorrupt: one is missing, or of another shape than the configuration says. ModelUnsupported: one is unknown,
            or of a type that cannot be converted.
    """
    wanted = list(_wanted(shape))
    names = {source for source, *_ in wanted}
    for name in found:
        if name in names or name.endswith(_IGNORED) or (shape.tied and name == "lm_head.weight"):
            continue
        raise ModelUnsupported(f"the model has a tensor that is not known: {name[:80]!r}", architecture=shape.name)
    made = [_tensor(found, *each) for each in wanted]
    if shape.factors is not None:
        data = struct.pack(f"<{len(shape.factors)}f", *shape.factors)
        made.insert(1, Tensor("rope_freqs.weight", F32, (len(shape.factors),), lambda: [data]))
    return made


def _wanted(shape: Architecture) -> Iterator[tuple[str, str, tuple[int, ...], int]]:
    """Hugging Face's name, GGUF's, the shape (outputs first), and the rows of a head if they change places, else 0."""
    width, wide = shape.width, shape.feed_forward
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    swapped = shape.head_dim if shape.permuted else 0
    yield "model.embed_tokens.weight", "token_embd.weight", (shape.vocabulary, width), 0
    for layer in range(shape.layers):
        old, new = f"model.layers.{layer}.", f"blk.{layer}."
        yield f"{old}input_layernorm.weight", f"{new}attn_norm.weight", (width,), 0
        for word, name, rows, columns in (
            ("q", "attn_q", queries, width),
            ("k", "attn_k", keys, width),
            ("v", "attn_v", keys, width),
            ("o", "attn_output", width, queries),
        ):
            swap = swapped if word in "qk" else 0
            yield f"{old}self_attn.{word}_proj.weight", f"{new}{name}.weight", (rows, columns), swap
            if word in shape.attention_bias:
                yield f"{old}self_attn.{word}_proj.bias", f"{new}{name}.bias", (rows,), swap
        if shape.normed_heads:
            for word in "qk":
                yield f"{old}self_attn.{word}_norm.weight", f"{new}attn_{word}_norm.weight", (shape.head_dim,), 0
        yield f"{old}post_attention_layernorm.weight", f"{new}ffn_norm.weight", (width,), 0
        for word, rows, columns in (("gate", wide, width), ("up", wide, width), ("down", width, wide)):
            yield f"{old}mlp.{word}_proj.weight", f"{new}ffn_{word}.weight", (rows, columns), 0
            if shape.mlp_bias:
                yield f"{old}mlp.{word}_proj.bias", f"{new}ffn_{word}.bias", (rows,), 0
    yield "model.norm.weight", "output_norm.weight", (width,), 0
    if not shape.tied:
        yield "lm_head.weight", "output.weight", (shape.vocabulary, width), 0


def _tensor(found: Mapping[str, Stored], source: str, name: str, shape: tuple[int, ...], swapped: int) -> Tensor:
    stored = found.get(source)
    if stored is None:
        raise ModelCorrupt(f"the model lacks the tensor {source}", expected=source)
    if stored.shape != shape:
        raise ModelCorrupt(
            f"{source} is not of the shape that config.json says", expected=str(shape), actual=str(stored.shape)[:80]
        )
    if stored.form not in KINDS:
        raise ModelUnsupported(f"{source} is of the type {stored.form}; only {', '.join(KINDS)} can be converted")
    kind = KINDS[stored.form] if len(shape) > 1 else F32  # llama.cpp adds and scales with vectors in 32 bits only
    return Tensor(name, kind, tuple(reversed(shape)), lambda: _pieces(stored, source, kind, swapped))


def _pieces(stored: Stored, label: str, kind: int, swapped: int) -> Iterator[bytes]:
    """The bytes of a tensor, some rows at a time; with `swapped`, whole heads of so many rows."""
    import numpy as np

    rows, columns = stored.shape[0], stored.shape[1] if len(stored.shape) > 1 else 1
    width = columns * int(_TYPES[stored.form][-1])
    step = max(1, _PIECE // width)
    step = max(swapped, step - step % swapped) if swapped else step
    with stored.path.open("rb") as file:
        file.seek(stored.start)
        for start in range(0, rows, step):
            count = min(step, rows - start)
            data = file.read(count * width)
            if len(data) != count * width:
                raise ModelCorrupt(f"{stored.path.name} was cut while it was read")
            bits: NDArray[Any] = np.frombuffer(data, _TYPES[stored.form]).reshape(count, columns)
            if bool(((bits & _EXPONENTS[stored.form]) == _EXPONENTS[stored.form]).any()):
                raise ModelCorrupt(f"{label} holds values that are no numbers")
            if swapped:
                bits = bits.reshape(-1, 2, swapped // 2, columns).swapaxes(1, 2)
            yield (_widened(bits, stored.form) if kind == F32 else np.ascontiguousarray(bits)).tobytes()


def _widened(bits: NDArray[Any], form: str) -> NDArray[Any]:
    """Numbers of 16 bits in 32; every one of them is the same number then."""
    import numpy as np

    bits = np.ascontiguousarray(bits)
    if form == "F32":
        return bits
    if form == "F16":
        return bits.view("<f2").astype("<f4")
    return bits.astype("<u4") << 16
