"""LoRA adapters as GGUF files, read and checked in Python before native code sees them.

An adapter adds `alpha / rank * B @ A` to some matrices of a model. It names each pair after the matrix: `NAME.lora_a`
has `rank` rows as long as those of the matrix, `NAME.lora_b` as many rows as the matrix, each of `rank` numbers.
Source of the layout: convert_lora_to_gguf.py of https://github.com/ggml-org/llama.cpp. What its native code takes for
granted is asked for here: it ends the process where a number is of another type, or two shapes do not fit.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ondevice_sdk.catalogue import gguf
from ondevice_sdk.catalogue.gguf import GgufFile, GgufTensor
from ondevice_sdk.errors import ModelCorrupt, ModelUnsupported

FORMAT: Final = "gguf-lora"  # of an adapter in the store
VARIANT: Final = "lora"
_ALPHA: Final = "adapter.lora.alpha"
_INVOKED: Final = "adapter.alora.invocation_tokens"
_FLOAT32: Final = 6  # of metadata
F32, F16, Q8_0, BF16 = 0, 1, 8, 30
_KINDS: Final = frozenset({F32, F16, Q8_0, BF16})  # what the converter writes
_VOCABULARY: Final = "token_embd.weight"
_OUTPUT: Final = "output.weight"


@dataclass(frozen=True, slots=True)
class Pair:
    """What is added to a matrix of the model; sizes with the length of a row first."""

    a: tuple[int, ...]
    b: tuple[int, ...]

    @property
    def rank(self) -> int:
        """Of the change."""
        return self.b[0]


@dataclass(frozen=True, slots=True)
class LoraFile:
    """An adapter that is consistent in itself. `alpha` is None where the change is taken as it is."""

    architecture: str
    alpha: float | None
    pairs: Mapping[str, Pair]  # by the names of matrices
    tensors: tuple[GgufTensor, ...]

    @property
    def rank(self) -> int:
        """The largest."""
        return max(pair.rank for pair in self.pairs.values())


@dataclass(frozen=True, slots=True)
class Base:
    """What an adapter is checked against: the tensors of a model, by name, with the length of a row first."""

    architecture: str
    sizes: Mapping[str, tuple[int, ...]]


def is_adapter(header: gguf.GgufHeader) -> bool:
    """Whether a file says that it changes a model and is none."""
    return header.type == "adapter"


def read(path: Path | str) -> LoraFile:
    """Read the head of an adapter.

    Raises:
        ModelCorrupt: it is not whole, or one that no honest tool writes.
        ModelUnsupported: an adapter of another kind.
        OSError: it cannot be read.
    """
    file, name = gguf.read_file(path), Path(path).name
    if not is_adapter(file.header) or file.metadata.get("adapter.type") != "lora":
        raise ModelUnsupported(f"{name} is no LoRA adapter", architecture=file.header.architecture)
    if _INVOKED in file.metadata:
        message = f"{name} is an adapter that begins in the middle of a prompt, which is not supported"
        raise ModelUnsupported(message, architecture=file.header.architecture)
    pairs = _pairs(file, name)
    return LoraFile(file.header.architecture, _alpha(file, name), pairs, file.tensors)


def read_base(paths: Sequence[str]) -> Base:
    """The tensors of a model, in one file or several; errors as `gguf.read_file`."""
    files = [gguf.read_file(path) for path in paths]
    return Base(files[0].header.architecture, {name: sizes for file in files for name, sizes in file.sizes.items()})


def misfit(adapter: LoraFile, base: Base) -> str | None:
    """Why an adapter cannot be used with a model, in words that follow "the adapter"; None: it can."""
    if adapter.architecture != base.architecture:
        return f"is for models of the architecture {adapter.architecture}, and this one is {base.architecture}"
    for name, pair in adapter.pairs.items():
        sizes = base.sizes.get(name)
        if sizes is None:
            return f"was made for another model: it changes {name!r}, which this one has not"
        if len(sizes) != 2 or (name != _VOCABULARY and name.endswith(_VOCABULARY)):  # which llama.cpp takes for it
            return f"changes {name!r}, which is no plain matrix of this model"
        columns, rows = sizes
        if name == _VOCABULARY:
            if _OUTPUT not in base.sizes:
                return "changes the vocabulary matrix, which this model also writes with"
            given, wanted = (pair.a[1], pair.b[1]), (rows, columns)  # A is looked up by token: the two are swapped
        else:
            given, wanted = (pair.a[0], pair.b[1]), (columns, rows)
        if given != wanted:
            return f"was made for another model: its {name!r} is {given[0]} x {given[1]}, not {wanted[0]} x {wanted[1]}"
    return None


def _pairs(file: GgufFile, name: str) -> dict[str, Pair]:
    halves: dict[str, dict[str, tuple[int, ...]]] = {}
    for tensor in file.tensors:
        matrix, dot, half = tensor.name.rpartition(".")
        if not dot or half not in ("lora_a", "lora_b"):
            message = f"{name} changes {tensor.name!r} as a whole, which is not supported"
            raise ModelUnsupported(message, architecture=file.header.architecture)
        if tensor.kind not in _KINDS:
            raise ModelUnsupported(f"{name} has numbers of an unusual type", architecture=file.header.architecture)
        sizes = (*file.sizes[tensor.name], 1)[: max(2, len(file.sizes[tensor.name]))]  # without the ones at the end
        halves.setdefault(matrix, {})[half] = sizes
    pairs = {matrix: _pair(each, name) for matrix, each in halves.items()}
    for matrix, pair in pairs.items():
        a, b = pair.a, pair.b
        if len(a) != 2 or len(b) != 2:
            message = f"{name} changes experts, which is not supported"
            raise ModelUnsupported(message, architecture=file.header.architecture)
        if (a[0] if matrix == _VOCABULARY else a[1]) != b[0]:
            raise ModelCorrupt(f"the two halves of {matrix!r} in {name} have different ranks")
    if not pairs:
        raise ModelCorrupt(f"{name} changes nothing")
    return pairs


def _pair(halves: Mapping[str, tuple[int, ...]], name: str) -> Pair:
    if len(halves) != 2:
        raise ModelCorrupt(f"a change in {name} is missing its other half")
    return Pair(halves["lora_a"], halves["lora_b"])


def _alpha(file: GgufFile, name: str) -> float | None:
    if _ALPHA not in file.metadata:
        return None
    value = file.metadata[_ALPHA]
    (kind,) = struct.unpack_from("<I", file.pairs, file.places[_ALPHA] - 4)
    if kind != _FLOAT32 or not isinstance(value, float) or not math.isfinite(value) or value <= 0:
        raise ModelCorrupt(f"the strength of {name} ({_ALPHA}) is no positive number")
    return value
