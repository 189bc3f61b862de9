"""From a model's answer to checked statements: parse its lines, look each up in the document, replace what fails."""

# ruff: noqa: RUF001  (dashes, bullets and apostrophes of all kinds)

from __future__ import annotations

import re
from collections.abc import Sequence

from ondevice_sdk.text.spans import Document, Support, numbers
from ondevice_sdk.text.split import count_words, sentences, words
from ondevice_sdk.types import Point, Span

_MARKER = re.compile(r"\A\s*+(?:(?:[-*+•–—·▪◦‣#>]++|\(?\d{1,2}[.):]|\(?[a-zA-Z][.)])\s++)++")
_LABEL = re.compile(r"\A(?:headline|title|summary|teaser|tl;?dr|answer|key points?|point \d+|fact \d+)\s*:\s*", re.I)
_OPENING = re.compile(r"(?:sure|certainly|of course|here(?:'s| is| are)|below (?:is|are)|the following)\b[^.]*:", re.I)
_QUOTES = "\"'“”‘’«»*_`# "
_ENDS = ".!?…。！？؟।॥۔"
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
        if _is_noise(text, said, asked) or any(_same(said, other) for other in seen):
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
    return " ".join(line.split())


def point_of(statement: str, document: Document, translated: bool) -> Point | None:
    """The statement as a point with its sources; None where the document does not bear it out.

    In another language than the document's (`translated`), only numbers and names can be compared.
    """
    support = document.support(statement)
    if support.supported or (translated and _bears_translation(statement, support)):
        return Point(statement, support.spans, "supported")
    return None


def quote(span: Span) -> Point:
    """A sentence of the document as a point."""
    text = clean(span.text)
    return Point(text or " ".join(span.text.split()) or span.text, (span,), "extractive")


def check(statements: Sequence[str], document: Document, most: int, translated: bool = False) -> list[Point]:
    """Up to `most` points in the order of the document, at least one.

    A statement that is not borne out gives way to the sentence nearest to it, missing ones to the document's central
    sentences.
    """
    points: list[Point] = []
    failed: list[str] = []
    for statement in statements:
        point = point_of(statement, document, translated)
        if point is None:
            failed.append(statement)
        elif len(points) < most:
            points.append(point)
    for statement in failed:
        span = document.nearest(statement, _sources(points)) if len(points) < most else None
        if span is not None and not any(_same(_said(span.text), _said(point.text)) for point in points):
            points.append(quote(span))
    missing = min(most, len(document.sentences)) - len(points)
    if missing > 0:
        points.extend(quote(span) for span in document.central(missing, _sources(points)))
    return sorted(points, key=_place)


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
    broken = not complete and len(lines) > 1 and lines[-1].strip()[-1] not in _ENDS
    return lines[:-1] if broken else lines


def _is_noise(text: str, said: set[str], asked: set[str]) -> bool:
    if not said or _OPENING.match(text) or text.endswith((":", "：")):
        return True
    if len(text) < 12 and len(said) < 3:  # two characters of Chinese are a word, twelve a statement
        return True
    return len(said & asked) > 0.8 * len(said)


def _said(text: str) -> set[str]:
    return set(words(text))


def _same(left: set[str], right: set[str]) -> bool:
    """Nearly the same words, and no number that differs."""
    if any(word[0].isdigit() for word in left ^ right):
        return False
    return len(left & right) >= 0.8 * max(1, min(len(left), len(right)))


def _sources(points: Sequence[Point]) -> list[Span]:
    return [span for point in points for span in point.sources]


def _place(point: Point) -> int:
    return point.sources[0].start if point.sources else 0


def _bears_translation(statement: str, support: Support) -> bool:
    """Whether a name or number of the statement leads to a source, and no number is new."""
    known_numbers = numbers(" ".join(span.text for span in support.spans))
    return bool(support.spans) and 0 < support.known < _FOREIGN_BELOW and numbers(statement) <= known_numbers
