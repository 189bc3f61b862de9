"""Where in a long text an answer may stand: every word is indexed, and passages are ranked by the words of a question.

BM25 (Robertson and Zaragoza 2009) over sentences, in plain Python and in time linear in the text. A sentence also
counts a part of what its neighbours in the paragraph hold, since a question's words are often spread over two. It knows
words, not meanings: a question that shares no word with its answer's surroundings is not found.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from ondevice_sdk.text.split import paragraphs, sentences
from ondevice_sdk.text.terms import content_words
from ondevice_sdk.types import Span

__all__ = ["Index", "Passage"]

_SATURATION = 1.2  # k1 and b of BM25, as the literature has them
_LENGTH = 0.5  # less than the usual 0.75: sentences differ in length more than documents do
_NEIGHBOUR = 0.3  # share of a neighbouring sentence's score that a sentence gets


@dataclass(frozen=True, slots=True)
class Passage:
    """A sentence of the text and how well it fits a question. 0: it shares no word with it."""

    span: Span
    score: float


@dataclass(slots=True)
class Index:
    """A text, read once, so that many questions can be looked up in it."""

    text: str = field(repr=False)
    sentences: list[Span] = field(init=False, repr=False)
    _where: dict[str, list[tuple[int, int]]] = field(init=False, repr=False)  # term -> (sentence, times)
    _lengths: list[int] = field(init=False, repr=False)
    _blocks: list[int] = field(init=False, repr=False)  # of each sentence: the number of its paragraph

    def __post_init__(self) -> None:
        self.sentences = sentences(self.text)
        starts = [block.start for block in paragraphs(self.text)]
        self._blocks = [bisect.bisect_right(starts, sentence.start) for sentence in self.sentences]
        self._lengths = []
        where: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for number, sentence in enumerate(self.sentences):
            terms = content_words(sentence.text)
            self._lengths.append(len(terms))
            for term, times in Counter(terms).items():
                where[term].append((number, times))
        self._where = dict(where)

    def search(self, question: str, most: int = 5) -> list[Passage]:
        """The sentences that fit a question best, best first; of equal ones the earlier.

        Args:
            question: in any words; function words do not count.
            most: how many.
        """
        scores = self._scores(dict.fromkeys(content_words(question)))
        ranked = sorted(scores, key=lambda number: (-scores[number], number))
        return [Passage(self.sentences[number], scores[number]) for number in ranked[:most]]

    def rarity(self, term: str) -> float:
        """Inverse document frequency, with sentences for documents."""
        held = len(self._where.get(term, ()))
        return math.log(1 + (len(self.sentences) - held + 0.5) / (held + 0.5))

    def share(self, question: str, span: Span) -> float:
        """How much of a question's words, rare ones counting more, a sentence holds: 0 to 1."""
        weights = {term: self.rarity(term) for term in content_words(question)}
        held = set(content_words(span.text))
        return sum(weights[term] for term in weights if term in held) / (sum(weights.values()) or 1.0)

    def _scores(self, terms: Iterable[str]) -> dict[int, float]:
        mean = sum(self._lengths) / max(1, len(self._lengths)) or 1.0
        own: defaultdict[int, float] = defaultdict(float)
        for term in terms:
            rarity = self.rarity(term)
            for number, times in self._where.get(term, ()):
                long = 1 - _LENGTH + _LENGTH * self._lengths[number] / mean
                own[number] += rarity * times * (_SATURATION + 1) / (times + _SATURATION * long)
        scores = dict(own)
        for number in own:
            for at in (number - 1, number + 1):
                if at in own and self._blocks[at] == self._blocks[number]:
                    scores[number] += _NEIGHBOUR * own[at]
        return scores
