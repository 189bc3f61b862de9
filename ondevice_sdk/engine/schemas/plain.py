"""Plain schemas: those that llguidance takes. How they are joined, and what can be said of them at a glance."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

Plain = bool | dict[str, Any]

TYPES: Final = ("string", "number", "boolean", "null", "array", "object")
REFERENCE: Final = "#/$defs/"
STEP: Final = "x-ondevice-step"  # of a number: what it divided by is whole, in the arithmetic of validators
DIFFERENT: Final = "x-ondevice-different"  # of an array: items; of an object: names, of which some are not fixed
_DEPTH: Final = 6  # how far into a schema a glance goes
_MOST_VALUES: Final = 1000  # values of a set that are counted
_ALLOWANCE: Final = 200_000  # glances at parts of one document: about a second


class Definitions(dict[str, Plain]):
    """The definitions of a document by name, and how often its parts may still be looked at."""

    def __init__(self) -> None:
        super().__init__()
        self._left = _ALLOWANCE

    def spend(self) -> None:
        """Count a glance.

        Raises:
            RecursionError: there were too many; a schema can have exponentially many ways.
        """
        self._left -= 1
        if self._left < 0:
            raise RecursionError


def type_of(value: Any) -> str:
    """The JSON type of a value, with every number a `number`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"


def canonical(value: Any) -> str:
    """The same text for the same value."""
    return json.dumps(_whole(value), sort_keys=True)


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {name: _whole(item) for name, item in value.items()}
    return value


def union(schemas: Iterable[Plain]) -> Plain:
    """What fits one of them."""
    ways: list[Plain] = []
    for schema in schemas:
        if schema is True or schema == {}:
            return True
        if schema is not False and schema not in ways:
            ways.append(schema)
    if not ways:
        return False
    return ways[0] if len(ways) == 1 else {"anyOf": ways}


def both(schemas: Iterable[Plain]) -> Plain:
    """What fits all of them."""
    parts: list[dict[str, Any]] = []
    for schema in schemas:
        if schema is False:
            return False
        if isinstance(schema, dict) and schema and schema not in parts:
            parts.append(schema)
    if not parts:
        return True
    if len(parts) == 1:
        return parts[0]
    if "allOf" in parts[0] or "$ref" in parts[0]:
        return {"allOf": parts}
    return {**parts[0], "allOf": parts[1:]}


def types_of(schema: Plain, definitions: Definitions, depth: int = 0) -> frozenset[str]:
    """The types that its values may have; maybe more than they do."""
    definitions.spend()
    if isinstance(schema, bool):
        return frozenset(TYPES if schema else ())
    types = set(TYPES)
    if depth > _DEPTH:
        return frozenset(types)
    if "type" in schema:
        named = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        types &= {"number" if name == "integer" else name for name in named}
    if "const" in schema:
        types &= {type_of(schema["const"])}
    if "enum" in schema:
        types &= {type_of(value) for value in schema["enum"]}
    for part in schema.get("allOf", ()):
        types &= types_of(part, definitions, depth + 1)
    if "anyOf" in schema:
        types &= frozenset[str]().union(*(types_of(part, definitions, depth + 1) for part in schema["anyOf"]))
    if "$ref" in schema:
        types &= types_of(_target(schema, definitions), definitions, depth + 1)
    return frozenset(types)


def disjoint(one: Plain, other: Plain, definitions: Definitions, depth: int = 0) -> bool:
    """Whether no value fits both, as far as can be seen at a glance."""
    if one is False or other is False:
        return True
    if not types_of(one, definitions) & types_of(other, definitions):
        return True
    if isinstance(one, bool) or isinstance(other, bool) or depth > _DEPTH:
        return False
    for first, second in ((one, other), (other, one)):
        if "$ref" in first and disjoint(_target(first, definitions), second, definitions, depth + 1):
            return True
        if any(disjoint(part, second, definitions, depth + 1) for part in first.get("allOf", ())):
            return True
        if "anyOf" in first and all(disjoint(part, second, definitions, depth + 1) for part in first["anyOf"]):
            return True
    return _values_apart(one, other) or _objects_apart(one, other, definitions, depth)


def values_of(schema: Plain, definitions: Mapping[str, Plain] | None = None, depth: int = 0) -> list[Any] | None:
    """All values that may fit, maybe with some that do not; None if they are too many to count."""
    if isinstance(schema, bool):
        return None if schema else []
    if "const" in schema:
        return [schema["const"]]
    if "enum" in schema:
        return list(schema["enum"])
    kind = schema.get("type")
    if kind == "boolean":
        return [False, True]
    if kind == "null":
        return [None]
    if kind == "integer" and {"minimum", "maximum"} <= schema.keys():
        low, high = schema["minimum"], schema["maximum"]
        if high - low < _MOST_VALUES:
            return list(range(int(low // 1), int(high) + 1))
    if "anyOf" in schema:
        sets = [values_of(part, definitions, depth + 1) for part in schema["anyOf"]] if depth < _DEPTH else [None]
        return None if any(each is None for each in sets) else [value for each in sets if each for value in each]
    if "$ref" in schema and definitions is not None and depth < _DEPTH:
        return values_of(_target(schema, definitions), definitions, depth + 1)
    return None


def _target(schema: Mapping[str, Any], definitions: Mapping[str, Plain]) -> Plain:
    return definitions.get(schema["$ref"].removeprefix(REFERENCE), True)


def _values_apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    first, second = values_of(dict(one)), values_of(dict(other))
    if first is not None and second is not None:
        return not {canonical(value) for value in first} & {canonical(value) for value in second}
    shared = {"string"}
    for values, limits in ((first, other), (second, one)):
        if values and {type_of(value) for value in values} == shared:
            least, most = limits.get("minLength", 0), limits.get("maxLength")
            if all(len(value) < least or (most is not None and len(value) > most) for value in values):
                return True
    return _ranges_apart(one, other)


def _ranges_apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether numbers or lengths of the two do not meet; only where nothing else may fit both."""
    kind = one.get("type")
    if kind not in ("integer", "number", "string") or other.get("type") != kind:
        return False
    least, most = ("minLength", "maxLength") if kind == "string" else ("minimum", "maximum")
    return any(
        least in first and most in second and first[least] > second[most]
        for first, second in ((one, other), (other, one))
    )


def _objects_apart(one: Mapping[str, Any], other: Mapping[str, Any], definitions: Definitions, depth: int) -> bool:
    if types_of(dict(one), definitions) != {"object"} and types_of(dict(other), definitions) != {"object"}:
        return False
    names: Sequence[str] = [*one.get("required", ()), *other.get("required", ())]
    return any(disjoint(_field(one, name), _field(other, name), definitions, depth + 1) for name in names)


def _field(schema: Mapping[str, Any], name: str) -> Plain:
    if name in schema.get("properties", ()):
        field: Plain = schema["properties"][name]
        return field
    if "patternProperties" in schema:
        return True
    rest: Plain = schema.get("additionalProperties", True)
    return rest
