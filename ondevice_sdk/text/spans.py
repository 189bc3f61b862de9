"""Where in a document a statement comes from, and whether the document bears it out.

Lexical evidence only: rare shared words weigh more than common ones, and a number, a name, a negation or an opposite
that the document lacks speaks against the statement. Two questions are told apart. "Supported" is strict, for what is
shown as the document's: the words are there, or English ones that stand for them, in one sentence or in two close ones,
and all numbers stand in one of them, by the same words. "Faithful" is for a summary that somebody else wrote, in words
of its own: nothing in it is known to be wrong (see `claims`).
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field

from ondevice_sdk.text.claims import DOUBTFUL_FROM, Doubt, Evidence, doubt_of
from ondevice_sdk.text.split import CLOSERS, SENTENCE_ENDS, paragraphs, sentences, touched, words
from ondevice_sdk.text.terms import clauses, content_words, counted, denies, names, numbers, stem
from ondevice_sdk.types import Span

__all__ = ["Document", "Support", "find_all"]

SUPPORTED_FROM = 0.6  # share of a statement's weighted words that its sources hold; at 0.5 more spliced sentences pass
KNOWN_FROM = 0.8  # share of its words that the document uses at all, or words that stand for them
# The next three chosen by eye.
_CLOSE = 3  # sentences; what stands further apart is not joined into one statement
_BESIDE = 4  # content words between a number and the word that says what it is of
_SYNONYM = 0.7  # what a word that stands for another brings, of the weight of this


@dataclass(frozen=True, slots=True)
class Support:
    """How far a document bears out a statement. `score` is 0 to 1; `known` the share of its words used anywhere."""

    spans: tuple[Span, ...]
    score: float
    known: float
    contradicted: bool  # a number, name or negation of the statement is not in the sources, or the other way round
    doubts: tuple[Doubt, ...] = ()  # what the whole document has against the statement

    @property
    def supported(self) -> bool:
        """Whether the statement may be shown as the document's."""
        return bool(self.spans) and not self.contradicted and self.score >= SUPPORTED_FROM and self.known >= KNOWN_FROM

    @property
    def doubt(self) -> float:
        """How much speaks against the statement, from 0 to 1. That nothing does is no proof: see `supported`."""
        return doubt_of(self.doubts)

    @property
    def faithful(self) -> bool:
        """Whether nothing shows that the statement, written in words of its own, says what the document does not."""
        return self.doubt < DOUBTFUL_FROM


