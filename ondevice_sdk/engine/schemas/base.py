"""What a JSON schema says with its own keywords, without those that bring other schemas in, as a plain schema."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import combinations, islice
from typing import Any, Final

from ondevice_sdk.engine.schemas.patterns import FORMATS, KNOWN_FORMATS, either, of_names, portable, without_lead
from ondevice_sdk.engine.schemas.plain import DIFFERENT, STEP, TYPES, Plain, both, canonical, values_of
from ondevice_sdk.engine.schemas.refs import Place

# Numbers that a model cannot go on writing for ever: whole parts that every reader of JSON takes exactly (RFC 8259,
# section 6), and nine digits after the point, enough for coordinates of a millimetre.
LARGEST: Final = 2**53 - 1
_SMALLEST_STEP: Final = 1e-9
_LEAST_RANGE: Final = 1e-3  # of numbers that may be held to that step
_LARGEST_STEP: Final = 10_000  # llguidance needs a state for every remainder
_MOST_MULTIPLES: Final = 50  # of a larger step, on each side of 0
_MOST_CHOICES: Final = 24  # ways to say which optional fields an object has; a constraint grows with them
_MOST_CONTAINED: Final = 1000  # items that `contains` asks for; they are written out one by one
_COUNTS: Final = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")

Write = Callable[[Place], Plain]


def base(place: Place, write: Write, draft: int, *, bounded: bool, joined: bool) -> Plain:
    """The plain schema of a place's own keywords.

    Args:
        place: where an object stands.
        write: gives the plain schema of a place within it.
        draft: of JSON Schema.
        bounded: whether numbers are held to what a model can end.
        joined: whether patterns of names that may overlap are taken as one.
    """
    schema = place.schema
    written: dict[str, Any] = {}
    extra: list[Plain] = []
    if "type" in schema:
        written["type"] = _types(place)
    for keyword in ("const", "enum"):
        if keyword in schema:
            values = [schema["const"]] if keyword == "const" else schema["enum"]
            if not isinstance(values, list):
                raise place.refuse(keyword)
            exact = {canonical(value): value for value in values if _is_exact(value)}
            if values and not exact:
                raise place.refuse(keyword)
            if not values:
                return False
            written |= {"const": schema["const"]} if keyword == "const" else {"enum": list(exact.values())}
    for name in _COUNTS:
        if name in schema:
            written[name] = _count(place, name)
    _numbers(place, written, bounded=bounded)
    extra += _strings(place, written)
    _arrays(place, write, draft, written)
    extra += _objects(place, write, written, joined=joined)
    return both([written, *extra])


def limits(written: Mapping[str, Any]) -> tuple[float, float]:
    """Between which numbers a plain schema allows, both included or not."""
    low = max(written.get("minimum", -math.inf), written.get("exclusiveMinimum", -math.inf))
    high = min(written.get("maximum", math.inf), written.get("exclusiveMaximum", math.inf))
    return low, high


def _is_exact(value: Any) -> bool:
    """Whether llguidance, which reads numbers as floating-point ones, can hold to the value."""
    if isinstance(value, list | dict):
        return all(map(_is_exact, value.values() if isinstance(value, dict) else value))
    return isinstance(value, bool) or not isinstance(value, int) or abs(value) <= LARGEST


def _types(place: Place) -> Any:
    named = place.schema["type"]
    for name in named if isinstance(named, list) else [named]:
        if name not in TYPES and name != "integer":
            raise place.refuse("type")
    return named


def _count(place: Place, keyword: str) -> int:
    value = place.schema[keyword]
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value != int(value):
        raise place.refuse(keyword)
    return int(value)


def _numbers(place: Place, written: dict[str, Any], *, bounded: bool) -> None:
    schema = place.schema
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        is_low = bound == "minimum"
        for keyword in (bound, exclusive):
            value = schema.get(keyword)
            if value is not None and not isinstance(value, int | float):
                raise place.refuse(keyword)
        if schema.get(exclusive) is True:  # draft 4
            if bound in schema:
                written[exclusive] = held(place, bound, low=is_low)
            continue
        if bound in schema:
            written[bound] = held(place, bound, low=is_low)
        if exclusive in schema and schema[exclusive] is not False:
            written[exclusive] = held(place, exclusive, low=is_low)
    named = schema.get("type", ())
    types = {named} if isinstance(named, str) else set(named)
    if "multipleOf" in schema:
        written |= _step(place, types)
    if types != {"integer"}:
        low, high = limits(written)
        if 0 < high - low < _SMALLEST_STEP:
            raise place.refuse("minimum" if "minimum" in schema else "exclusiveMinimum")
        if "multipleOf" not in written and not (bounded and "number" in types and high - low > _LEAST_RANGE):
            _exclude_limits(written)
    if not bounded or not types & {"integer", "number"} or "const" in schema or "enum" in schema:
        return
    low, high = limits(written)
    if low < -LARGEST < high:
        written.pop("exclusiveMinimum", None)
        written["minimum"] = -LARGEST
    if high > LARGEST > low:
        written.pop("exclusiveMaximum", None)
        written["maximum"] = LARGEST
    if "number" in types and "multipleOf" not in written and high - low > _LEAST_RANGE:
        written["multipleOf"] = _SMALLEST_STEP


def held(place: Place, keyword: str, *, low: bool) -> float:
    """A low or high limit as llguidance, which reads it as a floating-point number, holds to it: no wider."""
    limit: float = place.schema[keyword]
    try:
        read = float(limit)
    except OverflowError:
        raise place.refuse(keyword) from None
    if not math.isfinite(read):
        raise place.refuse(keyword)
    if read < limit if low else read > limit:
        return int(math.nextafter(read, math.inf if low else -math.inf))
    return limit


def _exclude_limits(written: dict[str, Any]) -> None:
    """Say limits that are not included by the next numbers, since with enough digits one is rounded to the limit."""
    if "exclusiveMinimum" in written:
        next_one = above(written.pop("exclusiveMinimum"))
        written["minimum"] = max(next_one, written.get("minimum", next_one))
    if "exclusiveMaximum" in written:
        next_one = below(written.pop("exclusiveMaximum"))
        written["maximum"] = min(next_one, written.get("maximum", next_one))


def above(number: float) -> float:
    """A number that is larger, to everyone who reads it as a floating-point one."""
    return max(number + _SMALLEST_STEP, math.nextafter(number, math.inf))


def below(number: float) -> float:
    """A number that is smaller, to everyone who reads it as a floating-point one."""
    return min(number - _SMALLEST_STEP, math.nextafter(number, -math.inf))


def contained(place: Place, keyword: str) -> int | None:
    """How many items `contains` asks for at least (1 if that is not said) or at most (None)."""
    if keyword not in place.schema:
        return 1 if keyword == "minContains" else None
    count = _count(place, keyword)
    if count > _MOST_CONTAINED:
        raise place.refuse(keyword)
    return count


def _step(place: Place, types: set[str]) -> dict[str, Any]:
    """What numbers are multiples of, such that validators which divide floating-point numbers see it too.

    To those 4.35 / 0.01 is no whole number. Quotients by a step that binary numbers hold are exact; so are those of
    whole numbers by a step whose own rounding is less than half a unit in the last place. Others have to be tried.
    """
    step = place.schema["multipleOf"]
    if isinstance(step, bool) or not isinstance(step, int | float) or not 0 < step < math.inf:
        raise place.refuse("multipleOf")
    meant = Fraction(repr(step))
    exact = Fraction(step) == meant
    whole = "integer" in types and "number" not in types
    if meant.denominator == 1 or (whole and not exact):
        step = meant.numerator
    if meant.numerator > _LARGEST_STEP:
        if meant.denominator > 1 and not whole:
            raise place.refuse("multipleOf")
        multiples = [int(step) * factor for factor in range(-_MOST_MULTIPLES, _MOST_MULTIPLES + 1)]
        others = [name for name in TYPES if name != "number" and (not types or name in types)]
        listed: list[Plain] = [{"enum": multiples}]
        return {"anyOf": [{"type": others}, *listed] if others else listed}
    named = place.schema["multipleOf"]
    if exact or (whole and abs(Fraction(named) / meant - 1) < Fraction(1, 2**54)):
        return {"multipleOf": step}
    return {"multipleOf": step, STEP: named}


def _strings(place: Place, written: dict[str, Any]) -> list[Plain]:
    schema = place.schema
    extra: list[Plain] = []
    if "pattern" in schema:
        written["pattern"], lead = without_lead(pattern_of(place, schema["pattern"], "pattern"))
        if lead is not None:
            extra.append({"pattern": lead})
    named = schema.get("format")
    if isinstance(named, str) and named in FORMATS:
        extra.append({"pattern": FORMATS[named]})
    elif isinstance(named, str) and named in KNOWN_FORMATS:
        written["format"] = named
    return extra


def pattern_of(place: Place, pattern: Any, keyword: str) -> str:
    """A pattern as llguidance has to have it.

    Raises:
        SchemaUnsupported: it is no pattern to Python's `re`, which validators here use.
    """
    write = of_names if keyword == "patternProperties" else portable
    text = write(pattern) if isinstance(pattern, str) else None
    if text is None:
        raise place.refuse(keyword, "a pattern is none that Python's re knows, or means something else there")
    return text


def _arrays(place: Place, write: Write, draft: int, written: dict[str, Any]) -> None:
    schema = place.schema
    if isinstance(schema.get("items"), list):
        first, rest = "items", "additionalItems"
    else:
        first, rest = "prefixItems", "items"
    if first in schema and (first == "items" or draft >= 2020):
        if not isinstance(schema[first], list):
            raise place.refuse(first)
        written["prefixItems"] = [write(place.inner(first, index)) for index in range(len(schema[first]))]
    if rest in schema:
        written["items"] = write(place.inner(rest))
    if schema.get("uniqueItems") is True:
        written[DIFFERENT] = True
        values = values_of(written.get("items", True))
        if values is not None:
            different = len({canonical(value) for value in values}) + len(written.get("prefixItems", ()))
            written["maxItems"] = min(different, written.get("maxItems", different))


def _objects(place: Place, write: Write, written: dict[str, Any], *, joined: bool) -> list[Plain]:
    schema = place.schema
    if "properties" in schema:
        if not isinstance(schema["properties"], dict):
            raise place.refuse("properties")
        written["properties"] = {name: write(place.inner("properties", name)) for name in schema["properties"]}
    if "additionalProperties" in schema:
        written["additionalProperties"] = write(place.inner("additionalProperties"))
    if "patternProperties" in schema:
        written["patternProperties"] = _pattern_properties(place, write, written, joined=joined)
    if "required" in schema and not isinstance(schema["required"], bool):  # a boolean in draft 3
        required = schema["required"]
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise place.refuse("required")
        written["required"] = list(dict.fromkeys(required))
    return _sizes(written)


def _pattern_properties(place: Place, write: Write, written: Mapping[str, Any], *, joined: bool) -> dict[str, Plain]:
    if not isinstance(place.schema["patternProperties"], dict):
        raise place.refuse("patternProperties")
    patterns = {
        pattern_of(place, pattern, "patternProperties"): write(place.inner("patternProperties", pattern))
        for pattern in place.schema["patternProperties"]
    }
    if not joined or len(patterns) < 2:
        return patterns
    if written.get("additionalProperties", True) is True:
        patterns = {pattern: fields for pattern, fields in patterns.items() if fields is not True and fields != {}}
    return {either(list(patterns)): both(patterns.values())} if patterns else {}


def _sizes(written: dict[str, Any]) -> list[Plain]:
    """How many fields an object has, where some of those it names may be missing.

    llguidance counts only fields that are not named, so the ways of choosing among the named ones are written out.
    """
    required = written.get("required", [])
    optional = [name for name in written.get("properties", {}) if name not in required]
    least = max(0, written.get("minProperties", 0) - len(required))
    most = written.get("maxProperties", math.inf) - len(required)
    is_open = written.get("additionalProperties", True) is not False or "patternProperties" in written
    if most < 0:
        return [{"type": [name for name in TYPES if name != "object"]}]
    if least == 0:
        written.pop("minProperties", None)
    if not is_open and most >= len(optional):
        written.pop("maxProperties", None)
        most = math.inf
    if is_open and least > 1:
        written[DIFFERENT] = True
    if not optional or (least == 0 and most == math.inf):
        return []
    low, high = written.pop("minProperties", None), written.pop("maxProperties", None)
    ways: list[Plain] = []
    for size in range(least, min(len(optional), int(min(most, len(optional)))) + 1):
        if len(ways) >= 2 * _MOST_CHOICES or (most == math.inf and size > least):
            break
        for chosen in islice(combinations(optional, size), _MOST_CHOICES):
            way: dict[str, Any] = {"required": [*required, *chosen]} if required or chosen else {}
            if most < math.inf:
                way["properties"] = {name: name in chosen for name in written["properties"] if name not in required}
                way["additionalProperties"] = False
                way["properties"] |= dict.fromkeys(required, True)
            ways.append(way)
    if is_open:
        way = {"properties": dict.fromkeys(optional, False)}
        way |= {name: count for name, count in (("minProperties", low), ("maxProperties", high)) if count is not None}
        ways.append(way)
    if not ways:
        return [{"type": [name for name in TYPES if name != "object"]}]
    return [{"anyOf": ways[: 2 * _MOST_CHOICES]}]
