"""Fields read out of a text: right ones, missed ones, invented ones."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ondevice_sdk.evaluate import metrics
from ondevice_sdk.evaluate.compare import About, Metric, Outcomes, compare
from ondevice_sdk.evaluate.data import Record
from ondevice_sdk.evaluate.measures.measure import Sample
from ondevice_sdk.evaluate.metrics import Counts
from ondevice_sdk.evaluate.report import Row
from ondevice_sdk.evaluate.session import Prompt, Session
from ondevice_sdk.types import JsonValue

FIELD_F1: Final = Metric("field F1", metrics.f1)
INVENTED: Final = Metric("invented fields", metrics.invented, "lower")

_ANSWER_TOKENS = 160
_PROMPTS = (
    Prompt("fields-after", "{text}\n\nExtract from the text above: {fields}. Answer in JSON."),
    Prompt("fields-first", "Extract {fields} from this text as JSON.\n\nText: {text}\n\nJSON:"),
    Prompt("fields-lines", "{text}\n\nWrite the {fields} of the text above, one per line, as field: value."),
)
_RECIPE = ("quantity", "unit", "food")
_LINE = re.compile(r"^\W*([\w ]{1,40}?)\W*:\s*(.{1,200})$", re.MULTILINE)

Values = tuple[tuple[str, str], ...]  # field and value, both normalised


@dataclass(frozen=True, slots=True)
class Gold:
    """What is right: a field counts as missed only if the text holds its value."""

    text: str
    wanted: Values
    allowed: Values = ()  # right, but not to be found word by word


@dataclass(frozen=True, slots=True)
class FieldMeasure(ABC):
    """Fields of a text.

    A value is right when its letters and digits are those of the gold value, and invented when they do not occur in
    the text.
    """

    family: str = "extract"
    text: str = "text"

    def rows(self, session: Session, sample: Sample) -> list[Row]:
        """Figures of the set."""
        schemas = self._schemas(sample)
        gold = [self._gold(record) for record in sample.records]
        answers = session.analyse_each([(each.text, schema) for each, schema in zip(gold, schemas, strict=True)])
        known = [_names(schema) for schema in schemas]
        ours = [
            self._count(each, read(answer.output) if answer is not None else ())
            for each, answer in zip(gold, answers.values, strict=True)
        ]
        fills = [
            {"text": each.text, "fields": ", ".join(name.replace("_", " ") for name in names)}
            for each, names in zip(gold, known, strict=True)
        ]
        asked = session.ask(_PROMPTS, fills, _ANSWER_TOKENS)
        naive = {
            name: [
                self._count(each, parse_fields(said, names))
                for each, said, names in zip(gold, given, known, strict=True)
            ]
            for name, given in asked.answers.items()
        }
        about = About(sample.set, self.family, answers.seconds, asked.seconds, asked.noted(answers.note))
        both = Outcomes(ours, naive)
        return [compare(about, metric, both, ranked_by=FIELD_F1) for metric in (FIELD_F1, INVENTED)]

    @abstractmethod
    def _schemas(self, sample: Sample) -> list[Mapping[str, JsonValue]]:
        """A JSON schema for each row."""

    @abstractmethod
    def _gold(self, record: Record) -> Gold:
        """The right fields of a row."""

    def _count(self, gold: Gold, given: Values) -> Counts:
        left, free = Counter(gold.wanted), set(gold.allowed)
        rest = [value for value in given if value not in free]
        right = 0
        for value in rest:
            if left[value] > 0:
                left[value] -= 1
                right += 1
        source = normal(gold.text)
        return Counts(right, len(rest), len(gold.wanted), sum(said not in source for _, said in rest))


@dataclass(frozen=True, slots=True)
class ObjectMeasure(FieldMeasure):
    """One object a row: `{field: value or list of values}`.

    Args:
        values: the field of the object.
        kind: a field by which rows differ in what is asked of them; each kind has the fields that its rows have.
        literal: only values that stand in the text word by word can be missed.
    """

    values: str = "fields"
    kind: str | None = None
    literal: bool = True

    def _schemas(self, sample: Sample) -> list[Mapping[str, JsonValue]]:
        fields: dict[str, set[str]] = {}
        for record in sample.whole:
            fields.setdefault(self._kind(record), set()).update(record.mapping(self.values))
        return [_object(sorted(fields[self._kind(record)])) for record in sample.records]

    def _gold(self, record: Record) -> Gold:
        text = record.string(self.text)
        found = read(dict(record.mapping(self.values)))
        source = normal(text)
        there = tuple(value for value in found if not self.literal or value[1] in source)
        return Gold(text, there, tuple(value for value in found if value not in there))

    def _kind(self, record: Record) -> str:
        return record.string(self.kind) if self.kind is not None else ""


@dataclass(frozen=True, slots=True)
class RecipeMeasure(FieldMeasure):
    """Ingredients: one object with quantity, unit and food a line."""

    def _schemas(self, sample: Sample) -> list[Mapping[str, JsonValue]]:
        item: dict[str, JsonValue] = {**_object(_RECIPE)}
        what = "List the ingredients of the text above, each with quantity, unit and food."
        return [{"type": "array", "items": item, "maxItems": 20, "description": what} for _ in sample.records]

    def _gold(self, record: Record) -> Gold:
        found = [
            (entity.string("type"), normal(entity.string("text")))
            for line in record.records("lines")
            for entity in line.records("entities")
            if entity.string("type") in _RECIPE
        ]
        return Gold(record.string(self.text), tuple(found))


def read(value: JsonValue, name: str = "") -> Values:
    """The fields of an object, or of all objects of a list; empty values are none."""
    if isinstance(value, dict):
        return tuple(found for key, part in value.items() for found in read(part, normal(key)))
    if isinstance(value, list):
        return tuple(found for part in value for found in read(part, name))
    said = normal(json.dumps(value) if isinstance(value, bool) else str(value)) if value is not None else ""
    return ((name, said),) if name and said else ()


def normal(text: str) -> str:
    """Letters and digits in lower case, single blanks between: what two spellings of a value have in common."""
    return " ".join(re.findall(r"\w+", text.casefold().replace("_", " ")))


def parse_fields(answer: str, names: Sequence[str]) -> Values:
    """Fields of a free answer: its first JSON value, else lines of field and value. Unknown fields are left out."""
    known = {normal(name) for name in names}
    value = first_json(answer)
    found = read(value) if value else tuple((normal(n), normal(v)) for n, v in _LINE.findall(answer))
    return tuple((name, said) for name, said in found if name in known and said)


def first_json(answer: str) -> JsonValue:
    """The first object or list in a text, an empty one only if there is no other; None without one."""
    decoder = json.JSONDecoder()
    empty: JsonValue = None
    for match in re.finditer(r"[{\[]", answer):
        try:
            value: JsonValue = decoder.raw_decode(answer, match.start())[0]
        except (ValueError, RecursionError):
            continue
        if value:
            return value
        empty = value if empty is None else empty
    return empty


def _object(names: Iterable[str]) -> dict[str, JsonValue]:
    properties: dict[str, JsonValue] = {name: {"type": "string", "maxLength": 80} for name in names}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _names(schema: Mapping[str, JsonValue]) -> list[str]:
    item = schema.get("items", schema)
    properties = item.get("properties") if isinstance(item, Mapping) else None
    return list(properties) if isinstance(properties, dict) else []