@dataclass(slots=True)
class Document:
    """A text, indexed once so that many statements can be looked up in it.

    Sentences that touch a span of `aside` are not looked at: they are neither sources nor quoted.
    """

    text: str = field(repr=False)
    aside: Sequence[Span] = field(default=(), repr=False)
    sentences: list[Span] = field(init=False, repr=False)
    _terms: list[frozenset[str]] = field(init=False, repr=False)
    _where: dict[str, list[int]] = field(init=False, repr=False)
    _headings: frozenset[int] = field(init=False, repr=False)
    _evidence: Evidence | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        found = sentences(self.text)
        apart = set(touched(found, self.aside))
        self.sentences = [span for index, span in enumerate(found) if index not in apart] or found
        self._terms = [frozenset(content_words(span.text)) for span in self.sentences]
        where: defaultdict[str, list[int]] = defaultdict(list)
        for index, terms in enumerate(self._terms):
            for term in terms:
                where[term].append(index)
        self._where = dict(where)
        self._headings = _headings(self.text, self.sentences)

    def is_heading(self, span: Span) -> bool:
        """Whether a sentence of the document is a heading: alone in its paragraph and without a full stop."""
        return span.start in self._headings

    def support(self, statement: str, near: Sequence[Span] = ()) -> Support:
        """Find the one sentence, or the two close ones, that bear out a statement best, and weigh them.

        Args:
            statement: one sentence, in the language of the document.
            near: sentences of the document that something else than its words, such as embeddings, holds to be close.
                One that means more of the statement than the best by words is taken for the source.
        """
        evidence = self._evidence = self._evidence or Evidence(self.sentences)
        forms = {stem(word): word for word in words(statement)}
        terms = list(dict.fromkeys(content_words(statement)))
        weights = {term: self._weight(term) for term in terms}
        total = sum(weights.values())
        if not terms or not self.sentences:
            return Support((), 0.0, 0.0, contradicted=False)
        first, gained = self._best(terms, weights)
        for index in touched(self.sentences, near):
            meant = [self._meant(terms, weights, forms, each) for each in (first, index) if each is not None]
            if first is None or meant[1] > meant[0]:
                first = index
                gained = sum(weights[term] for term in terms if term in self._terms[first])
        if first is None:
            doubts = tuple(evidence.doubts(statement, ()))
            return Support((), 0.0, 0.0, contradicted=bool(numbers(statement)), doubts=doubts)
        rest = [term for term in terms if term not in self._terms[first]]
        second, more = self._best(rest, weights, within=range(first - _CLOSE, first + _CLOSE + 1))
        chosen = [first]
        # A second sentence has to bring something: otherwise one span is the clearer evidence.
        if second is not None and more >= 0.15 * total:
            chosen.append(second)
            gained += more
        lacking = [term for term in terms if not any(term in self._terms[index] for index in chosen)]
        gained += _SYNONYM * sum(
            weights[term] for term in lacking if any(evidence.means_in(forms[term], index) for index in chosen)
        )
        spans = tuple(self.sentences[index] for index in sorted(chosen))
        doubts = tuple(evidence.doubts(statement, chosen))
        wrong = (
            doubt_of(doubts) >= DOUBTFUL_FROM
            or self._contradicts(statement, spans)
            or (len(chosen) > 1 and self._mixes(statement, *chosen))
            or (bool(numbers(statement)) and self._strays(statement, terms, chosen))
        )
        known = sum(1 for term in terms if term in self._where or evidence.means(forms[term])) / len(terms)
        return Support(spans, gained / total, known, wrong, doubts)

    def nearest(self, statement: str, skip: Iterable[Span] = ()) -> Span | None:
        """The one sentence that shares most with a statement; None where none shares a word."""
        terms = list(dict.fromkeys(content_words(statement)))
        taken = {span.start for span in skip}
        skipped = {
            index for index, span in enumerate(self.sentences) if span.start in taken or span.start in self._headings
        }
        best, _ = self._best(terms, {term: self._weight(term) for term in terms}, skip=skipped)
        return None if best is None else self.sentences[best]

    def _meant(self, terms: list[str], weights: dict[str, float], forms: dict[str, str], index: int) -> float:
        """The weight of the terms that a sentence has, or has words for."""
        evidence = self._evidence
        assert evidence is not None
        return sum(weights[term] for term in terms if evidence.means_in(forms[term], index))

    def _weight(self, term: str) -> float:
        """Inverse document frequency; a word that the document lacks weighs like its rarest one."""
        return math.log(1 + len(self.sentences) / max(1, len(self._where.get(term, ()))))

    def _best(
        self,
        terms: list[str],
        weights: dict[str, float],
        skip: Iterable[int] = (),
        within: Container[int] | None = None,
    ) -> tuple[int | None, float]:
        gained: defaultdict[int, float] = defaultdict(float)
        for term in terms:
            for index in self._where.get(term, ()):
                if within is None or index in within:
                    gained[index] += weights[term]
        for index in skip:
            gained.pop(index, None)
        if not gained:
            return None, 0.0
        # Of equal sentences the shorter, then the earlier one is the clearer evidence.
        best = max(gained, key=lambda index: (round(gained[index], 9), -len(self._terms[index]), -index))
        return best, gained[best]

    def _contradicts(self, statement: str, spans: tuple[Span, ...]) -> bool:
        if not any(_bears_numbers(statement, span.text) for span in spans):
            return True
        if any(stem(name.casefold()) not in self._where for name in names(statement)):
            return True
        said = set(content_words(statement))
        for span in spans:
            shared = said.intersection(content_words(span.text))
            if shared and len(said) > 1 and all(term.isdigit() for term in shared):
                return True  # the number of another matter
        if denies(statement):
            return not any(denies(span.text) for span in spans)
        return len(spans) == 1 and _denies_any(spans[0].text, said)

    def _strays(self, statement: str, terms: list[str], chosen: list[int]) -> bool:
        """Whether words of a statement with numbers are neither in the sentence with these nor in those around it."""
        home = next((index for index in chosen if _bears_numbers(statement, self.sentences[index].text)), chosen[0])
        around = frozenset().union(*self._terms[max(0, home - 2) : home + 2])
        return any(term in self._where and term not in around for term in terms)

    def _mixes(self, statement: str, first: int, second: int) -> bool:
        """Whether the second sentence only brings a name into what the first one says of somebody else."""
        named = {stem(name.casefold()) for name in names(statement)}
        whose = {stem(name.casefold()) for name in names(self.sentences[first].text)}
        others = {stem(name.casefold()) for name in names(self.sentences[second].text)}
        opening = content_words(statement)[:1]
        brought = (named | others.intersection(opening)) - self._terms[first]
        return bool(brought and whose.difference(content_words(statement)))


def _headings(text: str, spans: list[Span]) -> frozenset[int]:
    """Starts of headings; none in a text that hardly uses full stops, where lines tell nothing."""
    ended = [span.text.rstrip(CLOSERS)[-1:] in SENTENCE_ENDS for span in spans]
    if 2 * sum(ended) < len(spans):
        return frozenset()
    blocks = {(block.start, block.end) for block in paragraphs(text)}
    return frozenset(
        span.start for span, end in zip(spans, ended, strict=True) if not end and (span.start, span.end) in blocks
    )


def _bears_numbers(statement: str, source: str) -> bool:
    """Whether the source has all numbers of a statement, each with the same words around it."""
    if not numbers(statement) <= numbers(source):
        return False
    terms = content_words(source)
    for number, before, behind in counted(statement):
        near: set[str] = set()
        for index, term in enumerate(terms):
            if term == number:
                near.update(terms[max(0, index - _BESIDE) : index + _BESIDE + 1])
        if near and not ({behind} <= near | {""} and {before} <= {*terms, ""}):
            return False
    return True


def _denies_any(source: str, said: set[str]) -> bool:
    """Whether the source denies what is said: a clause with a negation, half of whose words are in the statement."""
    for clause in clauses(source):
        if denies(clause):
            terms = set(content_words(clause))
            if 2 * len(terms & said) >= len(terms):
                return True
    return False


def find_all(text: str, wanted: str, most: int = 100) -> list[Span]:
    """Every place, up to `most`, where a string occurs as whole words; letter case counts first, then not."""
    wanted = wanted.strip()
    if not wanted:
        return []
    left = r"(?<!\w)" if wanted[0].isalnum() and wanted[0].isascii() else ""
    right = r"(?!\w)" if wanted[-1].isalnum() and wanted[-1].isascii() else ""
    pattern = left + re.escape(wanted) + right
    for flags in (re.NOFLAG, re.IGNORECASE):
        spans: list[Span] = []
        for match in re.finditer(pattern, text, flags):
            spans.append(Span(match.start(), match.end(), match.group()))
            if len(spans) == most:
                break
        if spans:
            return spans
    return []
