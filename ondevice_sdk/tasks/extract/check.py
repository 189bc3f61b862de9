"""Values that a model wrote, held against the text: what it does not bear out is taken out where the schema allows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ondevice_sdk.tasks.extract.found import doubtful, pointer
from ondevice_sdk.text.retrieval import Index
from ondevice_sdk.text.values import numbers
from ondevice_sdk.types import Evidence, JsonValue, Span

_WORDS = 0.7  # share of a longer value's words, rare ones counting more, that one sentence has to hold; by eye
_DEEPEST = 64  # values in values, and alternatives in a schema, that are followed: bounds the work


@dataclass(slots=True)
class Check:
    """Holds values against one text, indexed once."""

    text: str = field(repr=False)
    schema: Any = field(repr=False)
    evidence: list[Evidence] = field(default_factory=list, repr=False)
    warnings: list[str] = field(default_factory=list)
    _index: Index = field(init=False, repr=False)
    _numbers: dict[float, Span] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._index = Index(self.text)
        self._numbers = {}
        for span, value in numbers(self.text):
            self._numbers.setdefault(value, span)

    def place(self, value: JsonValue) -> Span | None:
        """Where the text bears a single value out: its words, or the sentence that holds most of them."""
        if isinstance(value, bool) or value is None:
            return None
        if isinstance(value, int | float):
            return self._numbers.get(value) if abs(value) < float(2**53) else None
        if not isinstance(value, str) or not value.strip():
            return None
        exact = self._quoted(value)
        if exact is not None:
            return exact
        for passage in self._index.search(value, 1):
            if self._index.share(value, passage.span) >= _WORDS:
                return passage.span
        return None

    def bears(self, value: JsonValue) -> bool:
        """Whether the text bears a single value out."""
        return self.place(value) is not None

    def kept(self, value: JsonValue) -> JsonValue:
        """The value with what is borne out; null or nothing in the place of the rest, where the schema allows that."""
        left, _ = self._kept(value, self.schema, (), spare=False)
        return left

    def _kept(self, value: JsonValue, schema: Any, path: tuple[str, ...], *, spare: bool) -> tuple[JsonValue, bool]:
        """What is left of a value, and whether it is to be left out. `spare`: the schema allows that."""
        if len(path) > _DEEPEST:
            return value, False
        parts = self._parts(schema)
        if isinstance(value, dict):
            held: dict[str, JsonValue] = {}
            for name, item in value.items():
                part = next((p["properties"][name] for p in parts if name in p.get("properties", {})), None)
                free = part is None  # the schema does not name the key
                if free:
                    others = (p.get("additionalProperties") for p in parts)
                    part = next((each for each in others if isinstance(each, Mapping)), None)
                wanted = any(name in p.get("required", ()) for p in parts) or part is None
                told = len(self.warnings)
                left, out = self._kept(item, part, (*path, name), spare=not wanted)
                if free and len(self.warnings) > told:  # such a key may be of the text: not for a warning
                    self.warnings[told:] = [doubtful((*path, "*"))]
                    self.warnings = list(dict.fromkeys(self.warnings))
                if not out:
                    held[name] = left
            return held, False
        if isinstance(value, list):
            part = next((p["items"] for p in parts if isinstance(p.get("items"), Mapping)), None)
            least = max((int(p.get("minItems", 0)) for p in parts), default=0)
            items: list[JsonValue] = []
            for at, item in enumerate(value):
                # an item that is left out moves those behind it: paths count what is kept
                spared = len(value) - at + len(items) > least and part is not None
                left, out = self._kept(item, part, (*path, str(len(items))), spare=spared)
                if not out:
                    items.append(left)
            return items, False
        if value is None or any("const" in p for p in parts):
            return value, False
        place = self.place(value)
        if place is not None:
            self.evidence.append(Evidence(place.start, place.end, place.text, pointer(path)))
            return value, False
        if isinstance(value, bool) or any("enum" in p for p in parts):
            return value, False  # a judgement, not a quotation
        if any(p.get("type") == "null" or "null" in _listed(p.get("type")) for p in parts):
            return None, False
        if spare:
            return value, True
        self.warnings.append(doubtful(path))
        return value, False

    def _quoted(self, value: str) -> Span | None:
        """Where the text has a string as whole words, whatever white space and letter case."""
        signs = value.split()
        left = r"(?<!\w)" if signs[0][0].isalnum() and signs[0][0].isascii() else ""
        right = r"(?!\w)" if signs[-1][-1].isalnum() and signs[-1][-1].isascii() else ""
        words = r"\s+".join(map(re.escape, signs))
        pattern = f"{left}{words}{right}"
        match = re.search(pattern, self.text) or re.search(pattern, self.text, re.IGNORECASE)
        return Span(match.start(), match.end(), match.group()) if match is not None else None

    def _parts(self, schema: Any) -> list[Mapping[str, Any]]:
        """A schema and all that it refers to or offers as alternatives."""
        found: list[Mapping[str, Any]] = []
        waiting = [schema]
        while waiting and len(found) < _DEEPEST:
            part = waiting.pop()
            if not isinstance(part, Mapping) or part in found:
                continue
            found.append(part)
            if isinstance(part.get("$ref"), str):
                waiting.append(self._pointed(part["$ref"]))
            for name in ("anyOf", "oneOf", "allOf"):
                waiting.extend(part.get(name) or ())
        return found

    def _pointed(self, reference: str) -> Any:
        target = self.schema
        for step in reference.removeprefix("#").split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            target = target.get(name) if isinstance(target, Mapping) else None
        return target


def _listed(kind: Any) -> list[Any]:
    return kind if isinstance(kind, list) else []
