"""Pieces of a text that may be the value of a field: runs of words, names, quotations, numbers and dates.

Rules only, the same for all languages but for a few English words for numbers and times; where a script puts no space
between words, borders between kinds of characters stand in. Offsets are exact; time is linear in the text.
"""

# ruff: noqa: RUF001, SIM905  (look-alike marks are meant; word lists read best as words)

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from ondevice_sdk.text.terms import content_words
from ondevice_sdk.types import Span

__all__ = [
    "Word",
    "break_between",
    "dates",
    "has_number",
    "is_number_phrase",
    "is_small",
    "names_time",
    "numbers",
    "pieces",
    "words_of",
]

_LONGEST = 4  # words of a piece, unless it is a name or a whole run: longer values are hardly ever inside a run
_MOST = 60  # pieces of a text; each costs a few tokens of every question asked of it

_LATIN = r"(?:(?![\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff])\w)"
_WORD = re.compile(
    rf"[$£€¥#@]?{_LATIN}+(?:['’.&/:,-]{_LATIN}+)*[%°]?"
    r"|[\u3400-\u9fff\uf900-\ufaff々〇]++|[\u30a0-\u30ff]++|[\u3040-\u309f]++"
)
_KANA = re.compile(r"[\u3040-\u309f]+")
_BREAK = re.compile(r"[;:!?()\[\]{}\"“”«»「」『』（）、。，！？\n]|[–—]|\.(?=\s|$)|,")
_QUOTED = re.compile(r"[\"“«「『]([^\"“”«»「」『』\n]{1,80})[\"”»」』]")
_NUMBER = re.compile(r"\d++(?:[.,]\d++)*")
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "k": 1000, "m": 10**6, "bn": 10**9}
_SMALL = {
    word: value
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen".split()
    )
} | {
    word: 10 * value
    for value, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2)
}
_MONTHS = {
    name[:length]: number
    for number, name in enumerate(
        "january february march april may june july august september october november december".split(), start=1
    )
    for length in (3, 4, len(name))
}
_TIMES = frozenset(_MONTHS) | frozenset(
    "monday tuesday wednesday thursday friday saturday sunday mondays tuesdays wednesdays thursdays fridays saturdays "
    "sundays noon midnight morning evening afternoon night day week month year century decade days weeks months years "
    "hours minutes seconds hour minute today tomorrow yesterday tonight spring summer autumn winter clock daily weekly "
    "monthly yearly now later".split()
)
_CLOCK = re.compile(
    r"\b\d{1,2}(?::\d\d|[.:]?\s?[ap]\.?m\b)|\b(?:1\d|20)\d\d\b|\b\d{1,2}(?:st|nd|rd|th)\b", re.IGNORECASE
)
_HALVES = frozenset("am pm a.m p.m o'clock".split())
_LIMITS = frozenset("more less over under about around between from than to out of and".split())
_PREPOSITIONS = frozenset(
    "near within without between among through during before after since until against across behind beside per via "
    "there out less over under around".split()
)
_REQUESTS = frozenset(
    "add book check find get give hear listen look make need play please put rate read search see send show tell use "
    "want write".split()
)  # what a request begins with is not its object
_JOINS = frozenset("of and or the".split())
_ISO = re.compile(r"\b(\d{4})-(\d{1,2})-(\d{1,2})\b")
_DMY = re.compile(r"\b(\d{1,2})(?:st|nd|rd|th)?(?: of)? ([A-Za-z]{3,9})\.?,? (\d{4})\b")
_MDY = re.compile(r"\b([A-Za-z]{3,9})\.? (\d{1,2})(?:st|nd|rd|th)?,? (\d{4})\b")


@dataclass(frozen=True, slots=True)
class Word:
    """A word with its place. `small`: it carries no meaning alone."""

    start: int
    end: int
    text: str = field(repr=False)
    small: bool


def words_of(text: str) -> list[Word]:
    """All words in order."""
    return [Word(m.start(), m.end(), m.group(), is_small(m.group())) for m in _WORD.finditer(text)]


def is_small(word: str) -> bool:
    """Whether a word is a function word: an article, a preposition, a pronoun, a Japanese particle."""
    if _KANA.fullmatch(word) is not None:
        return True
    if word.casefold() in _PREPOSITIONS:
        return True
    return not content_words(word) and not (len(word) == 1 and word.isupper() and word not in "AI")


