"""The words of a sentence that answer a question: what is left when the question's own words are taken away.

English question words tell what kind of answer is wanted ("how many": a number, "who": a name); in other languages only
the places of the words count. The weights were set by hand on 12 + 24 invented facts and on questions about
encyclopaedia paragraphs, where changing any of them by half moved the share of right answers by two points at most.
"""

# ruff: noqa: SIM905  (word lists read best as words)

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from ondevice_sdk.text.terms import content_words, stem
from ondevice_sdk.text.values import Word, break_between, has_number, names_time, words_of
from ondevice_sdk.types import Span

__all__ = ["Answer", "Question"]

Wanted = Literal["number", "often", "time", "name", "place", "any"]

_PREPOSITIONS = frozenset(
    "of in on at by for with from to into onto about over under behind beside near between among through during before "
    "after since until within without against across per via as".split()
)
_HEDGES = frozenset(
    "exactly only just about around approximately nearly almost roughly some named called known".split()
)
_LEADS = frozenset("quarter half past every each first second third last next other early late before after".split())
_JOINS = frozenset("and or on at in of to the".split())
_OFTEN = frozenset("every each daily weekly monthly yearly once twice per".split())
_KINDS: tuple[tuple[Wanted, str], ...] = (
    ("often", r"\bhow often\b"),
    ("time", r"\bwhen\b|\bhow (?:long|old)\b|\b(?:what|which) (?:year|day|date|time|month|century)\b"),
    ("number", r"\bhow \w+|\bwhat (?:number|percentage|percent|age|price|size|temperature)\b"),
    ("name", r"\bwho(?:m|se)?\b|\b(?:name|named|called)\b"),
    ("place", r"\bwhere\b|\b(?:what|which) (?:place|city|country|town|village|street)\b"),
)
_NO_MEASURE = re.compile(r"how (?:is|are|was|were|do|does|did|can|could|should|would|will|has|have|had|to)\b")
_FOCUS = re.compile(
    r"\b(?:what|which)\s+(?:(?:is|are|was|were)\s+)?(?:(?:the|a|an|his|her|their|its)\s+)?([\w-]+)", re.IGNORECASE
)
_ASKED_WITH = re.compile(r"\s*(\w+)\s+(?:what|which|whom)\b", re.IGNORECASE)
_UNIT = 3  # words that a number may count or be counted in
_LONG = 12  # words; answers are shorter


@dataclass(frozen=True, slots=True)
class Answer:
    """Words that may be the answer. `score` is for comparing answers to one question: higher is better."""

    span: Span
    score: float


