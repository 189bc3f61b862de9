"""How a backend writes a model anew in fewer bits, and finds out which of its weights matter most for that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Compressor:
    """How to quantise a model with a backend's own library.

    Both functions are generator functions, as "module:function", that are called in a sealed worker by keyword and
    yield the share that is done, in whole percents. Errors of `ondevice_sdk.errors` that they raise reach the caller.

    `writer(source=, target=, quantisation=, importance=, threads=)`: paths of a model and of what is made of it; any
    quantisation that the library knows, of which those that are no compression (F32, F16, BF16) are names too; the path
    of an importance matrix, or None. The file has the same size with it and without.

    `importance(source=, target=, text=, tokens=, window=, threads=)`: reads at most so many tokens of the text with the
    model, in windows that know nothing of each other, and writes to `target` how strongly each input of each matrix is
    driven.
    """

    model_format: str  # of the files that it reads and writes, one of those that the backend reads
    library: str  # "llama.cpp 0.3.36": what another version makes is another model
    quantisations: Mapping[str, str]  # the usual one of each precision: {"int4": "Q4_0", "int8": "Q8_0"}
    writer: str
    importance: str
