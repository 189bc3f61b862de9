"""What a request says that could be an argument of a tool: numbers, dates, phrases, words."""

# ruff: noqa: RUF001, SIM905  (quotation marks of all kinds; word lists read best as words)

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from typing import Final

from ondevice_sdk.text.terms import content_words

_SPAN_WORDS: Final = 8  # of a phrase without quotation marks: names and places are shorter, on the development data
_MOST_WORDS: Final = 200  # of a request whose phrases are listed; in a longer one strings are written freely
_MOST_NUMBERS: Final = 40
_MOST_LISTS: Final = 100

_WORD = re.compile(r"\S{1,80}+")
_OUTER = "\"'“”‘’«»()[]{}<>,.;:!?…*`"
_QUOTED = re.compile(r"\"([^\"\n]{1,200})\"|“([^”\n]{1,200})”|«([^»\n]{1,200})»|(?<!\w)['‘]([^'’\n]{1,200})['’](?!\w)")
_ENDS = re.compile(r"[.!?;:][\"'”’)\]]?\Z")
_PAUSES = re.compile(r",\Z")
_INITIALS = re.compile(r"\.\w\.\W{0,3}\Z")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
_SMALL = frozenset(
    "a an the and or of in on at to for from by with as is are was be it its this that these those i me my we our you "
    "your he his she her they their please can could would should do does what which who how when where".split()
)
_NUMBER = re.compile(r"(?<![\w.])-?(?:(?<![\[,])\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][+-]?\d{1,3})?")
_AFTER_NUMBER = re.compile(r"\s?(%|percent\b|(?:thousand|million|billion|k|m|bn)\b)", re.IGNORECASE)
_SCALES = {"thousand": 10**3, "k": 10**3, "million": 10**6, "m": 10**6, "billion": 10**9, "bn": 10**9}
_UNITS_TOO = frozenset("km")  # metres and kelvins
_WORDS = {
    word: value
    for value, word in enumerate(
        "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
        "eighteen nineteen twenty".split(),
        2,
    )
} | {"thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "ninety": 90, "hundred": 100, "dozen": 12}
_NUMBER_WORD = re.compile(rf"\b(?:{'|'.join(_WORDS)})\b", re.IGNORECASE)
_BETWEEN = re.compile(r"[,;]|\b(?:and|or)\b")
_BETWEEN_NUMBERS = re.compile(r"\s?[,;]?\s?(?:(?:and|or)\s)?")
_ITEM = r"[^\s,.;:?!()]{1,40}+(?: [^\s,.;:?!()]{1,40}+){0,3}"
_LISTED = re.compile(rf"(?<!\S){_ITEM}(?:, {_ITEM}){{0,12}},? (?:and|or) {_ITEM}")
_COMMA_OR_AND = re.compile(r",? (?:and|or) |, ")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    r"|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_DATE = re.compile(
    rf"\b(?P<y1>[12]\d{{3}})[-/](?P<m1>\d{{1,2}})[-/](?P<d1>\d{{1,2}})\b"
    rf"|\b(?P<m2>{_MONTH})\.?\s(?P<d2>\d{{1,2}})(?:st|nd|rd|th)?,?\s?(?P<y2>[12]\d{{3}})\b"
    rf"|\b(?P<d3>\d{{1,2}})(?:st|nd|rd|th)?\s(?:of\s)?(?P<m3>{_MONTH})\.?,?\s?(?P<y3>[12]\d{{3}})\b",
    re.IGNORECASE,
)
_WAYS = (1, 2, 3)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What can be an argument, of the words of a request."""

    words: frozenset[str] = field(repr=False)
    numbers: tuple[float, ...] = field(repr=False)
    parts: tuple[float, ...] = field(repr=False)  # the same, per cents as parts of one
    runs: tuple[tuple[float, ...], ...] = field(repr=False)  # numbers that are listed
    lists: tuple[tuple[str, ...], ...] = field(repr=False)  # what else is listed, as far as its ends can be told
    parts_of_lists: int
    dates: tuple[date, ...] = field(repr=False)
    phrases: tuple[str, ...] = field(repr=False)  # empty where they cannot be told

    @classmethod
    def of(cls, text: str) -> Evidence:
        """Read a request."""
        found = _numbers(text)
        return cls(
            frozenset(words_of(text)),
            tuple(number.value for number in found),
            tuple(number.part for number in found),
            tuple(_runs(text, found)),
            tuple(_lists(text))[:_MOST_LISTS],
            1 + len(_BETWEEN.findall(text)),
            _dates(text),
            _phrases(text),
        )

    def names(self, value: object) -> bool:
        """Whether a value of an enumeration stands in the request."""
        if isinstance(value, str):
            words = words_of(value)
            return bool(words) and self.words.issuperset(words)
        return not isinstance(value, bool) and value in self.numbers


def words_of(text: str) -> list[str]:
    """Content words, those of identifiers apart."""
    return content_words(separate(text))


def separate(text: str) -> str:
    """A text with blanks between the words of its identifiers."""
    return _CAMEL.sub(" ", text).replace("_", " ").replace(".", " ")


def quoted(text: str) -> list[str]:
    """What stands in quotation marks."""
    return ["".join(filter(None, match.groups())).strip() for match in _QUOTED.finditer(text)]


def _phrases(text: str) -> tuple[str, ...]:
    """Runs of words inside sentences, and what stands in quotation marks."""
    if _UNSPACED.search(text):
        return tuple(dict.fromkeys(phrase for phrase in quoted(text) if phrase))
    words = list(_WORD.finditer(text))
    if len(words) > _MOST_WORDS:
        return ()
    found = [phrase for phrase in quoted(text) if phrase]
    starts = True  # whether a sentence does
    for first, word in enumerate(words):
        small = _small(word.group(), starts=starts)
        starts = _ENDS.search(word.group()) is not None
        for last in range(first, len(words) if not small else first):
            end = words[last]
            if last - first == _SPAN_WORDS:
                break
            if not _small(end.group(), starts=False):
                found += _spelled(text[word.start() : end.end()])
            following = text[end.end() : end.end() + 2]
            if _ENDS.search(end.group()) or "\n" in following or (_PAUSES.search(end.group()) and following.islower()):
                break
    return tuple(dict.fromkeys(found))


def _small(word: str, *, starts: bool) -> bool:
    """Whether a word begins or ends no phrase. A small word with a capital may belong to a name."""
    bare = word.strip(_OUTER)
    return (bare.lower() if starts or bare == "I" else bare) in _SMALL


def _spelled(phrase: str) -> list[str]:
    """A phrase without the marks around it; "McDonald's" and "D.C." with and without their end."""
    bare = phrase.strip(_OUTER)
    short = bare.removesuffix("'s").removesuffix("’s")
    dotted = [bare + "."] if _INITIALS.search(phrase) else []
    return [each for each in (*dotted, bare, short) if each]


def _dates(text: str) -> tuple[date, ...]:
    """The dates with a year whose month is named, or that stand in the order of ISO 8601."""
    found: list[date] = []
    for match in _DATE.finditer(text):
        year, month, day = (match.group(f"{part}{way}") for way in _WAYS for part in "ymd" if match.group(f"y{way}"))
        number = int(month) if month.isdigit() else _MONTHS.index(month[:3].lower()) + 1
        with suppress(ValueError):
            found.append(date(int(year), number, int(day)))
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class _Number:
    start: int
    end: int
    value: float = field(repr=False)
    part: float = field(repr=False)  # of one, where it is per cent


def _numbers(text: str) -> list[_Number]:
    """The numbers in their order."""
    found: list[_Number] = []
    for match in _NUMBER.finditer(text):
        value = float(match.group().replace(",", ""))
        if not math.isfinite(value):
            continue
        after = _AFTER_NUMBER.match(text, match.end())
        sign = after.group(1).lower() if after else ""
        start, end = match.start(), after.end() if after else match.end()
        scaled = value * _SCALES.get(sign, 1)
        found.append(_Number(start, end, scaled, round(value / 100, 10) if sign in ("%", "percent") else scaled))
        if sign in _UNITS_TOO:
            found.append(_Number(start, end, value, value))
    for match in _NUMBER_WORD.finditer(text):
        value = float(_WORDS[match.group().lower()])
        found.append(_Number(match.start(), match.end(), value, value))
    return sorted(found, key=lambda number: (number.start, number.value))[:_MOST_NUMBERS]


def _runs(text: str, numbers: list[_Number]) -> Iterator[tuple[float, ...]]:
    """Numbers with nothing but commas, and, or between them."""
    run: list[_Number] = []
    for number in numbers:
        if run and not _BETWEEN_NUMBERS.fullmatch(text[run[-1].end : number.start]):
            if len(run) > 1:
                yield tuple(each.part for each in run)
            run = []
        run.append(number)
    if len(run) > 1:
        yield tuple(each.part for each in run)


def _lists(text: str) -> Iterator[tuple[str, ...]]:
    """All that is quoted, or what is listed with commas and "and": its ends may be shorter than what stands there."""
    named = tuple(phrase for phrase in quoted(text) if phrase)
    if len(named) > 1:
        yield named
        return
    for match in _LISTED.finditer(text):
        items = [item.strip(_OUTER + " ") for item in _COMMA_OR_AND.split(match.group()) if item.strip(_OUTER + " ")]
        if len(items) < 2:
            continue
        first, last = items[0].split(), items[-1].split()
        for begin in range(len(first)):
            for end in range(len(last), 0, -1):
                if first[begin] not in _SMALL and last[end - 1] not in _SMALL:
                    yield (" ".join(first[begin:]), *items[1:-1], " ".join(last[:end]))
