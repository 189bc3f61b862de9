"""What a value has that does not fit a JSON schema: the ways to fail, as plain schemas."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from ondevice_sdk.engine.schemas.base import above, below, contained, held
from ondevice_sdk.engine.schemas.patterns import anything_but
from ondevice_sdk.engine.schemas.plain import DIFFERENT, TYPES, Plain, both, canonical, type_of, union
from ondevice_sdk.engine.schemas.refs import Place

if TYPE_CHECKING:
    from ondevice_sdk.engine.schemas.rewrite import Rewriter

_DEPTH: Final = 8  # how far into a schema a denial goes
_MOST_NUMBERS: Final = 64  # numbers that are left out, one by one


class Denial:
    """Gives ways to fail a schema: no value of any fits it. There may be others; a few are not put in words.

    What fails a pattern, a format, `multipleOf`, `uniqueItems` and `unevaluated...` is not.
    """

    def __init__(self, rewriter: Rewriter) -> None:
        self._rewriter = rewriter
        self._depth = 0

    def required(self, place: Place, denied: Place, keyword: str) -> Plain:
        """All ways to fail.

        Raises:
            SchemaUnsupported: there are none that can be put in words, though there may be some.
        """
        ways = self.ways(denied)
        if not ways and not _always(denied.schema):
            raise place.refuse(keyword)
        return union(ways)

    def ways(self, place: Place) -> list[Plain]:
        """The ways to fail the schema of a place, the likeliest first."""
        self._rewriter.definitions.spend()
        schema = place.schema
        if isinstance(schema, bool):
            return [] if schema else [True]
        if self._depth > _DEPTH or not isinstance(schema, dict):
            return []
        self._depth += 1
        try:
            found: list[Plain] = []
            for keyword, deny in _WAYS.items():
                if keyword in schema:
                    found += deny(self, place)
        finally:
            self._depth -= 1
        return [way for way in found if way is not False]

    def _type(self, place: Place) -> list[Plain]:
        named = place.schema["type"]
        named = {named} if isinstance(named, str) else set(named)
        if "integer" in named:
            named.add("number")  # a number with a fraction fails it too, but cannot be asked for
        return _of_types(name for name in TYPES if name not in named)

    def _values(self, place: Place) -> list[Plain]:
        schema = place.schema
        values = [schema["const"]] if "const" in schema else schema["enum"]
        kinds = {type_of(value) for value in values}
        ways = _of_types(name for name in TYPES if name not in kinds)
        texts = [value for value in values if isinstance(value, str)]
        if texts:
            ways.insert(0, {"type": "string", "pattern": anything_but(texts)})
        ways += _other_numbers([value for value in values if type_of(value) == "number"])
        truths = [value for value in (True, False) if "boolean" in kinds and not any(value is each for each in values)]
        ways += [{"enum": truths}] if truths else []
        for kind in ("array", "object"):
            composed = [value for value in values if type_of(value) == kind]
            if composed:
                ways.append(both(_another(value) for value in composed))
        return ways

    def _required(self, place: Place) -> list[Plain]:
        names = place.schema["required"]
        return [_object(properties={name: False}) for name in names] if isinstance(names, list) else []

    def _properties(self, place: Place) -> list[Plain]:
        ways: list[Plain] = []
        for name in place.schema["properties"]:
            failing = union(self.ways(place.inner("properties", name)))
            if failing is not False:
                ways.append(_object(required=[name], properties={name: failing}))
        return ways

    def _items(self, place: Place) -> list[Plain]:
        schema = place.schema
        if isinstance(schema["items"], list):
            return self._prefix(place, "items")
        failing = union(self.ways(place.inner("items")))
        before = len(schema.get("prefixItems", ()))
        return [_array([*[True] * before, failing])] if failing is not False else []

    def _prefix(self, place: Place, keyword: str = "prefixItems") -> list[Plain]:
        ways: list[Plain] = []
        for index, inner in enumerate(self._rewriter.places(place, keyword)):
            failing = union(self.ways(inner))
            if failing is not False:
                ways.append(_array([*[True] * index, failing]))
        return ways

    def _contains(self, place: Place) -> list[Plain]:
        ways = list[Plain]()
        most = contained(place, "maxContains")
        if most is not None:
            ways.append(_array([self._rewriter.schema(place.inner("contains"))] * (most + 1)))
        least = contained(place, "minContains") or 0
        failing = union(self.ways(place.inner("contains")))
        if least > 0:
            none: dict[str, Any] = {"maxItems": 0} if failing is False else {"items": failing}
            ways.append({"type": "array", **none})
        if least > 1:
            ways.append({"type": "array", "maxItems": least - 1})
        return ways

    def _all_of(self, place: Place) -> list[Plain]:
        return [way for inner in self._rewriter.places(place, "allOf") for way in self.ways(inner)]

    def _any_of(self, place: Place) -> list[Plain]:
        return [both(union(self.ways(inner)) for inner in self._rewriter.places(place, "anyOf"))]

    def _one_of(self, place: Place) -> list[Plain]:
        places = self._rewriter.places(place, "oneOf")
        ways = [both(union(self.ways(inner)) for inner in places)]
        plain = [self._rewriter.schema(inner) for inner in places]
        ways += [both((one, other)) for index, one in enumerate(plain) for other in plain[index + 1 :]]
        return ways

    def _not(self, place: Place) -> list[Plain]:
        return [self._rewriter.schema(place.inner("not"))]

    def _condition(self, place: Place) -> list[Plain]:
        schema, condition = place.schema, place.inner("if")
        ways: list[Plain] = []
        if "then" in schema:
            ways.append(both((self._rewriter.schema(condition), union(self.ways(place.inner("then"))))))
        if "else" in schema:
            ways.append(both((union(self.ways(condition)), union(self.ways(place.inner("else"))))))
        return ways

    def _dependent_required(self, place: Place) -> list[Plain]:
        return [
            _object(required=[name], properties={missing: False})
            for name, names in place.schema["dependentRequired"].items()
            for missing in names
            if missing != name
        ]

    def _dependent_schemas(self, place: Place) -> list[Plain]:
        return [
            both((_object(required=[name]), union(self.ways(place.inner("dependentSchemas", name)))))
            for name in place.schema["dependentSchemas"]
        ]

    def _limit(self, place: Place, keyword: str) -> list[Plain]:
        value = place.schema[keyword]
        if isinstance(value, bool) or not isinstance(value, int | float):
            return []
        kind, opposite, step = _OPPOSITES[keyword]
        if step == 0:
            limit = held(place, keyword, low=opposite in ("minimum", "exclusiveMinimum"))
            return [{"type": kind, **_of_number(opposite, limit)}]
        size = int(value) + step
        if opposite == "minProperties" and size > 1:
            return [{"type": kind, opposite: size, DIFFERENT: True}]
        return [{"type": kind, opposite: size}] if size >= 0 else []


def _of_number(keyword: str, value: float) -> dict[str, Any]:
    """A limit of numbers with any digits."""
    if keyword.startswith("exclusive"):
        return {"minimum": above(value)} if keyword == "exclusiveMinimum" else {"maximum": below(value)}
    return {keyword: value}


def _of_types(names: Any) -> list[Plain]:
    kept = list(names)
    return [{"type": kept[0] if len(kept) == 1 else kept}] if kept else []


def _object(**keywords: Any) -> dict[str, Any]:
    return {"type": "object", **keywords}


def _array(items: Sequence[Plain]) -> Plain:
    return {"type": "array", "prefixItems": list(items), "minItems": len(items)}


def _other_numbers(values: list[Any]) -> list[Plain]:
    """Numbers between, below and above these."""
    if not values or len(values) > _MOST_NUMBERS:
        return []
    edges = [-math.inf, *sorted(set(values)), math.inf]
    ways: list[Plain] = []
    for low, high in pairwise(edges):
        way: dict[str, Any] = {"type": "number"}
        if low > -math.inf:
            way["minimum"] = above(low)
        if high < math.inf:
            way["maximum"] = below(high)
        ways.append(way)
    return ways[-1:] + ways[:-1]


def _another(value: Any) -> Plain:
    """An array or object that is not this one: of another size, or with another part."""
    if isinstance(value, list):
        return union([{"type": "array", "minItems": len(value) + 1}, *_shorter(value)])
    if not value:
        return _object(minProperties=1)
    return union(_object(properties={name: False}) for name in value)


def _shorter(value: list[Any]) -> list[dict[str, Any]]:
    return [{"type": "array", "maxItems": len(value) - 1}] if value else []


def _always(schema: Any) -> bool:
    """Whether everything fits a schema, at a glance."""
    return schema is True or schema == {} or canonical(schema) == canonical({"not": False})


# The opposite of a limit: of which type, by which keyword, and how far from it.
_OPPOSITES: Final = {
    "minimum": ("number", "exclusiveMaximum", 0),
    "maximum": ("number", "exclusiveMinimum", 0),
    "exclusiveMinimum": ("number", "maximum", 0),
    "exclusiveMaximum": ("number", "minimum", 0),
    "minLength": ("string", "maxLength", -1),
    "maxLength": ("string", "minLength", 1),
    "minItems": ("array", "maxItems", -1),
    "maxItems": ("array", "minItems", 1),
    "minProperties": ("object", "maxProperties", -1),
    "maxProperties": ("object", "minProperties", 1),
}


def _reference(keyword: str) -> Callable[[Denial, Place], list[Plain]]:
    return lambda denial, place: denial.ways(denial._rewriter.resolve(place, keyword))


def _limit(keyword: str) -> Callable[[Denial, Place], list[Plain]]:
    return lambda denial, place: denial._limit(place, keyword)


# In the order in which the ways are offered.
_WAYS: Final[dict[str, Callable[[Denial, Place], list[Plain]]]] = {
    "const": Denial._values,
    "enum": Denial._values,
    "required": Denial._required,
    "properties": Denial._properties,
    **{keyword: _limit(keyword) for keyword in _OPPOSITES},
    "items": Denial._items,
    "prefixItems": Denial._prefix,
    "contains": Denial._contains,
    "allOf": Denial._all_of,
    "anyOf": Denial._any_of,
    "oneOf": Denial._one_of,
    "not": Denial._not,
    "if": Denial._condition,
    **{keyword: _reference(keyword) for keyword in ("$ref", "$dynamicRef", "$recursiveRef")},
    "dependentRequired": Denial._dependent_required,
    "dependentSchemas": Denial._dependent_schemas,
    "type": Denial._type,
}
