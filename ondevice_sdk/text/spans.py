"""Where in a document a statement comes from, and whether the document bears it out.

Lexical evidence only, the same in every language: rare shared words weigh more than common ones, and a number, a name
or a negation that the sources lack speaks against the statement. It cannot judge meaning: "supported" says that the
words are there, in one or two sentences of the document.
"""

# ruff: noqa: RUF001, SIM905  (apostrophes of all kinds; word lists read best as words)

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from ondevice_sdk.text.split import sentences, words
from ondevice_sdk.types import Span

__all__ = ["Document", "Support", "find_all"]

_FUNCTION_WORDS = frozenset(
    "a an the and or but nor so yet if then than that this these those there here it its he she they we you i him her "
    "them us me my your his our their who whom whose which what when where why how is are was were be been being am do "
    "does did done has have had having will would shall should can could may might must of in on at by for with from "
    "to into onto about over under as also just only very more most some any each all both such own same other another "
    "not no never none text article document author passage says said according".split()
)
_NEGATIONS = frozenset(
    "not no never none nobody nothing neither nor without cannot can't won't don't doesn't didn't isn't aren't wasn't "
    "weren't hasn't haven't hadn't wouldn't shouldn't couldn't nicht kein keine keinen keiner nie ne pas jamais sin "
    "nunca não nem non mai не ни нет никогда".split()
)
_NUMBER_WORDS = {
    word: str(value)
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen twenty".split()
    )
}
_NUMBER = re.compile(r"\d++(?:[.,]\d++)*+")
_NAME = re.compile(r"(?<![.!?:])\s[\"'“(]*+([A-ZÀ-ÖØ-ÞА-ЯΑ-Ω][\w’']++)")
_FIRST_WORD = re.compile(r"\W*+\w++")

SUPPORTED_FROM = 0.7  # share of a statement's weighted words that its sources hold
KNOWN_FROM = 0.88  # share of its words that the document uses at all: one foreign word in nine may pass


@dataclass(frozen=True, slots=True)
class Support:
    """How far a document bears out a statement. `score` is 0 to 1; `known` the share of its words used anywhere."""

    spans: tuple[Span, ...]
    score: float
    known: float
    contradicted: bool  # a number, name or negation of the statement is not in the sources, or the other way round

    @property
    def supported(self) -> bool:
        """Whether the statement may be shown as the document's."""
        return bool(self.spans) and not self.contradicted and self.score >= SUPPORTED_FROM and self.known >= KNOWN_FROM


