"""TVM's paged KV cache: which sequences are in it, and how long they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ondevice_mlc import runtime
from ondevice_sdk.errors import GenerationFailed

PAGE: Final = 16  # tokens; what TVM's kernels for processors are written for


class Cache:
    """Keys and values of sequences in pages; what begins alike is held once."""

    def __init__(self, create: Callable[..., Any], *, tokens: int, sequences: int, rows: int) -> None:
        """Make an empty cache; its memory is taken as it is filled.

        Args:
            create: the library's function for it.
            tokens: room of all sequences together, however they are spread.
            sequences: how many at most.
            rows: of one pass.
        """
        room = tokens + sequences * PAGE  # each may leave its last page almost empty
        self.state = create(*(runtime.shape([each]) for each in (sequences, room, rows, PAGE, 0)))
        self._do: Mapping[str, Callable[..., Any]] = {
            name: runtime.function(f"vm.builtin.kv_state_{name}")
            for name in ("add_sequence", "remove_sequence", "fork_sequence", "popn", "begin_forward", "end_forward")
        }
        self._lengths: dict[int, int] = {}

    def begin(self, counts: Mapping[int, int]) -> None:
        """Make room at the end of sequences, for so many tokens each, and start a pass over them in this order."""
        for sequence in counts:
            if sequence not in self._lengths:
                self._do["add_sequence"](self.state, sequence)
                self._lengths[sequence] = 0
        for sequence, count in counts.items():
            self._lengths[sequence] += count
        self._do["begin_forward"](self.state, runtime.shape(list(counts)), runtime.shape(list(counts.values())))

    def end(self) -> None:
        """End the pass."""
        self._do["end_forward"](self.state)

    def check(self, sequence: int, positions: Sequence[int]) -> None:
        """Tokens can only be put at the end of a sequence.

        Raises:
            GenerationFailed: these positions are elsewhere.
        """
        length = self._lengths.get(sequence, 0)
        if list(positions) != list(range(length, length + len(positions))):
            raise GenerationFailed("the positions of a pass do not continue their sequence")

    def copy(self, source: int, target: int, end: int) -> None:
        """Let a sequence be the first tokens of another; pages are shared."""
        self.cut(target, 0)
        if end > self._lengths.get(source, 0):
            raise GenerationFailed("the cache does not hold what is to be copied")
        if end > 0:
            self._do["fork_sequence"](self.state, source, target, end)
            self._lengths[target] = end

    def cut(self, sequence: int, length: int) -> None:
        """Forget all but the first tokens of a sequence."""
        held = self._lengths.get(sequence)
        if held is None or held <= length:
            return
        if length == 0:
            self._do["remove_sequence"](self.state, sequence)
            del self._lengths[sequence]
        else:
            self._do["popn"](self.state, sequence, held - length)
            self._lengths[sequence] = length

    def length(self, sequence: int) -> int:
        """Tokens of a sequence."""
        return self._lengths.get(sequence, 0)
