"""From a model's answer to checked statements: parse its lines, look each up in the document, replace what fails."""

# ruff: noqa: RUF001  (dashes, bullets and apostrophes of all kinds)

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ondevice_sdk.text.spans import KNOWN_FROM, Document, Support
from ondevice_sdk.text.split import SENTENCE_ENDS, count_words, sentences, words
from ondevice_sdk.text.terms import content_words, numbers
from ondevice_sdk.types import Point, Span

_MARKER = re.compile(r"\A\s*+(?:(?:[-*+•–—·▪◦‣#>]++|\(?\d{1,2}[.):]|\(?[a-zA-Z][.)])\s++)++")
_LABEL = re.compile(r"\A(?:headline|title|summary|teaser|tl;?dr|answer|key points?|point \d+|fact \d+)\s*:\s*", re.I)
_OPENING = re.compile(r"(?:sure|certainly|of course|here(?:'s| is| are)|below (?:is|are)|the following)\b[^.]*:", re.I)
_QUOTES = "\"'“”‘’«»*_`# "
_CLAUSE = re.compile(r"[,;:，；：]\s*|\s[–—]\s|\s(?:and|but|while|which|because|so that)\s")
_NEEDS_MORE = re.compile(r"\b(?:both|between|either|neither)\b", re.I)
_GIST_FROM = 0.5  # share of a headline's weighted words in its sources: it may join more than two sentences
_LEAST_VARIED = 0.5  # different words of a statement: fewer are a model that goes round in circles
_LEAST_TERMS = 4  # content words of a statement that was cut down to what the document bears out
_FOREIGN_BELOW = 0.5  # share of known words, below which a statement is in another language than the document


def parse(answer: str, instruction: str, *, complete: bool = True, prose: bool = False) -> list[str]:
    """The statements in an answer, one per line or sentence: no bullets, echoes, repetitions or broken ends.

    Args:
        answer: as the model wrote it.
        instruction: what it was asked; lines that repeat it are dropped.
        complete: False where the answer ran out of tokens: its last sentence is then dropped, if there are others.
        prose: the statements are sentences of a running text, not lines.
    """
    asked = set(words(instruction))
    found: list[str] = []
    seen: list[set[str]] = []
    for sentence in _parts(answer, complete, prose):
        text = clean(sentence)
        said = set(words(text))
        if _is_noise(text, said, asked) or any(_repeats(said, other) for other in seen):
            continue
        found.append(text)
        seen.append(said)
    return found


def clean(line: str) -> str:
    """One line without bullet, number, label, emphasis and outer quotes."""
    line = _MARKER.sub("", f"{line} ", count=1).strip()
    line = _LABEL.sub("", line.replace("**", "").replace("__", ""), count=1).strip()
    if line[:1] in _QUOTES and line[-1:] in _QUOTES:
        line = line.strip(_QUOTES)
    for opening, closing in ("“”", "«»", '""'):
        odd = line.count(opening) % 2 == 1 if opening == closing else line.count(opening) != line.count(closing)
        if odd:
            line = line.removeprefix(opening).removesuffix(closing)
    return " ".join(line.split())


def point_of(statement: str, document: Document, *, translated: bool = False, headline: bool = False) -> Point | None:
    """The statement as a point with its sources; None where the document does not bear it out.

    Where only its beginning is borne out, the rest is cut off. In another language than the document's (`translated`),
    only numbers and names can be compared. A headline may take its words from all over the document.
    """
    support = document.support(statement)
    if headline and not support.contradicted and support.known >= KNOWN_FROM and support.score >= _GIST_FROM:
        return Point(statement, support.spans, "supported")
    if support.supported or (translated and _bears_translation(statement, support)):
        return Point(statement, support.spans, "supported")
    for beginning in beginnings(statement):
        support = document.support(beginning)
        if support.supported:
            return Point(beginning, support.spans, "repaired")
    return None


def quote(span: Span) -> Point:
    """A sentence of the document as a point."""
    text = clean(span.text)
    return Point(text or " ".join(span.text.split()) or span.text, (span,), "extractive")


