"""From a model's answer to checked statements: parse its lines and look each up in the document."""

# ruff: noqa: RUF001  (dashes, bullets and apostrophes of all kinds)

from __future__ import annotations

import re
from collections.abc import Iterable

from ondevice_sdk.text.shorten import shorter
from ondevice_sdk.text.spans import KNOWN_FROM, Document
from ondevice_sdk.text.split import SENTENCE_ENDS, sentences, words
from ondevice_sdk.text.terms import content_words, numbers
from ondevice_sdk.types import Point, Span

_MARKER = re.compile(r"\A\s*+(?:(?:[-*+•–—·▪◦‣#>]++|\(?\d{1,2}[.):]|\(?[a-z][.)]|\(?[A-Z]\))\s++)+")
_STRONG = re.compile(r"(?<!\w)\*\*(?=\S)([^\n]{1,300}?)(?<=\S)\*\*(?!\w)")
_LABEL = re.compile(
    r"\A(?:headline|title|summary|teaser|tl;?dr|answer|(?:rewritten )?statement|sentence|key points?|point \d+|"
    r"fact \d+)\s*:\s*",
    re.I,
)
_ABOUT = re.compile(
    r"\A(?:the|this) (?:main|key|central) (?:point|idea|message)(?: of (?:the|this) \w{1,20}(?: above)?)? is "
    r"(?:that )?",
    re.I,
)
_OPENING = re.compile(r"(?:sure|certainly|of course|here(?:'s| is| are)|below (?:is|are)|the following)\b[^.]*:", re.I)
_QUOTES = "\"'“”‘’«»*`# "
# All four chosen by eye.
_GIST_FROM = 0.5  # share of a headline's weighted words in its sources: it may join more than two sentences
_LEAST_VARIED = 0.5  # different words of a statement: fewer are a model that goes round in circles
_RUN = 5  # words that a sentence of people does not have twice; a model that goes round in circles does
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
    """One line without bullet, number, label, emphasis and outer quotes; what may be its own sense stays."""
    line = _MARKER.sub("", f"{line} ", count=1).strip()
    line = _LABEL.sub("", _STRONG.sub(r"\1", line), count=1).strip()
    said = _ABOUT.sub("", line, count=1)
    line = line if said == line else said[:1].upper() + said[1:]
    inner = line.strip(_QUOTES)
    if line[:1] in _QUOTES and line[-1:] in _QUOTES and not {line[:1], line[-1:]} & {*inner}:
        line = inner
    for opening, closing in ("“”", "«»", '""'):
        odd = line.count(opening) % 2 == 1 if opening == closing else line.count(opening) != line.count(closing)
        if odd:
            line = line.removeprefix(opening).removesuffix(closing)
    return " ".join(line.split())


def point_of(statement: str, document: Document, *, headline: bool = False) -> Point | None:
    """The statement as a point with its sources; None where the document does not bear it out.

    Where only a shorter form of it is borne out, that is the point. A headline may take its words from all over the
    document.
    """
    support = document.support(statement)
    if headline and not support.contradicted and support.known >= KNOWN_FROM and support.score >= _GIST_FROM:
        return Point(statement, support.spans, "supported")
    if support.supported:
        return Point(statement, support.spans, "supported")
    for form in shorter(statement):
        if form != statement and (support := document.support(form)).supported:
            return Point(form, support.spans, "repaired")
    return None


def translated_point(statement: str, document: Document) -> Point | None:
    """The same for a statement in another language than the document's, by the numbers and names that both write."""
    support = document.support(statement)
    known_numbers = numbers(" ".join(span.text for span in support.spans))
    if support.spans and 0 < support.known < _FOREIGN_BELOW and numbers(statement) <= known_numbers:
        return Point(statement, support.spans, "supported")
    return None


def quote(span: Span, text: str | None = None) -> Point:
    """A sentence of the document as a point, in a shorter form (`text`) if need be."""
    text = clean(span.text if text is None else text)
    return Point(text or " ".join(span.text.split()) or span.text, (span,), "extractive")


def sift(
    statements: Iterable[str], document: Document, *, headline: bool = False, translated: bool = False
) -> tuple[list[Point], list[str]]:
    """The points that the document bears out, and the statements that it does not.

    Of two that say the same the fuller one stays; one that repeats a heading says nothing, unless it is a headline.
    """
    points: list[Point] = []
    failed: list[str] = []
    for statement in statements:
        if translated:
            point = translated_point(statement, document)
        else:
            point = point_of(statement, document, headline=headline)
        if point is None:
            failed.append(statement)
        elif headline or not _repeats_heading(point, document):
            _add(points, point)
    return points, failed


def say_same(left: str, right: str) -> bool:
    """Whether nearly all words of the shorter statement, and all its numbers, are in the longer one."""
    return _same(_said(left), _said(right))


def _parts(answer: str, complete: bool, prose: bool) -> list[str]:
    lines = [line for line in answer.splitlines() if line.strip()]
    if prose or len(lines) == 1:
        lines = [span.text for line in lines for span in sentences(line)]
    broken = not complete and len(lines) > 1 and lines[-1].strip()[-1] not in SENTENCE_ENDS
    return lines[:-1] if broken else lines


def _is_noise(text: str, said: set[str], asked: set[str]) -> bool:
    if not said or _OPENING.match(text) or text.endswith((":", "：")):
        return True
    heard = words(text)
    runs = [tuple(heard[at : at + _RUN]) for at in range(len(heard) - _RUN + 1)]
    if len(said) < _LEAST_VARIED * len(heard) or len(set(runs)) < len(runs):
        return True  # a loop
    if len(text) < 12 and len(said) < 3:  # two characters of Chinese are a word, twelve a statement
        return True
    return len(said & asked) > 0.8 * len(said)


def _add(points: list[Point], point: Point) -> None:
    """Add a point, or put it in the place of one that says less of the same."""
    said = _said(point.text)
    for index, other in enumerate(points):
        known = _said(other.text)
        if _same(said, known):
            if len(said) > len(known):
                points[index] = point
            return
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
