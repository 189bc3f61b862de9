"""What the pipeline's prefix cache holds of a prompt. The pipeline itself does not say."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Final

BLOCK: Final = 32  # tokens that the processor's kernels keep together; those of a graphics processor are a part of it


_ENDS_PER_BLOCK: Final = 4  # that are remembered: a block has one, but more are not known to be gone


class Ledger:
    """Follows the pipeline's rules: whole blocks are found again by all tokens up to their end; the oldest go first.

    It never says more than the cache holds. The pipeline also finds the begun block in which a text ended, where a
    prompt goes on from its very end. If several prompts that are being read get such a block they write into it all at
    once, and spoil it for one another (openvino-genai 2026.4.1): so it has to be known where texts have ended.
    """

    def __init__(self, blocks: int) -> None:
        """Begin with an empty cache of so many blocks."""
        self._room = blocks
        self._known: OrderedDict[int, None] = OrderedDict()
        self._ends: OrderedDict[int, None] = OrderedDict()

    def cached(self, tokens: Sequence[int]) -> int:
        """Tokens at the begin of a prompt that need not be computed; the last one always is."""
        length = 0
        for key in _keys(tokens):
            if key not in self._known:
                break
            length += BLOCK
        return min(length, len(tokens) - 1)

    def add(self, tokens: Sequence[int]) -> None:
        """Take note of what has been computed."""
        for key in _keys(tokens):
            self._known[key] = None
            self._known.move_to_end(key)
        self._ends[_end(tokens, len(tokens))] = None
        for known, room in ((self._known, self._room), (self._ends, _ENDS_PER_BLOCK * self._room)):
            while len(known) > room:
                known.popitem(last=False)

    def begun(self, tokens: Sequence[int], length: int) -> bool:
        """Whether a prompt may find more than its `length` tokens in whole blocks: the begin of the next."""
        return any(_end(tokens, more) in self._ends for more in range(length + 1, min(length + BLOCK, len(tokens) + 1)))

    def forks(self, one: Sequence[int], other: Sequence[int], read: int) -> bool:
        """Whether two prompts may get one begun block, the other added when `read` tokens of the first are read."""
        pairs = enumerate(zip(one, other, strict=False))
        common = next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))
        start = common - common % BLOCK
        if start < read < common:
            return True
        return any(_end(one, length) in self._ends for length in range(start + 1, common + 1))

    def clear(self) -> None:
        """The cache is gone."""
        self._known.clear()
        self._ends.clear()


def _end(tokens: Sequence[int], length: int) -> int:
    return hash(tuple(tokens[:length]))


def _keys(tokens: Sequence[int]) -> Iterator[int]:
    """One for each whole block."""
    key = 0
    for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
        key = hash((key, *tokens[start : start + BLOCK]))
        yield key
