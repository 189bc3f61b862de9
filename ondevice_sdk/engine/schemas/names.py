"""The names that `propertyNames` leaves to the fields of an object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ondevice_sdk.engine.schemas.base import pattern_of
from ondevice_sdk.engine.schemas.patterns import of_length
from ondevice_sdk.engine.schemas.refs import Place

Resolve = Callable[[Place, str], Place]
_LISTED: Final = frozenset(("const", "enum"))
_LENGTHS: Final = frozenset(("minLength", "maxLength"))
_TELLING: Final = frozenset(
    {*_LISTED, *_LENGTHS, "pattern", "format", "not", "allOf", "anyOf", "oneOf", "if"}
    | {"$ref", "$dynamicRef", "$recursiveRef"}
)


def allowed_names(place: Place, resolve: Resolve) -> tuple[list[str], list[str]] | None:
    """Names as texts and as patterns; None for any.

    Raises:
        SchemaUnsupported: they are told in another way.
    """
    schema = place.schema
    if isinstance(schema, bool):
        return None if schema else ([], [])
    kinds = schema.get("type", "string")
    if kinds != "string" and "string" not in kinds:
        return [], []
    told = {keyword for keyword in schema if keyword in _TELLING}
    if not told:
        return None
    if told == {"$ref"}:
        return allowed_names(resolve(place, "$ref"), resolve)
    if told == {"anyOf"} and isinstance(schema["anyOf"], list):
        return _any_of(place, resolve)
    if len(told & _LISTED) == 1 == len(told - _LENGTHS):
        values = [schema["const"]] if "const" in schema else schema["enum"]
        return [value for value in values if isinstance(value, str) and _is_long_enough(value, schema)], []
    if told == {"pattern"}:
        return [], [pattern_of(place, schema["pattern"], "pattern")]
    if told <= _LENGTHS:
        most = schema.get("maxLength")
        return [], [of_length(int(schema.get("minLength", 0)), None if most is None else int(most))]
    raise place.refuse(min(told))


def _is_long_enough(name: str, schema: dict[str, Any]) -> bool:
    return bool(schema.get("minLength", 0) <= len(name) <= schema.get("maxLength", len(name)))


def _any_of(place: Place, resolve: Resolve) -> tuple[list[str], list[str]] | None:
    parts = [allowed_names(place.inner("anyOf", index), resolve) for index in range(len(place.schema["anyOf"]))]
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        return None
    return [text for texts, _ in found for text in texts], [pattern for _, each in found for pattern in each]
