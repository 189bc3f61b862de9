"""The schema of a tool's arguments, narrowed to values that stand in the request.

A small model that writes an argument freely writes what it likes. Held to the numbers and phrases of the request, to
the options that it names, and to those optional arguments that it has something on, the model chooses instead.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

from ondevice_sdk.tasks.tools.evidence import Evidence, quoted, words_of

_DEEPEST: Final = 4  # objects in objects that are narrowed; a type may hold itself

_DATE_FORM = re.compile(r"\b(?:YYYY|MM|DD)([-/. ])(?:MM|DD)\1(?:YYYY|MM|DD)\b")
_TIMED = re.compile(r"YYYY|\bHH\b|HH:MM|ISO.?8601", re.IGNORECASE)
_PER_CENT = re.compile(r"%|\bper ?cent", re.IGNORECASE)
# What else stands in a schema may rule out a value that is taken from the request.
_ABOUT = frozenset({"type", "title", "description", "default", "examples"})
_BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_NUMBERS = frozenset({"integer", "number"})
_WORDS_ON_IT = frozenset({"title", "description"})
# An object with one of these may say which of its fields go together: it stays as it is.
_TOGETHER = frozenset(
    {
        *("allOf", "anyOf", "const", "dependencies", "dependentRequired", "dependentSchemas", "else", "enum", "if"),
        *("maxProperties", "minProperties", "not", "oneOf", "patternProperties", "propertyNames", "then"),
        *("unevaluatedProperties", "$ref"),
    }
)
_FLAG_WORDS = frozenset(words_of("include show return enable use flag"))

Schema = dict[str, Any]


def narrowed(schema: Mapping[str, Any], evidence: Evidence) -> Schema:
    """The schema of arguments, held to what the request says. Whatever fits it fits the schema."""
    return _Narrowing(evidence, _definitions(schema)).fields(dict(schema), 0)


def wanted_numbers(schema: Mapping[str, Any]) -> int:
    """How many numbers an object cannot do without."""
    properties, definitions = schema.get("properties"), _definitions(schema)
    if not isinstance(properties, dict):
        return 0
    return sum(_kind(_resolved(properties[name], definitions)) in _NUMBERS for name in _required(schema))


@dataclass(frozen=True, slots=True)
class _Narrowing:
    evidence: Evidence = field(repr=False)
    definitions: Schema = field(repr=False)

    def fields(self, schema: Schema, depth: int) -> Schema:
        properties = schema.get("properties")
        if not isinstance(properties, dict) or _TOGETHER.intersection(schema) or depth == _DEEPEST:
            return schema
        required = _required(schema)
        spare = len(self.evidence.numbers) - wanted_numbers({**schema, "$defs": self.definitions})
        kept = {
            name: self.value(part, depth)
            for name, part in properties.items()
            if name in required or self.said(name, _resolved(part, self.definitions), spare)
        }
        return {**schema, "properties": kept, "required": list(kept), "additionalProperties": False}

    def said(self, name: str, part: object, spare: int) -> bool:
        """Whether the request has something on an optional argument."""
        if not isinstance(part, dict):
            return False
        listed = _resolved(part.get("items", part), self.definitions)
        if isinstance(listed, dict) and isinstance(listed.get("enum"), list):
            return any(self.evidence.names(value) for value in listed["enum"])
        if _kind(part) == "boolean":
            meant = set(words_of(name)) - _FLAG_WORDS or set(words_of(name))
            return bool(meant) and self.evidence.words.issuperset(meant)
        named = bool(self.evidence.words.intersection(words_of(name)))
        if _kind(part) in _NUMBERS:
            return named and spare > 0
        if _kind(part) == "string":
            dated = self.evidence.dates and _date_form(part)
            return named or bool(dated) or any(self.evidence.names(value) for value in _options(part))
        return named

    def value(self, part: object, depth: int) -> object:
        """The schema of one argument, narrowed."""
        resolved = _resolved(part, self.definitions)
        if not isinstance(resolved, dict):
            return part
        if isinstance(resolved.get("enum"), list):
            named = [value for value in resolved["enum"] if self.evidence.names(value)]
            return {**resolved, "enum": named} if named else part
        kind = _kind(resolved)
        if kind in _NUMBERS:
            return self.number(resolved)
        if kind == "string":
            return self.string(resolved)
        if kind == "array" and isinstance(resolved.get("items"), dict) and "uniqueItems" not in resolved:
            return self.array(resolved, depth)
        return self.fields(resolved, depth + 1) if kind == "object" else part

    def number(self, part: Schema) -> Schema:
        fitting = [value for value in dict.fromkeys(self.given(part)) if _within(part, value)]
        if not fitting or part.keys() - _ABOUT - _BOUNDS:
            return part
        return _described(part) | {"enum": [_plain(value) for value in fitting]}

    def given(self, part: Schema) -> tuple[float, ...]:
        """The numbers of the request, "5 %" as the part of one unless per cents are asked for."""
        if _kind(part) == "integer":
            return tuple(value for value in self.evidence.numbers if not value % 1)
        return self.evidence.numbers if _PER_CENT.search(_description(part)) else self.evidence.parts

    def array(self, part: Schema, depth: int) -> Schema:
        """A list of what stands in the request, not longer than what stands there."""
        if part.keys() - _ABOUT - {"items", "minItems", "maxItems"}:
            return part
        items = _resolved(part["items"], self.definitions)
        limits = {"minItems", "maxItems"}.intersection(part)
        if isinstance(items, dict) and not limits and "enum" not in items:
            lists: Sequence[Sequence[object]] = self.evidence.lists if _kind(items) == "string" else ()
            if _kind(items) in _NUMBERS:
                known = {value for value in self.given(items) if _within(items, value)}
                lists = tuple(run for run in self.evidence.runs if known.issuperset(run))
            if lists and not items.keys() - _ABOUT - _BOUNDS:
                return _described(part) | {"enum": [[_plain(item) for item in found] for found in lists]}
        most = len(self.evidence.numbers) if _kind(items) in _NUMBERS else self.evidence.parts_of_lists
        capped = part if limits else {**part, "minItems": 1, "maxItems": max(1, most)}
        return {**capped, "items": self.value(part["items"], depth)}

    def string(self, part: Schema) -> Schema:
        if part.keys() - _ABOUT - {"format"}:
            return part
        if self.evidence.dates and (form := _date_form(part)):
            return _described(part) | {"enum": [_shown(day, form) for day in self.evidence.dates]}
        if "format" in part or _TIMED.search(_description(part)):
            return part
        named = [value for value in _options(part) if self.evidence.names(value)]
        values = named or list(self.evidence.phrases)
        return {**part, "enum": values} if values else part


def _definitions(schema: Mapping[str, Any]) -> Schema:
    found = schema.get("$defs")
    return found if isinstance(found, dict) else {}


def _required(schema: Mapping[str, Any]) -> list[str]:
    listed, properties = schema.get("required"), schema.get("properties")
    if not isinstance(listed, list) or not isinstance(properties, dict):
        return []
    return [name for name in listed if isinstance(name, str) and name in properties]


def _resolved(part: object, definitions: Schema) -> object:
    """A definition in the place of the reference to it, and what may also be null as what it is otherwise."""
    for _ in range(_DEEPEST):
        if not isinstance(part, dict):
            return part
        choices = part.get("anyOf")
        others = [one for one in choices if one != {"type": "null"}] if isinstance(choices, list) else []
        reference = str(part.get("$ref", "")).removeprefix("#/$defs/")
        if isinstance(found := definitions.get(reference), dict):
            part = found | {name: rule for name, rule in part.items() if name in _WORDS_ON_IT}
        elif len(others) == 1 and isinstance(others[0], dict):
            part = others[0] | {name: rule for name, rule in part.items() if name in _WORDS_ON_IT}
        else:
            return part
    return part


def _kind(part: object) -> str:
    """The one type of a value, beside null; empty where there is none, or several."""
    listed = part.get("type") if isinstance(part, dict) else None
    kinds = [kind for kind in (listed if isinstance(listed, list) else [listed]) if kind != "null"]
    return kinds[0] if len(kinds) == 1 and isinstance(kinds[0], str) else ""


def _within(part: Schema, value: float) -> bool:
    bounds = (("minimum", operator.ge), ("maximum", operator.le))
    strict = (("exclusiveMinimum", operator.gt), ("exclusiveMaximum", operator.lt))
    limits = [(holds, part[name]) for name, holds in (*bounds, *strict) if isinstance(part.get(name), int | float)]
    return all(holds(value, limit) for holds, limit in limits)


def _plain(value: object) -> object:
    return int(value) if isinstance(value, float) and not value % 1 else value


def _date_form(part: Schema) -> str:
    """The form of a date that a string has to have, in the letters Y, M and D; empty for other strings."""
    if part.get("format") == "date":
        return "YYYY-MM-DD"
    found = _DATE_FORM.search(_description(part))
    return found.group() if found else ""


def _shown(day: date, form: str) -> str:
    return form.replace("YYYY", f"{day.year:04}").replace("MM", f"{day.month:02}").replace("DD", f"{day.day:02}")


def _options(part: Schema) -> list[str]:
    """Values that a description names in quotation marks."""
    return quoted(_description(part))


def _description(part: Schema) -> str:
    return str(part.get("description", ""))


def _described(part: Schema) -> Schema:
    return {name: rule for name, rule in part.items() if name in _WORDS_ON_IT}
