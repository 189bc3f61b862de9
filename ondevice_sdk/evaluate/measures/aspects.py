"""Aspects of products and how the reviewer feels about each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ondevice_sdk.evaluate import metrics
from ondevice_sdk.evaluate.compare import About, Metric, Outcomes, compare
from ondevice_sdk.evaluate.data import Record
from ondevice_sdk.evaluate.measures.extraction import first_json, normal
from ondevice_sdk.evaluate.measures.measure import Sample
from ondevice_sdk.evaluate.metrics import Counts
from ondevice_sdk.evaluate.report import Row
from ondevice_sdk.evaluate.session import Prompt, Session
from ondevice_sdk.types import JsonValue

ASPECT_F1: Final = Metric("aspect F1", metrics.f1)

_FEELINGS = ("positive", "negative")
_ITEM: dict[str, JsonValue] = {
    "type": "object",
    "properties": {
        "aspect": {"type": "string", "minLength": 1, "maxLength": 40},
        "sentiment": {"type": "string", "enum": list(_FEELINGS)},
    },
    "required": ["aspect", "sentiment"],
    "additionalProperties": False,
}
_SCHEMA: Mapping[str, JsonValue] = {
    "type": "array",
    "items": _ITEM,
    "maxItems": 5,
    "description": "List the features of the product that the review above judges, each with its sentiment.",
}
_PROMPTS = (
    Prompt(
        "aspects-lines",
        "{text}\n\nWhich features of the product does this review judge? "
        "Write feature: positive or feature: negative, one per line.",
    ),
    Prompt(
        "aspects-json",
        "{text}\n\nList the judged product features as JSON: "
        '[{{"aspect": "...", "sentiment": "positive or negative"}}]',
    ),
    Prompt(
        "aspects-first",
        "Find the product features in this review and whether the opinion of each is positive or negative."
        "\n\nReview: {text}\n\nFeature: opinion",
    ),
)

Judged = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class AspectMeasure:
    """F1 of pairs of aspect and feeling; an aspect is right when it is the same words."""

    family: str = "aspects"

    def rows(self, session: Session, sample: Sample) -> list[Row]:
        """Figures of the set."""
        texts = [record.string("text") for record in sample.records]
        gold = [_gold(record) for record in sample.records]
        answers = session.analyse(texts, _SCHEMA)
        ours = [judged(answer.output) if answer is not None else Judged() for answer in answers.values]
        asked = session.ask(_PROMPTS, [{"text": text} for text in texts], 64)
        naive = {name: [parse_aspects(said) for said in given] for name, given in asked.answers.items()}

        def counts(system: Iterable[Judged]) -> list[Counts]:
            return [
                Counts(len(wanted & given), len(given), len(wanted)) for wanted, given in zip(gold, system, strict=True)
            ]

        about = About(sample.set, self.family, answers.seconds, asked.seconds, asked.noted(answers.note))
        return [compare(about, ASPECT_F1, Outcomes(counts(ours), {n: counts(g) for n, g in naive.items()}))]


def judged(value: JsonValue) -> Judged:
    """The pairs in a JSON value: a list of objects, or one object of aspects and feelings."""
    found = set()
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, dict):
            continue
        pairs = [(item["aspect"], item.get("sentiment"))] if "aspect" in item else list(item.items())
        for aspect, feeling in pairs:
            if isinstance(aspect, str) and isinstance(feeling, str) and feeling.casefold() in _FEELINGS:
                found.add((normal(aspect), feeling.casefold()))
    return frozenset(found)


def parse_aspects(answer: str) -> Judged:
    """The pairs in a free answer: JSON, else lines of feature and feeling."""
    value = first_json(answer)
    if value:
        return judged(value)
    found = set()
    for line in answer.splitlines():
        name, _, said = line.partition(":")
        feeling = next((word for word in _FEELINGS if word in said.casefold()), None)
        if feeling is not None and normal(name):
            found.add((normal(name), feeling))
    return frozenset(found)


def _gold(record: Record) -> Judged:
    return frozenset(
        (normal(aspect.string("aspect")), "positive" if aspect.number("score") > 0 else "negative")
        for aspect in record.records("aspects")
    )
