"""How much more a plain schema may ask for, in tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ondevice_sdk.engine.schemas.patterns import LONGEST_FORMAT, longest_need
from ondevice_sdk.engine.schemas.plain import REFERENCE, Plain, canonical

_SCALAR: Final = 20.0  # a bounded number, a literal, a short string
_ROUNDS: Final = 6  # of looking into references for the least value
_BYTES_A_TOKEN: Final = (
    1.5  # JSON files of the schema store have 1.6 at least in SmolLM2's vocabulary, 3.0 in the median
)
_FREE: Final = 4  # tokens that close what one token opens in a value of any kind: `{"` takes `":0}`


@dataclass(frozen=True, slots=True)
class Need:
    """Tokens that complete a value, wherever its writing stands.

    Args:
        most: as far as values do not nest.
        growth: by which each further token may raise that where they do.
    """

    most: float
    growth: int


ALWAYS: Final = Need(math.inf, 0)  # any token may be one after which nothing completes the value


def need_of(schema: Plain) -> Need:
    """The bounds for a whole document, rather too high than too low."""
    if isinstance(schema, bool):
        return Need(_SCALAR, _FREE)
    measure = _Measure(schema.get("$defs", {}))
    most = measure.most(schema, ())
    growth = max(measure.largest, default=0) if measure.circular else 0
    return Need(most / _BYTES_A_TOKEN, max(int(growth / _BYTES_A_TOKEN), _FREE if measure.free else 0))


class _Measure:
    def __init__(self, definitions: Mapping[str, Plain]) -> None:
        self._definitions = definitions
        self._least: dict[int, float] = {}
        self._most: dict[str, float] = {}
        self.largest: list[float] = []
        self.circular = False
        self.free = False

    def least(self, schema: Plain, depth: int = 0) -> float:
        """Bytes of a short value."""
        if isinstance(schema, bool):
            return 2
        known = self._least.get(id(schema))
        if known is not None:
            return known
        if depth > _ROUNDS:
            return math.inf
        size = self._own_least(schema, depth)
        for part in schema.get("allOf", ()):
            size = max(size, self.least(part, depth + 1)) if part else size
        if "anyOf" in schema:
            size = max(size, min(self.least(part, depth + 1) for part in schema["anyOf"]))
        if "$ref" in schema:
            size = max(size, self.least(self._target(schema), depth + 1))
        if depth == 0 and math.isfinite(size):
            self._least[id(schema)] = size
            self.largest.append(size)
        return size

    def most(self, schema: Plain, inside: tuple[str, ...]) -> float:
        """Bytes that completing a value may take, wherever it stands."""
        if isinstance(schema, bool) or not schema:
            self.free = self.free or schema is not False
            return _SCALAR if schema is not False else 0
        self.least(schema)
        size = self._own_most(schema, inside)
        parts = [*schema.get("allOf", ()), *schema.get("anyOf", ())]
        known = [self.most(part, inside) for part in parts if isinstance(part, dict) and part]
        if "$ref" in schema:
            known.append(self._most_of_reference(schema, inside))
        return size + sum(known) if "allOf" in schema else max([size, *known])

    def _most_of_reference(self, schema: Mapping[str, Any], inside: tuple[str, ...]) -> float:
        name = schema["$ref"]
        if name in inside:
            self.circular = True
            return 0
        if name not in self._most:
            self._most[name] = self.most(self._target(schema), (*inside, name))
        return self._most[name]

    def _own_least(self, schema: Mapping[str, Any], depth: int) -> float:
        if "const" in schema or "enum" in schema:
            return min(len(canonical(value).encode()) for value in schema.get("enum", [schema.get("const")]))
        size: float = _SCALAR + 4 * schema.get("minLength", 0) + longest_need(schema.get("pattern", ""))
        size += LONGEST_FORMAT if "format" in schema else 0
        fields = schema.get("properties", {})
        for name in schema.get("required", ()):
            size += len(name.encode()) + 4 + self.least(fields.get(name, True), depth + 1)
        items = list(schema.get("prefixItems", ()))[: schema.get("minItems", 0)]
        size += sum(self.least(item, depth + 1) + 1 for item in items)
        rest: int = max(0, schema.get("minItems", 0) - len(items)) + schema.get("minProperties", 0)
        return size + rest * (self.least(schema.get("items", True), depth + 1) + _SCALAR if rest else 0)

    def _own_most(self, schema: Mapping[str, Any], inside: tuple[str, ...]) -> float:
        size = self.least(dict(schema) if not isinstance(schema, dict) else schema)
        if "const" in schema or "enum" in schema:
            return max(len(canonical(value).encode()) for value in schema.get("enum", [schema.get("const")]))
        kinds = schema.get("type", ("array", "object"))
        kinds = {kinds} if isinstance(kinds, str) else set(kinds)
        applied = any(keyword in schema for keyword in ("allOf", "anyOf", "$ref"))
        inner: list[float] = [0]
        if "object" in kinds:
            for name, field in schema.get("properties", {}).items():
                inner.append(len(name.encode()) + self.most(field, inside) if field is not False else 0)
            inner += [self.most(field, inside) for field in schema.get("patternProperties", {}).values()]
            if not (applied and "additionalProperties" not in schema):
                inner.append(self.most(schema.get("additionalProperties", True), inside))
        if "array" in kinds:
            inner += [self.most(item, inside) for item in schema.get("prefixItems", ())]
            if not (applied and "items" not in schema):
                inner.append(self.most(schema.get("items", True), inside))
        return size + max(inner)

    def _target(self, schema: Mapping[str, Any]) -> Plain:
        return self._definitions.get(schema["$ref"].removeprefix(REFERENCE), True)