def check(
    statements: Sequence[str], document: Document, most: int, *, translated: bool = False, headline: bool = False
) -> list[Point]:
    """Up to `most` points in the order of the document, at least one.

    A statement that is not borne out gives way to the sentence nearest to it, missing ones to the document's central
    sentences. Of two that say the same the fuller one stays; one that repeats a heading says nothing, unless
    it is to be a headline.
    """
    points: list[Point] = []
    failed: list[str] = []
    for statement in statements:
        point = point_of(statement, document, translated=translated, headline=headline)
        if point is None:
            failed.append(statement)
        elif headline or not _repeats_heading(point, document):
            _add(points, point, most)
    for statement in failed:
        span = document.nearest(statement, _sources(points)) if len(points) < most else None
        if span is not None and not any(_same(_said(span.text), _said(point.text)) for point in points):
            points.append(quote(span))
    missing = min(most, len(document.sentences)) - len(points)
    if missing > 0:
        points.extend(quote(span) for span in document.central(missing, _sources(points)))
    return sorted(points, key=_place)


def beginnings(statement: str) -> Iterator[str]:
    """What is left of a statement without its last clauses, the longest first."""
    end = statement[-1:] if statement[-1:] in SENTENCE_ENDS else ""
    for border in reversed(list(_CLAUSE.finditer(statement))):
        beginning = statement[: border.start()].rstrip()
        if len(content_words(beginning)) >= _LEAST_TERMS and not _NEEDS_MORE.search(beginning):
            yield beginning + end


def shorten(text: str, most: int) -> str:
    """The beginning of a text that has at most `most` words: to the end of a sentence or clause, else of a word."""
    best = ""
    for span in sentences(text):
        longer = f"{best} {span.text}".strip()
        if count_words(longer) > most:
            break
        best = longer
    if best:
        return best
    kept: list[str] = []
    for word in text.split():
        if count_words(" ".join([*kept, word])) > most:
            break
        kept.append(word)
    if not kept:  # one long run without spaces
        return _first_signs(text, most)
    for size in range(len(kept), max(1, len(kept) // 2), -1):
        if kept[size - 1][-1] in ",;:–—":
            return " ".join(kept[:size]).rstrip(",;:–— ")
    while len(kept) > _LEAST_TERMS and not content_words(kept[-1]):
        kept.pop()  # no "of the" at the end
    return " ".join(kept)


def _first_signs(text: str, most: int) -> str:
    """Words of a script without spaces are counted by the character."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count_words(text[:middle]) <= most else (low, middle - 1)
    return text[:low]


def _parts(answer: str, complete: bool, prose: bool) -> list[str]:
    lines = [line for line in answer.splitlines() if line.strip()]
    if prose or len(lines) == 1:
        lines = [span.text for line in lines for span in sentences(line)]
    broken = not complete and len(lines) > 1 and lines[-1].strip()[-1] not in SENTENCE_ENDS
    return lines[:-1] if broken else lines


def _is_noise(text: str, said: set[str], asked: set[str]) -> bool:
    if not said or _OPENING.match(text) or text.endswith((":", "：")):
        return True
    if len(said) < _LEAST_VARIED * len(words(text)):
        return True  # a loop
    if len(text) < 12 and len(said) < 3:  # two characters of Chinese are a word, twelve a statement
        return True
    return len(said & asked) > 0.8 * len(said)


def _add(points: list[Point], point: Point, most: int) -> None:
    """Add a point, or put it in the place of one that says less of the same."""
    said = _said(point.text)
    for index, other in enumerate(points):
        known = _said(other.text)
        if _same(said, known):
            if len(said) > len(known):
                points[index] = point
            return
    if len(points) < most:
        points.append(point)


def _repeats_heading(point: Point, document: Document) -> bool:
    said = _said(point.text)
    return any(document.is_heading(span) and _repeats(said, _said(span.text)) for span in point.sources)


def _said(text: str) -> set[str]:
    return set(content_words(text) or words(text))


def _repeats(left: set[str], right: set[str]) -> bool:
    """Nearly the same words, and no number that differs."""
    if any(word[0].isdigit() for word in left ^ right):
        return False
    return len(left & right) >= 0.8 * max(1, len(left), len(right))


def _same(left: set[str], right: set[str]) -> bool:
    """Whether nearly all words of the shorter one, and all its numbers, are in the longer one."""
    less, more = sorted((left, right), key=len)
    if any(word[0].isdigit() for word in less - more):
        return False
    return len(less & more) >= 0.8 * max(1, len(less))


def _sources(points: Sequence[Point]) -> list[Span]:
    return [span for point in points for span in point.sources]


def _place(point: Point) -> int:
    return point.sources[0].start if point.sources else 0


def _bears_translation(statement: str, support: Support) -> bool:
    """Whether a name or number of the statement leads to a source, and no number is new."""
    known_numbers = numbers(" ".join(span.text for span in support.spans))
    return bool(support.spans) and 0 < support.known < _FOREIGN_BELOW and numbers(statement) <= known_numbers
