"""Which statements make the summary: the model's that the document bears out, then the document's own sentences.

They are taken one by one, the worthiest beside what is said already, and each in the longest form that keeps to the
limit of words. Nothing is cut within a sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from ondevice_sdk.tasks.plan import Plan
from ondevice_sdk.tasks.statements import quote, say_same
from ondevice_sdk.text.keyphrases import ranked_phrases
from ondevice_sdk.text.salience import Salience
from ondevice_sdk.text.shorten import shorter
from ondevice_sdk.text.spans import Document
from ondevice_sdk.text.split import count_words
from ondevice_sdk.text.terms import content_words
from ondevice_sdk.text.turns import Turns
from ondevice_sdk.types import Point, Span

_WEIGHED = 60  # best candidates by themselves per point wanted, which are then weighed beside each other: linear time
_LEAST_FILLER = 8  # words of a sentence that fills up a limit of words; with fewer it says little
_LEAST_OWN = 5  # words of the model that are preferred to a sentence of the document
# More for the model's own words, under a limit of words: of 0 to 2, from 0.3 to 0.6 did best (SciTLDR, 47 rows: ROUGE-1
# 0.38 with a third of quotations; with 0 three quarters are quotations, with 2 it is 0.35).
_OWN = 0.6
# These two chosen by eye.
_MEANT = 0.3  # more for a sentence that a statement of the model came from which did not hold
_SHORTENED = 0.1  # less for a sentence that has to be shortened: a whole one reads better
_PHRASES = 20  # key phrases tried as a headline where no sentence is short enough


@dataclass(slots=True)
class Picker:
    """The document and the plan of a summary, indexed once."""

    document: Document
    plan: Plan
    _salience: Salience = field(init=False, repr=False)
    _turns: Turns = field(init=False, repr=False)
    _quotes: list[Point] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._salience = Salience(self.document, self.plan.context)
        self._turns = Turns(self.document.text)
        self._quotes = list(self._made_quotes())

    def pick(self, own: Sequence[Point], meant: Iterable[Span] = (), *, quotes: bool = True) -> list[Point]:
        """The points of the summary in the order of the document; none where nothing keeps to the limit of words.

        Args:
            own: what the model wrote and the document bears out.
            meant: sentences that other statements of the model came from, which did not hold.
            quotes: whether sentences of the document may stand in for what is missing.
        """
        chosen: list[Point] = []
        near = frozenset(span.start for span in meant)
        few_words = self.plan.words is not None and self.plan.style != "headline"
        # With few words the choice of the statement is all, so that a sentence of clearly more worth goes first.
        self._take(chosen, [*own, *self._quotes] if quotes and few_words else own, near, _LEAST_FILLER)
        if quotes:
            if self.plan.style == "headline" and self.document.is_heading(self._quotes[0].sources[0]):
                self._take(chosen, self._quotes[:1], near, 0)  # the text's own title
            if not few_words:
                self._take(chosen, self._quotes, near, _LEAST_FILLER)
            if not chosen:
                self._take(chosen, [*own, *self._quotes], near, 0)
            if not chosen and self.plan.style == "headline":
                chosen = [point for point in self._phrases() if self.fits(point)][:1]
        elif not chosen:
            self._take(chosen, own, frozenset(), 0)
        if self.plan.style == "headline":
            chosen = [replace(point, text=point.text.rstrip(".") or point.text) for point in chosen]
        return sorted(chosen, key=_place)

    def fits(self, point: Point) -> bool:
        """Whether the statement, or a shorter form of it, keeps to the limit of words alone."""
        return self._fitted(point, self._room([]), 0) is not None

    def central(self) -> Point:
        """The worthiest sentence, whatever its length."""
        return max(self._quotes, key=lambda point: (self._worth(point), -_place(point)))

    def _take(self, chosen: list[Point], pool: Iterable[Point], near: frozenset[int], least: int) -> None:
        every, most = self._ranked(pool, near), _WEIGHED * (self.plan.most_statements + 1)
        ranked, rest = every[:most], every[most:]
        while ranked and len(chosen) < self.plan.most_statements:
            room = self._room(chosen)
            if chosen and room is not None and room < _LEAST_FILLER:
                return
            if chosen:
                said = frozenset(term for point in chosen for term in content_words(point.text))
                ranked = self._ranked((point for _, point in ranked), near, said)
            best: tuple[float, Point, Point] | None = None
            for worth, point in ranked:
                if best is not None and worth <= best[0]:
                    break
                fitted = self._fitted(point, room, least)
                if fitted is not None and not any(say_same(fitted.text, other.text) for other in chosen):
                    worth -= 0.0 if fitted.text == point.text else _SHORTENED
                    best = (worth, point, fitted) if best is None or worth > best[0] else best
            if best is None:  # all of these are said already, or too long
                ranked, rest = rest[:most], rest[most:]
                continue
            ranked = [each for each in ranked if each[1] is not best[1]]
            chosen.append(best[2])

    def _ranked(
        self, pool: Iterable[Point], near: frozenset[int], said: frozenset[str] = frozenset()
    ) -> list[tuple[float, Point]]:
        """The candidates with their worth, best first."""
        worth = []
        for point in pool:
            more = _OWN if point.status != "extractive" else _MEANT if _place(point) in near else 0.0
            worth.append((self._worth(point, said) + more, point))
        return sorted(worth, key=lambda each: (-each[0], _place(each[1])))

    def _worth(self, point: Point, said: frozenset[str] = frozenset()) -> float:
        return self._salience.score(point.text, point.sources, said)

    def _fitted(self, point: Point, room: int | None, least: int) -> Point | None:
        """The statement in its longest form of `least` to `room` words, whole or not at all."""
        if room is None:
            return point
        label = self._label(point)
        for form in shorter(point.text.removeprefix(label), room - count_words(label)):
            text = label + form
            own = point.status != "extractive" and text == point.text
            if count_words(form) < (min(least, _LEAST_OWN) if own else least):
                return None
            if text == point.text:
                return point
            if point.status == "extractive":
                return replace(point, text=text)
            support = self.document.support(form)
            if support.supported:
                return Point(text, support.spans, "repaired")
        return None

    def _room(self, chosen: Sequence[Point]) -> int | None:
        """Words left. Signs of Markdown count too, since a reader of the raw text may count them."""
        if self.plan.words is None:
            return None
        marks = 0 if self.plan.format == "plain" or self.plan.prose else len(chosen) + 1
        return self.plan.words - marks - sum(count_words(point.text) for point in chosen)

    def _made_quotes(self) -> Iterator[Point]:
        """Sentences of the document, in a transcript with their speakers; headings only where there is nothing else."""
        spans = [span for span in self.document.sentences if any(sign.isalnum() for sign in span.text)]
        spans = spans or self.document.sentences
        if self.plan.style != "headline":
            spans = [span for span in spans if not self.document.is_heading(span)] or spans
        for span in spans:
            point = quote(span)
            label = self._label(point)
            yield point if not label or point.text.startswith(label) else replace(point, text=label + point.text)

    def _label(self, point: Point) -> str:
        """What a quoted turn starts with; the model may leave it out."""
        speaker = self._turns.speaker(_place(point))
        label = f"{speaker}: " if speaker else ""
        return label if point.status == "extractive" or point.text.startswith(label) else ""

    def _phrases(self) -> Iterator[Point]:
        for phrase in ranked_phrases(self.document.text, _PHRASES):
            yield Point(phrase.text[0].upper() + phrase.text[1:], phrase.spans[:1], "extractive")


def _place(point: Point) -> int:
    return point.sources[0].start if point.sources else 0