@dataclass(slots=True)
class Document:
    """A text, indexed once so that many statements can be looked up in it."""

    text: str = field(repr=False)
    sentences: list[Span] = field(init=False, repr=False)
    _terms: list[frozenset[str]] = field(init=False, repr=False)
    _where: dict[str, list[int]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.sentences = sentences(self.text)
        self._terms = [frozenset(content_words(span.text)) for span in self.sentences]
        where: defaultdict[str, list[int]] = defaultdict(list)
        for index, terms in enumerate(self._terms):
            for term in terms:
                where[term].append(index)
        self._where = dict(where)

    def support(self, statement: str) -> Support:
        """Find the one or two sentences that bear out a statement best, and weigh them."""
        terms = list(dict.fromkeys(content_words(statement)))
        weights = {term: self._weight(term) for term in terms}
        total = sum(weights.values())
        if not terms or not self.sentences:
            return Support((), 0.0, 0.0, contradicted=False)
        first, gained = self._best(terms, weights)
        if first is None:
            return Support((), 0.0, 0.0, contradicted=bool(numbers(statement)))
        rest = [term for term in terms if term not in self._terms[first]]
        second, more = self._best(rest, weights)
        chosen = [first]
        # A second sentence has to bring something: otherwise one span is the clearer evidence.
        if second is not None and more >= 0.15 * total:
            chosen.append(second)
            gained += more
        spans = tuple(self.sentences[index] for index in sorted(chosen))
        known = sum(1 for term in terms if term in self._where) / len(terms)
        return Support(spans, gained / total, known, contradicted=self._contradicts(statement, spans))

    def central(self, count: int, skip: Iterable[Span] = ()) -> list[Span]:
        """The sentences that speak for the text best: frequent words, early, of readable length, not alike.

        After SumBasic (Nenkova and Vanderwende 2005): a word that was covered counts less for the next sentence.
        """
        taken = {span.start for span in skip}
        frequency = Counter(term for terms in self._terms for term in terms)
        chosen: list[int] = []
        covered = [index for index, span in enumerate(self.sentences) if span.start in taken]
        for index in covered:
            self._cover(index, frequency)
        free = [index for index, span in enumerate(self.sentences) if span.start not in taken]
        pool = [index for index in free if any(sign.isalnum() for sign in self.sentences[index].text)] or free
        # Only the best by the first pass are weighed against each other, to stay linear on a long text.
        pool.sort(key=lambda index: -self._centrality(index, frequency))
        pool = pool[: 40 * count + 40]
        while pool and len(chosen) < count:
            best = max(pool, key=lambda index: (self._centrality(index, frequency), -index))
            pool.remove(best)
            if not any(_alike(self._terms[best], self._terms[other]) for other in covered):
                chosen.append(best)
                covered.append(best)
                self._cover(best, frequency)
        return [self.sentences[index] for index in sorted(chosen)]

    def nearest(self, statement: str, skip: Iterable[Span] = ()) -> Span | None:
        """The one sentence that shares most with a statement; None where none shares a word."""
        terms = list(dict.fromkeys(content_words(statement)))
        taken = {span.start for span in skip}
        skipped = {index for index, span in enumerate(self.sentences) if span.start in taken}
        best, _ = self._best(terms, {term: self._weight(term) for term in terms}, skipped)
        return None if best is None else self.sentences[best]

    def _weight(self, term: str) -> float:
        """Inverse document frequency; a word that the document lacks weighs like its rarest one."""
        return math.log(1 + len(self.sentences) / max(1, len(self._where.get(term, ()))))

    def _best(self, terms: list[str], weights: dict[str, float], skip: Iterable[int] = ()) -> tuple[int | None, float]:
        gained: defaultdict[int, float] = defaultdict(float)
        for term in terms:
            for index in self._where.get(term, ()):
                gained[index] += weights[term]
        for index in skip:
            gained.pop(index, None)
        if not gained:
            return None, 0.0
        # Of equal sentences the shorter, then the earlier one is the clearer evidence.
        best = max(gained, key=lambda index: (round(gained[index], 9), -len(self._terms[index]), -index))
        return best, gained[best]

    def _contradicts(self, statement: str, spans: tuple[Span, ...]) -> bool:
        source = " ".join(span.text for span in spans)
        if not numbers(statement) <= numbers(source):
            return True
        if any(_stem(name.casefold()) not in self._where for name in names(statement)):
            return True
        said = set(content_words(statement))
        for span in spans:
            shared = said.intersection(content_words(span.text))
            if shared and len(said) > 1 and all(term.isdigit() for term in shared):
                return True  # the number of another matter
        denies, source_denies = _denies(statement), _denies(source)
        return denies != source_denies and (denies or len(spans) == 1)

    def _cover(self, index: int, frequency: Counter[str]) -> None:
        for term in self._terms[index]:
            frequency[term] = math.isqrt(frequency[term])

    def _centrality(self, index: int, frequency: Counter[str]) -> float:
        terms = self._terms[index]
        if not terms:
            return 0.0
        length = len(self.sentences[index].text)
        readable = min(1.0, length / 40) * min(1.0, 240 / length)
        lead = 1.0 + 0.5 / (1 + index)
        return readable * lead * sum(frequency[term] for term in terms) / (len(terms) + 2)


def content_words(text: str) -> list[str]:
    """Stems of the words that carry meaning; function words and stray letters left out."""
    return [
        _stem(word)
        for word in words(text)
        if word not in _FUNCTION_WORDS and (len(word) > 1 or not word.isascii() or word.isdigit())
    ]


def numbers(text: str) -> frozenset[str]:
    """The numbers in a text, thousands marks taken out, small number words as digits."""
    found = {_NUMBER_WORDS[word] for word in words(text) if word in _NUMBER_WORDS and word != "one"}
    for match in _NUMBER.finditer(text):
        found.add(_plain_number(match.group()))
    return frozenset(found - {"1"})


def names(text: str) -> list[str]:
    """Capitalised words that do not start a sentence."""
    found = [match.group(1) for span in sentences(text) for match in _NAME.finditer(_without_first_word(span.text))]
    return [name for name in found if name.casefold().split("'")[0] not in _FUNCTION_WORDS]


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


def _stem(word: str) -> str:
    """A rough stem: English endings off, then the first seven letters, which joins most inflected forms elsewhere."""
    word = _NUMBER_WORDS.get(word, word)
    if word[:1].isdigit():
        return _plain_number(word)
    for ending in ("'s", "’s", "ing", "edly", "ed", "es", "s", "ly"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word[: -len(ending)]
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "ls":
        word = word[:-1]
    return word.removesuffix("e")[:7] if len(word) > 3 else word


def _plain_number(number: str) -> str:
    """Take "1,200" and "1.200" for one number, "1.50" for "1.5"."""
    if re.fullmatch(r"\d{1,3}(?:[.,]\d{3})+", number):
        return re.sub(r"[.,]", "", number)
    number = number.replace(",", ".").lstrip("0") or "0"
    return number.rstrip("0").rstrip(".") if "." in number else number


def _without_first_word(sentence: str) -> str:
    match = _FIRST_WORD.match(sentence)
    return sentence[match.end() :] if match else sentence


def _denies(text: str) -> bool:
    return not _NEGATIONS.isdisjoint(word.replace("’", "'") for word in words(text))


def _alike(left: frozenset[str], right: frozenset[str]) -> bool:
    return len(left & right) > 0.7 * max(1, min(len(left), len(right)))
