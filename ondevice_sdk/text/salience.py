"""How well a statement would stand in a summary: by the words that come back in the text, a question, cues and place.

A sum of four features with few weights, chosen on the development halves of abstracts (SciTLDR) and meeting transcripts
(QMSum), for statements that were taken from the text; any of them alone is worse on one of the two.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection

from ondevice_sdk.text.shorten import is_whole
from ondevice_sdk.text.spans import Document
from ondevice_sdk.text.terms import content_words, dangles
from ondevice_sdk.types import Span

__all__ = ["Salience"]

_CENTRAL = 0.5
_ASKED = 0.5
_PURPOSE = 1.0
_PLACE = 0.5
# These two chosen by eye.
_UNCLEAR = 0.3  # taken off what says little alone: it leans on the sentence before, asks, breaks off, or is a heading
_COVERED = 0.3  # what a word counts that was said already

_AIM = re.compile(
    r"\b(?:we|this (?:paper|work|article|report|study|letter|book|document)|our)\b[^.]{0,40}\b(?:propos|present|"
    r"introduc|develop|show|demonstrat|describ|stud|investigat|provid|explor|find|prove|design|analy)",
    re.IGNORECASE,
)


class Salience:
    """The words of a document, counted once. `question`: what the reader wants to know."""

    def __init__(self, document: Document, question: str | None = None) -> None:
        self._document = document
        self._terms = {span.start: frozenset(content_words(span.text)) for span in document.sentences}
        self._order = {span.start: index for index, span in enumerate(document.sentences)}
        self._frequency = Counter(term for terms in self._terms.values() for term in terms)
        self._asked = frozenset(content_words(question)) if question else frozenset[str]()

    def score(self, text: str, sources: tuple[Span, ...], said: Collection[str] = ()) -> float:
        """The worth of a statement with its sources beside what was `said` (stems) already."""
        terms = frozenset(content_words(text))
        weight = {term: math.log1p(self._frequency[term]) for term in terms}
        central = sum(weight[term] * (_COVERED if term in said else 1.0) for term in terms) / (len(terms) + 2)
        asked = sum(1 / (1 + weight[term]) for term in terms & self._asked if term not in said)
        aim = any(_AIM.search(span.text) for span in sources)
        place = min((self._order.get(span.start, len(self._order)) for span in sources), default=len(self._order))
        heading = any(self._document.is_heading(span) for span in sources)
        unclear = heading or not is_whole(text) or text.endswith(("?", "？")) or (dangles(text) and not aim)  # noqa: RUF001
        return (
            _CENTRAL * central + _ASKED * asked + _PURPOSE * aim + _PLACE / (1 + place) - (_UNCLEAR if unclear else 0.0)
        )
