"""Names of people, places and organisations: candidates found by their shape, judged by the model's scores.

The model writes nothing, so it can invent nothing. After solved examples it is shown a candidate in its sentence and
tells by the probabilities of "person", "place", ... what it takes it for; and once more alone ("Oslo is a" city). A
fixed weighing (`text.naming`) joins that with what the shape says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ondevice_sdk.backends.api import Raw, Score, Scored
from ondevice_sdk.errors import GenerationFailed, InputTooLong
from ondevice_sdk.tasks.flow import Flow, Step
from ondevice_sdk.tasks.reading import LEAST_TOKENS, count_tokens
from ondevice_sdk.text.candidates import Candidate, candidates
from ondevice_sdk.text.naming import KINDS, LABELS, SORTS, evidence, probabilities
from ondevice_sdk.types import Segment, Span, Usage

__all__ = ["Named", "evidence_of", "find_names", "requests_for"]

_AROUND = 120  # bytes shown on each side of a candidate, within its sentence
_MOST_PLACES = 2  # places of one name that are shown to the model: what follows of a long text is judged by these
_AT_ONCE = 256  # requests of a step, after each of which progress is told
_LONGEST = 200  # bytes of a candidate that is shown
_ECHO = 0.9  # how much of the confidence in "Anna Meier" a later "Meier" gets at least; by eye

_SHOWN = (  # invented; every kind twice, and the easy mistakes: a first word of a sentence, a thing with a name
    ("Last week Tom Reed drove from Lisbon to Porto.", "Tom Reed", "person"),
    ("The new engineers at Halcom Ltd seem happy.", "Halcom Ltd", "organization"),
    ("Thanks for the report on the Harbour Bridge!", "Thanks", "word"),
    ("Thanks for the report on the Harbour Bridge!", "Harbour Bridge", "place"),
    ("UNICEF said that Anna would speak on Monday.", "UNICEF", "organization"),
    ("UNICEF said that Anna would speak on Monday.", "Anna", "person"),
    ("Really good Windows laptop, Great price", "Great", "word"),
    ("Really good Windows laptop, Great price", "Windows", "product"),
    ("Last week Tom Reed drove from Lisbon to Porto.", "Lisbon", "place"),
)
_TOLD = (  # more than 64 tokens together: the engine reuses no shorter beginnings
    ("Oslo", "city"),
    ("Maria", "woman"),
    ("Thanks", "word"),
    ("Peru", "country"),
    ("Siemens", "company"),
    ("Tom Reed", "man"),
    ("Leeds United", "team"),
    ("Great", "word"),
    ("Keller", "family"),
    ("Windows", "product"),
    ("Oak Street", "street"),
    ("Yale", "school"),
    ("Lake Vrana", "place"),
    ("Delivery", "word"),
    ("Red Cross", "group"),
)
_TEXT_SHOTS = "".join(f"Text: {text}\n{name}: {kind}\n\n" for text, name, kind in _SHOWN)
_NAME_SHOTS = "".join(f"{name} is a {sort}.\n" for name, sort in _TOLD)
_IN_TEXT = tuple(f" {label}" for label in LABELS)
_ALONE = tuple(f" {sort}" for sort in SORTS)


@dataclass(frozen=True, slots=True)
class Named:
    """A range that names something: "person", "place" or "organisation", and how likely that is."""

    span: Span
    kind: str
    confidence: float


def find_names(text: str, *, context_tokens: int) -> Flow[tuple[list[Named], Usage]]:
    """Every candidate of the text with its likeliest kind, in order and without overlaps; unlikely ones too.

    Raises:
        InputTooLong: the context is too small for the examples and a line of text.
    """
    found = candidates(text)
    if not found:
        return [], Usage()
    _, (frame,) = yield from count_tokens((), [_in_text("", "")])
    if frame + LEAST_TOKENS > context_tokens:
        needed = frame + LEAST_TOKENS
        raise InputTooLong(tokens=needed, limit=context_tokens, hint="load the model with a larger context")
    around = min(_AROUND, (context_tokens - frame) // 3)  # a byte may be a token, on each of two sides
    places: dict[str, list[Candidate]] = {}
    for candidate in found:
        places.setdefault(candidate.span.text, []).append(candidate)
    asked = dict.fromkeys(
        request
        for group in places.values()
        for candidate in group[:_MOST_PLACES]
        for request in requests_for(text, candidate, around)
    )
    scores, usage = yield from _scored(list(asked))
    named = []
    for group in places.values():
        shown = [
            evidence_of([scores[request] for request in requests_for(text, candidate, around)])
            for candidate in group[:_MOST_PLACES]
        ]
        mean = [math.fsum(column) / len(shown) for column in zip(*shown, strict=True)]
        for candidate in group:
            chances = probabilities(candidate.cues, mean)
            best = max(range(1, len(KINDS)), key=chances.__getitem__)
            named.append(Named(candidate.span, KINDS[best], chances[best]))
    return _with_echoes(sorted(named, key=lambda name: name.span.start)), usage


def requests_for(text: str, candidate: Candidate, around: int = _AROUND) -> tuple[Score, ...]:
    """What the model is asked of a candidate: alone, and in its text.

    Not in Japanese text, of which such models know too little for what its many tokens cost.
    """
    name = " ".join(candidate.span.text.split()).encode()[:_LONGEST].decode(errors="ignore")
    alone = Score(Raw((Segment(f"{_NAME_SHOTS}{name} is a"),)), _ALONE)
    if "japanese" in candidate.cues:
        return (alone,)
    return alone, Score(_in_text(_window(text, candidate, around), name), _IN_TEXT)


def evidence_of(answers: Sequence[Sequence[float]]) -> list[float]:
    """What the answers to `requests_for` say."""
    return evidence(answers[0], answers[1] if len(answers) > 1 else None)


def _in_text(window: str, name: str) -> Raw:
    return Raw((Segment(f"{_TEXT_SHOTS}Text: {window}\n{name}:"),))  # one segment: cut in two, it has other tokens


def _window(text: str, candidate: Candidate, around: int) -> str:
    """The sentence, or whole words of it on both sides of the candidate."""
    span, sentence = candidate.span, candidate.sentence
    around = around * len(sentence.text) // len(sentence.text.encode())  # as many bytes in every script
    start, end = max(sentence.start, span.start - around), min(sentence.end, span.end + around)
    if start > sentence.start:
        start = text.find(" ", start, span.start) + 1 or start
    if end < sentence.end:
        gap = text.rfind(" ", span.end, end)
        end = gap if gap > 0 else end
    return " ".join(text[start:end].split())


def _scored(requests: Sequence[Score]) -> Flow[tuple[dict[Score, Sequence[float]], Usage]]:
    scores: dict[Score, Sequence[float]] = {}
    usage = Usage()
    for at in range(0, len(requests), _AT_ONCE):
        batch = requests[at : at + _AT_ONCE]
        results = yield Step(tuple(batch), "judging names")
        for request, result in zip(batch, results, strict=True):
            if not isinstance(result, Scored) or len(result.logprobs) != len(request.continuations):
                raise GenerationFailed("the engine answered a scoring with something else")
            scores[request] = result.logprobs
            usage += result.usage
    return scores, usage


def _with_echoes(named: Sequence[Named]) -> list[Named]:
    """A part of a person's full name is that person, more likely than it seems alone."""
    parts: dict[str, float] = {}
    for name in named:
        words = name.span.text.split()
        if name.kind == "person" and len(words) > 1:
            for word in (words[0], words[-1]):
                parts[word] = max(parts.get(word, 0.0), _ECHO * name.confidence)
    found = []
    for name in named:
        echo = parts.get(name.span.text, 0.0)
        better = echo > name.confidence or (name.kind != "person" and echo > 0.5)
        found.append(Named(name.span, "person", echo) if better else name)
    return found