def break_between(text: str, first: Word, second: Word, *, commas: bool = True) -> bool:
    """Whether two neighbouring words are parted by more than white space."""
    gap = text[first.end : second.start]
    found = _BREAK.search(gap)
    return found is not None and (commas or gap.strip() != ",")


def pieces(text: str, most: int = _MOST) -> list[Span]:
    """What may be a value in a short text, in its order: names whole, of other runs of words all parts.

    Of more than `most`, the shortest: a long text is for a search first, not for this.
    """
    words = words_of(text)
    phrases = dict(_number_phrases(words))
    inside = {
        number
        for number, (first, last) in phrases.items()
        if first < last and sum(has_number(words[at].text) for at in range(first, last + 1)) == 1
    }  # "£20" is not the price range in "less than £20", but "5" may be the rating in "5 out of 6"
    found = dict.fromkeys((words[first].start, words[last].end) for first, last in phrases.values())
    alone = {(words[at].start, words[at].end) for at in inside}
    found.update(dict.fromkeys(place for place in _places(text, words) if place not in alone))
    for quoted in _QUOTED.finditer(text):
        found.setdefault(quoted.span(1))
    kept = sorted(sorted(found, key=lambda place: (place[1] - place[0], place))[:most])
    return [Span(start, end, text[start:end]) for start, end in kept]


def _places(text: str, words: list[Word]) -> Iterator[tuple[int, int]]:
    runs = _runs(text, words)
    for run in runs:
        yield words[run[0]].start, words[run[-1]].end
        for part in _parts(words, run):
            if words[part[0]].text[:1].isupper() and len(part) > 1:
                yield words[part[0]].start, words[part[-1]].end
                continue
            for first in range(len(part)):
                for last in range(first, min(len(part), first + _LONGEST)):
                    yield words[part[first]].start, words[part[last]].end
        before = run[0] - 1
        if before >= 0 and words[before].small and _leads(text, words[before], words[run[0]]):
            part = next(iter(_parts(words, run)))
            yield words[before].start, words[part[-1]].end
    for left, right in pairwise(runs):  # "Duke of York", "salt and pepper"
        between = range(left[-1], right[0])
        if len(between) <= 3 and not any(break_between(text, words[at], words[at + 1]) for at in between):
            joined = all(words[at].text.casefold() in _JOINS for at in between[1:])
            named = words[left[-1]].text[:1].isupper() and words[right[0]].text[:1].isupper()
            if not joined and not named:
                continue
            start = list(_parts(words, left))[-1][0] if named else left[0]
            end = next(iter(_parts(words, right)))[-1] if named else right[-1]
            yield words[start].start, words[end].end


def _number_phrases(words: list[Word]) -> Iterator[tuple[int, tuple[int, int]]]:
    """For each word with a number the words that make one value with it: "more than £30", "5 out of 5", "7 a.m."."""
    for at, word in enumerate(words):
        if not has_number(word.text):
            continue
        first = last = at
        while first > 0 and at - first < 3 and words[first - 1].text.casefold() in _LIMITS:
            first -= 1
        if first < at and has_number(words[max(0, first - 1)].text):
            first -= 1  # the last number of "5 out of 5"
        while last + 1 < len(words) and last - at < 3:
            following = words[last + 1].text.casefold()
            if following not in _LIMITS and following not in _HALVES and not has_number(following):
                break
            last += 1
        while last > at and words[last].text.casefold() in _LIMITS:
            last -= 1
        while first < at and words[first].text.casefold() in {"and", "of", "to", "out"}:
            first += 1
        yield at, (first, last)


def _runs(text: str, words: list[Word]) -> list[list[int]]:
    """Neighbouring words without function words or marks between them."""
    runs: list[list[int]] = []
    current: list[int] = []
    for at, word in enumerate(words):
        if current and (word.small or break_between(text, words[at - 1], word)):
            runs.append(current)
            current = []
        if not word.small and not (word.text.casefold() in _REQUESTS and _begins(text, words, at)):
            current.append(at)
    return [*runs, current] if current else runs


