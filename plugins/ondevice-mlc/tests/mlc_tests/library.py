"""A compiled library in the hands of a test: TVM's virtual machine, called as MLC's engine calls it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Library:
    """The functions of a library with parameters, and one cache."""

    def __init__(self, path: Path, parameters: Sequence[Array], *, tokens: int = 512, chunk: int = 64) -> None:
        import tvm
        from tvm import relax

        self._tvm = tvm
        self._machine = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())
        self._parameters = tvm.runtime.convert([tvm.runtime.tensor(each) for each in parameters])
        shape = tvm.runtime.ShapeTuple
        sizes = [8, tokens, chunk, 16, 0]
        self._cache = self._machine["create_tir_paged_kv_cache"](*[shape([size]) for size in sizes])

    def metadata(self) -> Mapping[str, Any]:
        """What the library says of itself."""
        described: Mapping[str, Any] = json.loads(str(self._machine["_metadata"]()))
        return described

    def add(self, sequence: int) -> None:
        """Begin a sequence."""
        self._state("add_sequence", sequence)

    def fork(self, parent: int, child: int, position: int = -1) -> None:
        """Begin a sequence that shares the first positions of another."""
        self._state("fork_sequence", parent, child, position)

    def pop(self, sequence: int, count: int) -> None:
        """Forget the last positions of a sequence."""
        self._state("popn", sequence, count)

    def prefill(self, tokens: Sequence[int], sequence: int) -> Array:
        """Logits after the tokens, shape (vocabulary,)."""
        logits: Array = self._forward("prefill", {sequence: list(tokens)})[0, 0]
        return logits

    def batch_prefill(self, tokens: Mapping[int, Sequence[int]], rows: Sequence[int]) -> Array:
        """Logits of chosen rows of all tokens put after one another, shape (rows, vocabulary)."""
        logits: Array = self._forward("batch_prefill", tokens, np.asarray(rows, dtype=np.int32))[0]
        return logits

    def verify(self, tokens: Mapping[int, Sequence[int]]) -> Array:
        """Logits of all rows."""
        logits: Array = self._forward("batch_verify", tokens)[0]
        return logits

    def decode(self, tokens: Mapping[int, int]) -> Array:
        """Logits after one token of each sequence, shape (sequences, vocabulary)."""
        name = "decode" if len(tokens) == 1 else "batch_decode"
        return self._forward(name, {each: [token] for each, token in tokens.items()}, decoding=True)[:, 0]

    def _forward(self, name: str, tokens: Mapping[int, Sequence[int]], *extra: Array, decoding: bool = False) -> Array:
        tvm, shape = self._tvm, self._tvm.runtime.ShapeTuple
        flat = np.asarray([token for each in tokens.values() for token in each], dtype=np.int32)
        embeds = self._machine["embed"](tvm.runtime.tensor(flat), self._parameters).numpy()
        embeds = embeds[:, None, :] if decoding else embeds[None]
        self._state("begin_forward", shape(list(tokens)), shape([len(each) for each in tokens.values()]))
        arguments = [tvm.runtime.tensor(each) for each in (embeds, *extra)]
        result = self._machine[name](*arguments, self._cache, self._parameters)
        self._state("end_forward")
        logits: Array = result[0].numpy()
        return logits

    def _state(self, name: str, *arguments: Any) -> None:
        self._tvm.get_global_func(f"vm.builtin.kv_state_{name}")(self._cache, *arguments)