@dataclass(slots=True)
class Question:
    """A question, taken apart once and put to many sentences."""

    text: str = field(repr=False)
    wanted: Wanted = field(init=False)
    _stems: frozenset[str] = field(init=False, repr=False)
    _words: tuple[str, ...] = field(init=False, repr=False)
    _focus: str = field(init=False, repr=False)
    _preposition: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        said = self.text.casefold()
        self.wanted = next((kind for kind, pattern in _KINDS if re.search(pattern, said)), "any")
        if self.wanted == "number" and _NO_MEASURE.search(said):
            self.wanted = "any"
        self._stems = frozenset(content_words(self.text))
        self._words = tuple(
            word.text.casefold() for word in words_of(self.text)[:100] if not word.small and len(word.text) > 3
        )
        focus = _FOCUS.search(self.text)
        self._focus = stem(focus.group(1).casefold()) if focus is not None and not _is_verb(focus.group(1)) else ""
        asked = _ASKED_WITH.match(self.text)
        before = asked.group(1).casefold() if asked is not None else ""
        self._preposition = before if before in _PREPOSITIONS else ""

    def answers(self, sentence: str, start: int = 0) -> list[Answer]:
        """What may answer in a sentence that starts at `start` of its text; best first."""
        words = words_of(sentence)
        said = [self._says(word) for word in words]
        found: dict[tuple[int, int], float] = {}
        for run, base in self._runs(sentence, words, said):
            part = _trimmed(words, run)
            if part:
                place = (part[0], part[-1])
                found[place] = max(found.get(place, -9.0), base)
        answers = []
        for (first, last), base in found.items():
            low, high = words[first].start, words[last].end
            span = Span(start + low, start + high, sentence[low:high])
            if self.wanted == "any":
                base *= 2  # nothing tells which part is meant: rather too many words than the wrong ones
            answers.append(Answer(span, base + self._score(sentence, words, said, first, last)))
        return sorted(answers, key=lambda answer: (-answer.score, answer.span.start))

    def _says(self, word: Word) -> bool:
        """Whether the question has a word, in some form of it."""
        stems = content_words(word.text)
        if stems and all(each in self._stems for each in stems):
            return True
        form = word.text.casefold()
        return any(
            abs(len(form) - len(each)) <= 3
            and form[: max(4, min(len(form), len(each)) - 1)] == each[: max(4, min(len(form), len(each)) - 1)]
            for each in self._words
        )

    def _runs(self, sentence: str, words: list[Word], said: list[bool]) -> Iterator[tuple[list[int], float]]:
        """Words that the question lacks, in one piece, and parts of these for less."""
        run: list[int] = []
        for at, word in enumerate(words):
            if run and (said[at] or break_between(sentence, words[at - 1], word, commas=False)):
                yield from self._parts(sentence, words, run)
                run = []
            if not said[at]:
                run.append(at)
        if run:
            yield from self._parts(sentence, words, run)

    def _parts(self, sentence: str, words: list[Word], run: list[int]) -> Iterator[tuple[list[int], float]]:
        yield run, -0.3 if self.wanted in {"number", "time"} else 0.0
        part: list[int] = []
        name: list[int] = []
        for at in run:
            starts = words[at].text.casefold() in _PREPOSITIONS or (
                at > run[0] and break_between(sentence, words[at - 1], words[at])
            )
            if part and starts:
                yield part, -0.3
                part = []
            part.append(at)
            capital = words[at].text[:1].isupper()
            if name and not capital:
                yield name, -0.3
                name = []
            if capital:
                name.append(at)
            if has_number(words[at].text) or (self.wanted == "time" and names_time(words[at].text)):
                rest = run[_lead(words, run, run.index(at)) :]
                yield rest[: _measure(words, rest)], 0.0 if self.wanted in {"number", "time"} else -0.1
                yield rest, -0.2
        yield part, -0.3
        if name:
            yield name, -0.3

    def _score(self, sentence: str, words: list[Word], said: list[bool], first: int, last: int) -> float:
        text = sentence[words[first].start : words[last].end]
        before = words[first - 1].text.casefold() if first > 0 else ""
        named = words[first].text[:1].isupper() and words[last].text[:1].isupper() and (first > 0 or last > first)
        size = last - first + 1
        score = -0.06 * size - (0.6 if size > _LONG else 0.0) + (0.2 if last == len(words) - 1 else 0.0)
        match self.wanted:
            case "number":
                score += 2.0 * has_number(text) + 0.5 * has_number(words[first].text)
            case "time":
                score += 1.5 * names_time(text) + 1.0 * has_number(text)
            case "often":
                score += 1.5 * (not _OFTEN.isdisjoint(text.casefold().split())) + 0.5 * names_time(text)
            case "name":
                score += 1.5 * named
            case "place":
                score += 0.7 * named + 0.7 * (before in {"in", "at", "to", "near", "on", "from", "the"})
            case "any":
                score += 0.2 * named + 0.2 * (words[first].start > 0 and sentence[words[first].start - 1] in "\"“'")
        around = [at for at in (first - 2, first - 1, last + 1, last + 2) if 0 <= at < len(words)]
        score += 0.4 * sum(said[at] for at in around if at != last + 2)
        if self._focus:
            score += 0.6 * any(stem(words[at].text.casefold()) == self._focus for at in around)
            score += (0.7 - 0.1 * size) * (stem(before) == self._focus)  # "platform 7 when it snows": a short one
        if self._preposition:
            score += 0.8 * any(words[at].text.casefold() == self._preposition for at in around if at < first)
        return score


def _lead(words: list[Word], run: list[int], at: int) -> int:
    """Where in a run begins what a number or a time is told with: "a quarter past six", "every second Tuesday"."""
    while at > 0:
        word = words[run[at - 1]].text
        if word.casefold() not in _LEADS and not has_number(word) and not names_time(word):
            break
        at -= 1
    return at


def _measure(words: list[Word], run: list[int]) -> int:
    """How many words from a number on belong to it: "17 crowns and 40 pence", "03:25 on Sundays"."""
    end, plain = 1, 0
    while end < len(run):
        word = words[run[end]].text
        telling = has_number(word) or names_time(word)
        if words[run[end]].small:
            follows = words[run[end + 1]].text if end + 1 < len(run) else ""
            if word.casefold() not in _JOINS or not (has_number(follows) or names_time(follows)):
                break
        plain = 0 if telling else plain + 1
        if plain > _UNIT:
            break
        end += 1
    return end


def _is_verb(word: str) -> bool:
    return word.casefold() in {"did", "does", "do", "has", "have", "had", "can", "could", "will", "would", "should"}


def _trimmed(words: list[Word], run: list[int]) -> list[int]:
    """A run without function words and hedges at its ends; names keep theirs."""
    first, last = 0, len(run)
    while first < last and _is_weak(words, run[first]):
        first += 1
    while last > first and words[run[last - 1]].small:
        last -= 1
    return run[first:last]


def _is_weak(words: list[Word], at: int) -> bool:
    word = words[at]
    if not word.small and word.text.casefold() not in _HEDGES:
        return False
    return at == 0 or not word.text[:1].isupper()
