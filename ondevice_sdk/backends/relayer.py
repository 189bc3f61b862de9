"""How a backend writes the weights of a model anew in other formats, of which one is the fastest here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Relayer:
    """How to make a copy of a model whose matrices are in other formats.

    `writer` is a generator function, as "module:function", that is called in a worker as
    `writer(source=, target=, formats=, threads=)`: paths, and the new format of each tensor that gets one, by its name.
    All else is copied. It yields the share that is done.
    """

    writer: str
    model_format: str  # of the files that it reads and writes, one of those that the backend reads
    formats: tuple[str, ...]  # of weights, that are worth a trial
    library: str  # "llama.cpp 0.3.36": with a new version another format may be the fastest
