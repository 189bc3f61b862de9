"""LoRA adapters as GGUF files: of any matrices, with the numbers that a test wants."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondevice_sdk.catalogue import lora

from ..fuzzing.tiny_model import FLOAT32, STRING, Gguf, Pair, Tensor, text, tiny

Matrix = NDArray[np.floating[Any]]
Change = tuple[Matrix, Matrix]  # A of shape (rank, columns), B of shape (rows, rank)


def adapter(changes: Mapping[str, Change], *, alpha: float | None = None, architecture: str = "llama") -> Gguf:
    """An adapter that adds `alpha / rank * B @ A` to matrices, or `B @ A` without `alpha`."""
    pairs = [
        Pair("general.type", STRING, text("adapter")),
        Pair("general.architecture", STRING, text(architecture)),
        Pair("adapter.type", STRING, text("lora")),
    ]
    if alpha is not None:
        pairs.append(Pair("adapter.lora.alpha", FLOAT32, struct.pack("<f", alpha)))
    tensors = [
        Tensor(f"{name}.{half}", [values.shape[1], values.shape[0]], lora.F32, values.astype("<f4").tobytes())
        for name, change in changes.items()
        for half, values in zip(("lora_a", "lora_b"), change, strict=True)
    ]
    made = Gguf(pairs, tensors)
    made.lay_out()
    return made


def tiny_base() -> Gguf:
    """The tiny model in F32, with weights of such sizes that what goes in decides what comes out."""
    source = np.random.default_rng(7)
    made = tiny(weights=lora.F32)
    for tensor in made.tensors:
        if len(tensor.sizes) == 2:
            scale = 0.1 if tensor.name == "token_embd.weight" else tensor.sizes[0] ** -0.5  # else it repeats itself
            tensor.data = source.normal(0, scale, tensor.sizes[::-1]).astype("<f4").tobytes()
    return made


def random_changes(base: str | Path, *words: str, rank: int = 4, size: float = 1.0, seed: int = 0) -> dict[str, Change]:
    """Random changes of the matrices of a model whose names have one of the words; all of them without words.

    Args:
        base: the model's file.
        words: such as "ffn_down", or "blk.3.".
        rank: of each change.
        size: of what a change adds to a product, against an input of size one.
        seed: another one gives another adapter.
    """
    source = np.random.default_rng(seed)
    changes = {}
    for name, sizes in lora.read_base([str(base)]).sizes.items():
        if len(sizes) == 2 and name != "token_embd.weight" and (not words or any(word in name for word in words)):
            columns, rows = sizes
            a = source.normal(0, columns**-0.5, (rank, columns)).astype(np.float32)
            b = source.normal(0, size * rank**-0.5, (rows, rank)).astype(np.float32)
            changes[name] = (a, b)
    return changes


def write(path: Path, content: Gguf) -> Path:
    """Write it."""
    path.write_bytes(content.encode())
    return path