def _begins(text: str, words: list[Word], at: int) -> bool:
    """Whether only function words of the sentence stand before a word."""
    while at > 0 and not break_between(text, words[at - 1], words[at]):
        at -= 1
        if not words[at].small and words[at].text.casefold() not in _REQUESTS:
            return False
    return True


def _leads(text: str, first: Word, second: Word) -> bool:
    """Whether a capitalised function word belongs to the name behind it: "The Mill", "My Fair Lady"."""
    return first.text[:1].isupper() and second.text[:1].isupper() and not break_between(text, first, second)


def _parts(words: list[Word], run: list[int]) -> Iterator[list[int]]:
    """A run, split where capitalised words begin or end."""
    part: list[int] = []
    for at in run:
        if part and words[at].text[:1].isupper() != words[part[-1]].text[:1].isupper():
            yield part
            part = []
        part.append(at)
    if part:
        yield part


def has_number(text: str) -> bool:
    """Whether digits or a number word are in a piece."""
    return any(sign.isdigit() for sign in text) or any(
        word in _SMALL or word in _SCALES for word in re.findall(r"[a-z]{3,}", text.casefold())
    )


def is_number_phrase(text: str) -> bool:
    """Whether a piece is a number or limits of one: "more than £30", "5 out of 5"."""
    said = [word.text for word in words_of(text)]
    return any(map(has_number, said)) and all(has_number(word) or word.casefold() in _LIMITS for word in said)


def names_time(text: str) -> bool:
    """Whether a piece tells a time, a day or a span of time."""
    return _CLOCK.search(text) is not None or not _TIMES.isdisjoint(re.findall(r"[a-z]{3,}", text.casefold()))


def numbers(text: str) -> list[tuple[Span, float]]:
    """The numbers of a text, in digits or in small English words, with what scales them: "2.5 million"."""
    words = words_of(text)
    found: list[tuple[Span, float]] = []
    skip = -1
    for at, word in enumerate(words):
        if at <= skip:
            continue
        value = _value(word.text)
        if value is None:
            continue
        end = at
        if value < 100 and end + 1 < len(words) and word.text.casefold() in _SMALL and value >= 20:
            unit = _SMALL.get(words[end + 1].text.casefold(), 0)
            if 0 < unit < 10:
                value, end = value + unit, end + 1
        while end + 1 < len(words) and words[end + 1].text.casefold() in _SCALES and end - at < 3:
            end += 1
            value *= _SCALES[words[end].text.casefold()]
        skip = end
        start = word.start + (word.text[0] in "#@")
        if text[max(0, start - 2) : start].strip() in {"-", "−"} and word.text[0].isdigit():
            start, value = start - 1, -value
        found.append((Span(start, words[end].end, text[start : words[end].end]), value))
    return found


def _value(word: str) -> float | None:
    small = _SMALL.get(word.casefold())
    if small is not None:
        return small
    tens, _, ones = word.casefold().partition("-")
    if tens in _SMALL and ones in _SMALL:
        return _SMALL[tens] + _SMALL[ones]
    match = _NUMBER.search(word)
    if match is None or len(match.group()) > 30 or word[match.end() : match.end() + 1] in {":", "/"}:
        return None
    digits = match.group()
    if _GROUPED.fullmatch(digits):
        digits = digits.replace(",", "")
    digits = digits.replace(",", ".")
    if digits.count(".") > 1 or word[: match.start()].strip("$£€¥#@-"):
        return None
    value = float(digits)
    scale = _SCALES.get(word[match.end() :].casefold(), 1)
    return value * scale


def dates(text: str) -> list[tuple[Span, str]]:
    """Full dates that can be read in one way only, as in ISO 8601."""
    found: list[tuple[Span, str]] = []
    for pattern, order in ((_ISO, "ymd"), (_DMY, "dmy"), (_MDY, "mdy")):
        for match in pattern.finditer(text):
            part = dict(zip(order, match.groups(), strict=True))
            month = _MONTHS.get(part["m"].casefold(), 0) if part["m"].isalpha() else int(part["m"])
            try:
                day = datetime.date(int(part["y"]), month, int(part["d"]))
            except ValueError:
                continue
            found.append((Span(match.start(), match.end(), match.group()), day.isoformat()))
    return sorted(found, key=lambda each: each[0].start)
