"""Phrases that tell what a text is about: names and runs of content words, ranked by what the text makes of them.

How often a phrase occurs, how early, and how much its words occur beside it in other phrases; what is part of a better
phrase is left out. After RAKE (Rose, Engel, Cramer and Cowley 2010) and YAKE (Campos et al. 2020).
"""

# ruff: noqa: RUF001, SIM905  (apostrophes; word lists read best as words)

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ondevice_sdk.text.candidates import candidates
from ondevice_sdk.text.split import sentences
from ondevice_sdk.text.terms import content_words
from ondevice_sdk.types import Span

__all__ = ["Phrase", "ranked_phrases"]

_WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")
_LONGEST = 3  # words
_ENOUGH = 3  # phrases, from which single words that stand there once are left out; by eye
_ADDRESS = re.compile(r"\bhttps?://\S{1,2000}|\S{1,64}@\S{1,255}")
_JAPANESE_OR_CHINESE = re.compile(r"[\u30a1-\u30fa\u30fc\u3400-\u4dbf\u4e00-\u9fff]{2,12}")
_LOOSE = frozenset(  # words with content, but not for a phrase to begin or end with
    "very much many more most less least well new other another such same several various own good great bad big "
    "small large long short high low old young first second third last next late early recent current whole main "
    "major make makes made making take takes took taken get gets got give gives gave given go goes went gone come "
    "comes came see sees saw seen say says said show shows showed shown use uses used using find finds found keep "
    "keeps kept let put puts want wants wanted need needs needed try tries tried become becomes became seem seems "
    "seemed begin began include includes included including according based like likely able due instead however "
    "therefore yesterday today tomorrow week month year day time way thing things lot lots part parts people one "
    "two three four five six seven eight nine ten really quite rather already still even ever never always often "
    "sometimes again back down up out off now then here there please thank thanks yes okay mr mrs ms dr propose "
    "proposes present presents introduce introduces demonstrate demonstrates compare compares outperform "
    "outperforms provide provides produce produces change changes share shares allow allows help helps lead leads "
    "work works look looks think thinks mean means know knows likes fear fears feed feeds divide rent would ways "
    "kind sort bit number yeah um uh hmm gonna it's that's you're don't isn't can't i'm we're they're et al "
    "opened built".split()
)
_LOOSE_ENDING = re.compile(r"[a-z]{2,}(?:ed|ly)")  # participles and adverbs end a phrase


@dataclass(frozen=True, slots=True)
class Phrase:
    """A phrase and its places, in order."""

    text: str
    spans: tuple[Span, ...]
    score: float


def ranked_phrases(text: str, most: int) -> list[Phrase]:
    """The best phrases of a text, best first; a text with words has at least one."""
    names = {(found.span.start, found.span.end) for found in candidates(text) if "start" not in found.cues}
    places: dict[str, list[Span]] = {}
    for span in _runs(text):
        places.setdefault(_key(span.text), []).append(span)
    alone = Counter(word for key in places for word in key.split() for _ in places[key])
    company: Counter[str] = Counter()  # words beside it in its phrases, itself included
    for key, spans in places.items():
        for word in key.split():
            company[word] += len(key.split()) * len(spans)
    phrases = []
    for key, spans in places.items():
        words = key.split()
        weight = sum(company[word] / alone[word] * math.log2(1 + alone[word]) for word in words) / math.sqrt(len(words))
        early = 1 / (1 + math.log2(1 + spans[0].start / 400))  # the first lines say what a text is about
        phrase = Phrase(spans[0].text, tuple(spans), weight * math.log2(1 + len(spans)) * (0.5 + early))
        if _named(phrase, names):
            phrase = Phrase(phrase.text, phrase.spans, 1.5 * phrase.score)
        phrases.append(phrase)
    telling = [phrase for phrase in phrases if " " in phrase.text or len(phrase.spans) > 1 or _named(phrase, names)]
    if len(telling) >= _ENOUGH:  # else the single words that stand there once are better than nothing
        phrases = telling
    phrases.sort(key=lambda phrase: (-phrase.score, phrase.spans[0].start))
    chosen: list[Phrase] = []
    for phrase in phrases:
        words_in = set(_key(phrase.text).split())
        if all(not _alike(words_in, set(_key(other.text).split())) for other in chosen):
            chosen.append(_everywhere(text, phrase))
        if len(chosen) == most:
            break
    return chosen


def _named(phrase: Phrase, names: set[tuple[int, int]]) -> bool:
    return any((span.start, span.end) in names for span in phrase.spans)


def _everywhere(text: str, phrase: Phrase) -> Phrase:
    """In its most frequent spelling, with all places of that, inside of longer runs too."""
    pattern = re.compile(rf"(?<![^\W_]){re.escape(phrase.text)}(?![^\W_])", re.IGNORECASE)
    found = [Span(match.start(), match.end(), match.group()) for match in pattern.finditer(text)]
    if not found:  # scripts without spaces know no such borders
        return phrase
    spelling, _ = Counter(span.text for span in found).most_common(1)[0]
    return Phrase(spelling, tuple(span for span in found if span.text == spelling), phrase.score)


def _key(phrase: str) -> str:
    return " ".join(content_words(phrase)) or phrase.casefold()


def _alike(left: set[str], right: set[str]) -> bool:
    return len(left & right) * 2 > min(len(left), len(right))


def _runs(text: str) -> Iterator[Span]:
    """Runs of few content words with one space between them, without loose words at their ends."""
    for sentence in sentences(_ADDRESS.sub(lambda match: " " * len(match.group()), text)):
        group: list[Span] = []
        for match in _WORD.finditer(sentence.text):
            start, end = sentence.start + match.start(), sentence.start + match.end()
            word = Span(start, end, match.group())
            unspaced = _JAPANESE_OR_CHINESE.search(word.text)
            if unspaced is not None:
                yield from _trimmed(text, group)
                group = []
                for run in _JAPANESE_OR_CHINESE.finditer(word.text):
                    yield Span(start + run.start(), start + run.end(), run.group())
                continue
            fits = bool(content_words(word.text)) and not word.text[0].isdigit() and len(word.text) > 1
            fits = fits and _LOOSE_ENDING.fullmatch(word.text) is None
            if not fits or (group and (start != group[-1].end + 1 or text[group[-1].end] != " ")):
                yield from _trimmed(text, group)
                group = []
            if fits:
                group.append(word)
        yield from _trimmed(text, group)


def _trimmed(text: str, group: list[Span]) -> Iterator[Span]:
    words = list(group)
    while words and words[-1].text.casefold() in _LOOSE:
        words.pop()
    words = words[-_LONGEST:]
    while words and words[0].text.casefold() in _LOOSE:
        words.pop(0)
    if words:
        start, end = words[0].start, words[-1].end
        yield Span(start, end, text[start:end])
