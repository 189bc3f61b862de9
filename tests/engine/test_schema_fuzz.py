"""Schemas made at random of all keywords: what is accepted of them is kept."""

from __future__ import annotations

import contextlib
import json
import random
from typing import Any

import pytest

from ondevice_sdk.errors import OutputInvalid, SchemaUnsupported
from ondevice_sdk.evaluate.measures.schemas import is_valid

from .writing import compiler, schema, write

_DRAFTS = (
    *["https://json-schema.org/draft/2020-12/schema"] * 4,
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema#",
    "http://json-schema.org/draft-06/schema#",
)
_NAMES = ("a", "b", "c", "ab", "x y", "é", "$ref")
_VALUES: tuple[Any, ...] = (
    0,
    1,
    1.0,
    2,
    -1,
    True,
    False,
    None,
    "a",
    "b",
    "",
    [],
    [1],
    [1, 2],
    {},
    {"a": 1},
    {"a": 1, "b": 2},
    0.5,
    "é",
)
_TYPES: tuple[Any, ...] = (
    "string",
    "number",
    "integer",
    "boolean",
    "null",
    "array",
    "object",
    ["string", "null"],
    ["array", "object"],
)
_ONE = ("additionalProperties", "items", "contains", "not", "if", "then", "else", "propertyNames")
_REST = ("unevaluatedProperties", "unevaluatedItems")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED = ("properties", "dependentSchemas", "dependencies")
_PLAIN: dict[str, tuple[Any, ...]] = {
    "minProperties": (0, 1, 2, 3),
    "maxProperties": (0, 1, 2, 3),
    "minItems": (0, 1, 2, 3),
    "maxItems": (0, 1, 2, 3),
    "uniqueItems": (True,),
    "minContains": (0, 1, 2),
    "maxContains": (1, 2),
    "minLength": (0, 1, 3),
    "maxLength": (0, 1, 4),
    "pattern": ("^a", "b$", "^[ab]+$", "x"),
    "format": ("date", "email", "of-its-own"),
    "minimum": (-1, 0, 2.5),
    "maximum": (0, 3, 10.5),
    "multipleOf": (1, 2, 0.5, 0.1),
    "const": _VALUES,
    "required": (["a"], ["b", "ab"], ["é"]),
    "dependentRequired": ({"a": ["b"]}, {"ab": ["c", "a"]}),
    "enum": ([0, "a", None], [[1, 2], {"a": 1}, True], ["b", "", "é", 2]),
    "$ref": ("#/$defs/p", "#/$defs/q"),
}


class _Maker:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def document(self) -> dict[str, Any]:
        whole = self._schema(3)
        own = whole if isinstance(whole, dict) else {}
        return {"$schema": self._random.choice(_DRAFTS), **own, "$defs": {"p": self._schema(1), "q": self._schema(2)}}

    def _schema(self, depth: int) -> Any:
        draw = self._random
        if draw.random() < 0.06:
            return draw.choice((True, False))
        made: dict[str, Any] = {"type": draw.choice(_TYPES)} if draw.random() < 0.6 else {}
        keywords = [*_PLAIN, *(*_ONE, *_REST, *_LISTS, *_NAMED, "patternProperties") * (depth > 0)]
        for keyword in draw.sample(keywords, draw.randrange(4)):
            if keyword in _PLAIN:
                made[keyword] = draw.choice(_PLAIN[keyword])
            elif keyword in _LISTS:
                made[keyword] = [self._schema(depth - 1) for _ in range(draw.randint(1, 3))]
            elif keyword in _NAMED:
                made[keyword] = {draw.choice(_NAMES): self._schema(depth - 1) for _ in range(draw.randint(1, 3))}
            elif keyword == "patternProperties":
                made[keyword] = {draw.choice(("^a", "b", "^.$", "c$")): self._schema(depth - 1)}
            else:
                made[keyword] = self._schema(depth - 1)
        return made


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_a_schema_made_at_random_is_kept_or_refused(seed: int) -> None:
    maker, made, written = _Maker(seed), compiler(), 0
    for index in range(60):
        document = maker.document()
        with contextlib.suppress(SchemaUnsupported, OutputInvalid):
            for limit in (40, 120):
                text = write(made, schema(document), index, limit)
                assert is_valid(json.loads(text), document), (document, text)
                written += 1
    assert written > 60, "most are accepted"
