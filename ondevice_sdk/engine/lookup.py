"""Drafts without a second model: what followed the last time that the text was here.

Prompt look-up (Saxena 2023, https://github.com/apoorvumang/prompt-lookup-decoding). A draft goes through the forward
pass together with the newest token. It is verified as in Leviathan et al. 2023 (https://arxiv.org/abs/2211.17192),
where a draft that is certain of itself leaves nothing to correct: the model's own choice decides at every row.

What is measured here steers how much is drafted, never what is written.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from ondevice_sdk.backends.api import Batch

MOST_DRAFTED: Final = 11
_MOST_ROWS: Final = 32  # of the passes whose cost is learnt
_MOST_SEQUENCES: Final = 4  # with more, a pass is well used without drafts
_LONG: Final = 6  # tokens; longer matches are not told apart


class Lookup:
    """A growing text with an index from its pairs and triples of tokens to what followed them last."""

    def __init__(self, tokens: list[int]) -> None:
        self._tokens = list(tokens)
        # Position after the latest occurrence. The end of the text has no entry yet: nothing followed it.
        triples = zip(tokens, tokens[1:], tokens[2:], strict=False)
        self._triples = dict(zip(triples, range(3, len(tokens)), strict=False))
        self._pairs = dict(zip(pairwise(tokens), range(2, len(tokens)), strict=False))
        self._source = 0
        self.match = 0  # tokens before `_source` that are also the end of the text, but for one at most; 0: it is new
        self._find()

    def __len__(self) -> int:
        return len(self._tokens)

    def append(self, token: int) -> bool:
        """Add a token; gives whether it was the first of `draft`."""
        tokens = self._tokens
        right = self.match > 0 and tokens[self._source] == token
        if len(tokens) > 1:
            self._pairs[tokens[-2], tokens[-1]] = len(tokens)
        if len(tokens) > 2:
            self._triples[tokens[-3], tokens[-2], tokens[-1]] = len(tokens)
        tokens.append(token)
        if right:  # what has been copied so far is likelier to go on than what was seen later
            self._source += 1
            self.match += 1
            return True
        copied, self._source = self.match >= _LONG, self._source + 1
        if not self._find() and copied and self._source < len(tokens) - 1:
            self.match = 1  # a copy with one token replaced
        return False

    def draft(self, count: int) -> list[int]:
        """The tokens that followed; a text that repeats itself up to its end is taken to go on so."""
        if not self.match:
            return []
        found = self._tokens[self._source : self._source + count]
        period = len(self._tokens) - self._source
        while len(found) < count:
            found.append(found[len(found) - period])
        return found

    def _find(self) -> bool:
        tokens = self._tokens
        self.match = 0
        if len(tokens) < 2:
            return False
        source = self._triples.get((tokens[-3], tokens[-2], tokens[-1])) if len(tokens) > 2 else None
        if source is None:
            source = self._pairs.get((tokens[-2], tokens[-1]))
        if source is None:
            return False
        self._source = source
        self.match = 2
        while self.match < min(_LONG, source) and tokens[source - self.match - 1] == tokens[-self.match - 1]:
            self.match += 1
        return True


class PassCosts:
    """What forward passes cost by their number of rows, learnt from those that an engine runs."""

    _PRIOR: Final = tuple(1 + 0.45 * max(0, rows - 1) for rows in range(_MOST_ROWS + 1))
    _GAIN: Final = 0.25
    _LEAST: Final = 0.02  # by which a pass is taken to be longer than one of a single row
    _FORGET: Final = 0.01  # of the way back to the prior at every pass without a draft: a bad measurement fades

    def __init__(self) -> None:
        self.sequences = 1  # in the latest pass
        self._relative = list(self._PRIOR)  # to a pass of one row
        self._measured: set[int] = set()
        self._seconds = 0.0  # of a pass of one row at present: it grows with the context
        self._latest: Batch | None = None

    @property
    def crowded(self) -> bool:
        """Whether the latest pass was one that drafts have no place in, or none was seen yet."""
        return self.sequences > _MOST_SEQUENCES or not self._seconds

    def observe(self, batch: Batch, seconds: float) -> None:
        """Learn from a pass; several requests may report the same one."""
        if batch is self._latest:
            return
        self._latest = batch
        rows = len(batch)
        self.sequences = len(set(batch.sequences))
        if rows > _MOST_ROWS or not all(batch.logits):  # prompts are read beside the answers, or tokens were forced
            self.sequences = self.sequences if self.sequences == 1 else _MOST_SEQUENCES + 1
            return
        now = seconds / self._relative[rows]
        if not self._seconds:
            self._seconds = now
        # Other processes make single passes slow: no measurement counts for more than twice what was expected.
        now = min(max(now, 0.5 * self._seconds), 2 * self._seconds)
        if rows > 1:
            self._correct(rows, self._relative[rows] * now / self._seconds)
        else:
            pairs = zip(self._relative, self._PRIOR, strict=True)
            self._relative = [value + self._FORGET * (prior - value) for value, prior in pairs]
        self._seconds += (self._GAIN if rows == 1 else 0.1) * (now - self._seconds)

    def added(self, rows: int, more: int) -> float:
        """By which share of a pass of `rows` rows it takes longer with `more` of them."""
        if rows + more > _MOST_ROWS:
            return float("inf")
        return max(0.0, self._relative[rows + more] / self._relative[rows] - 1)

    def _correct(self, rows: int, measured: float) -> None:
        """Move towards a measurement, and with it numbers of rows nearby, and all that were never measured."""
        excess = self._relative[rows] - 1
        factor = max(self._LEAST, excess + self._GAIN * (measured - self._relative[rows])) / excess
        self._measured.add(rows)
        for other in range(2, _MOST_ROWS + 1):
            share = 0.5 ** abs(other - rows) if other in self._measured else 1.0
            # Rows together never take longer than one after another.
            self._relative[other] = 1 + min(max(self._LEAST, (self._relative[other] - 1) * factor**share), other - 1)


class Drafter:
    """Decides how much one request drafts.

    It knows without drafting how often its guesses are right, since it sees what is written: by the length of the
    match. A draft has to promise more than it costs by measurement, and what it would lose must be covered by `_credit`
    (in passes without drafts), which starts small, and grows with what drafts gained. So a request whose guesses fail
    stops after one or two drafts, and may try again only after many tokens.
    """

    _CREDIT: Final = 1.5
    _MOST_CREDIT: Final = 6.0
    _INCOME: Final = 0.005  # a token
    _WORTH: Final = 1.15  # least factor by which a draft has to promise more speed
    _GAIN: Final = 0.12
    _FIRST_RIGHT: Final = (0.15, 0.15, 0.3, 0.6)  # by `_kind`

    def __init__(self, costs: PassCosts) -> None:
        self._costs = costs
        self._lookup: Lookup | None = None
        self._right = list(self._FIRST_RIGHT)  # share of guesses that were right, of late
        self._credit = self._CREDIT
        self._rows = (0, 0)  # of the present pass: without the draft, and of the draft

    @property
    def others(self) -> int:
        """Sequences that probably share the next pass."""
        return self._costs.sequences - 1

    def draft(self, held: list[int], pending: list[int], most: int) -> list[int]:
        """Tokens to try after a text that is `held` and `pending`, at most `most`."""
        costs = self._costs
        if costs.crowded:
            return []
        lookup = self._follow(held, pending)
        if not lookup.match:
            return []
        count = self._length(self.others + len(pending), min(most, MOST_DRAFTED), self._right[_kind(lookup)])
        return lookup.draft(count) if count else []

    def start(self, decided: int, drafted: int) -> None:
        """A draft goes into a pass, after as many tokens that are decided."""
        self._rows = self.others + decided, drafted

    def learn(self, batch: Batch, seconds: float, right: int) -> None:
        """What became of the pass, and how many tokens of its draft were right."""
        rows, drafted = self._rows
        sequences = self._costs.sequences
        self._costs.observe(batch, seconds)
        self._credit = max(self._credit, min(self._credit + self._INCOME, self._CREDIT))
        if drafted:
            gain = right - sequences * self._costs.added(rows, drafted)
            self._credit = min(max(0.0, self._credit + gain), self._MOST_CREDIT)

    def _follow(self, held: list[int], pending: list[int]) -> Lookup:
        """Bring the look-up to the end of the text, counting right guesses on the way."""
        lookup = self._lookup
        new = len(held) + len(pending) - (0 if lookup is None else len(lookup))
        if lookup is None or new > _MOST_ROWS:
            self._lookup = lookup = Lookup(held + pending)
            return lookup
        for token in (held[len(lookup) :] + pending) if new > len(pending) else pending[len(pending) - new :]:
            matched, kind = lookup.match > 0, _kind(lookup)
            right = lookup.append(token)
            if matched:
                self._right[kind] += self._GAIN * (right - self._right[kind])
        return lookup

    def _length(self, rows: int, most: int, right: float) -> int:
        """The number of tokens that promises the most speed, 0 for none.

        A pass gives a token to each sequence, and this one as many more as are right from the first one on.
        """
        costs, sequences = self._costs, self._costs.sequences
        best, length, expected, chance = self._WORTH * sequences, 0, 0.0, 1.0
        for count in range(1, most + 1):
            chance *= right
            expected += chance
            extra = costs.added(rows, count)
            if chance < 0.05 or (1 - chance) * sequences * extra > self._credit:
                break
            speed = (sequences + expected) / (1 + extra)
            if speed > best:
                best, length = speed, count
        return length


def _kind(lookup: Lookup) -> int:
    """Matches of 1 (after a long one), 2, 3 and more, `_LONG` and more tokens."""
    return (lookup.match > 1) + (lookup.match > 2) + (lookup.match >= _LONG)
