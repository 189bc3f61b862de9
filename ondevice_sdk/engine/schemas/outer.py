"""The outline of a JSON schema: a plain schema that everything fits which fits the original, and maybe more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ondevice_sdk.engine.schemas.plain import Plain, both, union
from ondevice_sdk.engine.schemas.refs import Place

_DEPTH: Final = 5
_KEPT: Final = frozenset(("const", "enum", "maxLength", "minLength", "required", "type"))


def outer(place: Place, resolve: Callable[[Place, str], Place], depth: int = 0) -> Plain:
    """The outline, as deep as it is worth looking."""
    schema = place.schema
    if isinstance(schema, bool) or not isinstance(schema, dict):
        return schema is not False
    if depth > _DEPTH:
        return True

    def inside(*names: str | int) -> Plain:
        return outer(place.inner(*names), resolve, depth + 1)

    drawn: dict[str, Any] = {keyword: value for keyword, value in schema.items() if keyword in _KEPT}
    for keyword in ("minimum", "maximum"):
        if keyword in schema:
            drawn[keyword] = schema[keyword]
    if isinstance(schema.get("properties"), dict):
        drawn["properties"] = {name: inside("properties", name) for name in schema["properties"]}
    if "additionalProperties" in schema:
        drawn["additionalProperties"] = inside("additionalProperties")
    if "patternProperties" in schema:
        drawn["patternProperties"] = dict.fromkeys(schema["patternProperties"], True)
    parts: list[Plain] = [drawn]
    for keyword in ("allOf", "anyOf", "oneOf"):
        if isinstance(schema.get(keyword), list):
            inner = [inside(keyword, index) for index in range(len(schema[keyword]))]
            parts.append(both(inner) if keyword == "allOf" else union(inner))
    if "$ref" in schema:
        parts.append(outer(resolve(place, "$ref"), resolve, depth + 1))
    return both(parts)
