"""A JSON schema as a grammar for llguidance."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

from ondevice_sdk.engine.schemas.bounds import ALWAYS, Need, need_of
from ondevice_sdk.engine.schemas.patterns import example
from ondevice_sdk.engine.schemas.plain import DIFFERENT, STEP, Plain
from ondevice_sdk.engine.schemas.refs import escape
from ondevice_sdk.engine.schemas.rewrite import Rewriter
from ondevice_sdk.engine.schemas.unique import Shapes
from ondevice_sdk.errors import ConfigurationError, OnDeviceError, SchemaUnsupported

# JSON without free white space, which small models spend their tokens on.
_COMPACT: Final = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}
# Escapes without \u: by it a name that a schema gives a type could be written as if it were another. Where texts of
# the schema have control characters, which are not to be had otherwise, names must not be open.
_ESCAPES: Final = 'nrbtf\\"'
_CONTROL: Final = re.compile(r"[\x00-\x07\x0b\x0e-\x1f\x7f]|\\(?:x[01]|x7[fF]|u00[01]|u007[fF]|v|0|c)")
_EXCLUDED: Final = re.compile(r"\[\^[^\]]*\]")
# How a schema is written, from the best way on: numbers bounded, overlapping patterns of names taken as one,
# references written out where they stand beside other keywords.
_WAYS: Final = (
    *((True, False, False), (True, True, False), (True, False, True)),
    *((False, False, False), (False, True, False), (False, True, True)),
)
_MOST_EXAMPLES: Final = 50
_MOST_REMAINDERS: Final = 1_000_000  # of steps that numbers have to be multiples of together; each takes a state
# What llguidance says, and the keyword that it is about.
_FAULTS: Final = (
    *(("regex", keyword) for keyword in ("pattern", "patternProperties", "propertyNames")),
    ("min/maxProperties", "minProperties"),
    ("circular", "$ref"),
    ("digits", "multipleOf"),
)


def schema_source(text: str, fault_of: Callable[[str], str]) -> tuple[str, Shapes | None, Need, tuple[str, ...]]:
    """The grammar, where items have to differ, how much text a value may ask for, and examples of texts in it.

    Args:
        text: the schema.
        fault_of: why llguidance does not take a grammar; empty if it does.

    Raises:
        SchemaUnsupported: it cannot be expressed, or nothing satisfies it.
        ConfigurationError: the schema is not JSON, or no schema.
    """
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError("the JSON schema is not valid JSON") from error
    if not isinstance(schema, dict | bool):
        raise ConfigurationError("a JSON schema is an object, true or false")
    try:
        return _source(schema, fault_of)
    except RecursionError as error:
        raise SchemaUnsupported("the JSON schema is nested too deeply") from error


def _source(schema: Any, fault_of: Callable[[str], str]) -> tuple[str, Shapes | None, Need, tuple[str, ...]]:
    from llguidance import LLMatcher

    faults: list[str] = []
    for bounded, joined, written_out in _WAYS:
        plain = _rewritten(schema, bounded=bounded, joined=joined, written_out=written_out)
        if plain is False:
            raise SchemaUnsupported("nothing satisfies the JSON schema")
        whole: dict[str, Any] = {} if plain is True else plain
        if math.lcm(*_steps(whole)) > _MOST_REMAINDERS and '"allOf"' in json.dumps(whole):
            raise SchemaUnsupported("steps cannot be joined", path=_find(schema, "multipleOf"), keyword="multipleOf")
        marked: list[bool] = []
        options = dict(_COMPACT)
        if not _has_control(whole):
            options["json_allowed_escapes"] = _ESCAPES
        elif _has_open_names(whole):
            raise SchemaUnsupported(
                "control characters cannot be had beside open objects", path="", keyword="additionalProperties"
            )
        try:
            source = LLMatcher.grammar_from_json_schema(json.dumps(_unmarked(whole, marked)), overrides=options)
            fault = fault_of(source)
        except ValueError as error:  # nested too deeply for it, or half a character
            fault = str(error)
        if not fault:
            # What is watched may lead to where nothing fits, at any time: the budget looks ahead from the first token.
            shapes, need = (Shapes(whole), ALWAYS) if marked else (None, need_of(whole))
            return source, shapes, need, _examples(whole)
        faults.append(fault)
    raise _refusal(schema, faults)


def _rewritten(schema: Any, *, bounded: bool, joined: bool, written_out: bool) -> Plain:
    try:
        return Rewriter(schema, bounded=bounded, joined=joined, written_out=written_out).whole()
    except OnDeviceError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError):  # they would quote the schema
        raise ConfigurationError("the JSON schema is not valid") from None


def _unmarked(schema: Any, marked: list[bool]) -> Any:
    """The schema without what llguidance does not know, which `Watch` follows."""
    if isinstance(schema, list):
        return [_unmarked(part, marked) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if DIFFERENT in schema or STEP in schema:
        marked.append(True)
    return {name: _unmarked(part, marked) for name, part in schema.items() if name not in (DIFFERENT, STEP)}


def _steps(schema: Any) -> set[int]:
    """The steps of all numbers, without their powers of ten."""
    if isinstance(schema, list):
        return set[int]().union(*map(_steps, schema))
    if not isinstance(schema, dict):
        return set()
    own = schema.get("multipleOf")
    inner = set[int]().union(*map(_steps, schema.values()))
    return inner | {Fraction(repr(own)).numerator} if isinstance(own, int | float) else inner


def _examples(schema: Any) -> tuple[str, ...]:
    """Texts that match the patterns of a schema."""
    patterns: dict[str, None] = {}
    pending = [schema]
    while pending and len(patterns) < _MOST_EXAMPLES:
        value = pending.pop()
        if isinstance(value, dict):
            if isinstance(value.get("pattern"), str):
                patterns[value["pattern"]] = None
            patterns |= (
                dict.fromkeys(value["patternProperties"]) if isinstance(value.get("patternProperties"), dict) else {}
            )
        pending += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return tuple(text for text in map(example, patterns) if text)


def _has_control(schema: Any) -> bool:
    """Whether a text or a pattern in it asks for control characters; names are written as they are."""
    if isinstance(schema, str):
        return _CONTROL.search(_EXCLUDED.sub("", schema)) is not None
    return any(
        map(_has_control, schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ())
    )


def _has_open_names(schema: Any) -> bool:
    """Whether some object has names of its own and takes others."""
    if isinstance(schema, list):
        return any(map(_has_open_names, schema))
    if not isinstance(schema, dict):
        return False
    named = isinstance(schema.get("properties"), dict) and schema.get("additionalProperties", True) is not False
    return named or any(map(_has_open_names, schema.values()))


def _refusal(schema: Any, faults: list[str]) -> SchemaUnsupported:
    """The refusal without llguidance's words, which quote the schema."""
    if any("nsatisfiable" in fault for fault in faults):
        return SchemaUnsupported("nothing satisfies the JSON schema")
    for fault in faults:
        for word in [*re.findall(r"[$\w-]+", fault), *(name for mark, name in _FAULTS if mark in fault)]:
            path = _find(schema, word) if word in _KEYWORDS else None
            if path is not None:
                return SchemaUnsupported(f"the keyword {word!r} cannot be expressed", path=path, keyword=word)
    return SchemaUnsupported("the JSON schema cannot be expressed")


# Keywords that llguidance may name.
_KEYWORDS: Final = frozenset(
    {
        *("$ref", "additionalProperties", "allOf", "anyOf", "const", "enum", "exclusiveMaximum", "exclusiveMinimum"),
        *("format", "items", "maxItems", "maxLength", "maxProperties", "maximum", "minItems", "minLength", "minimum"),
        *("minProperties", "multipleOf", "pattern", "patternProperties", "prefixItems", "properties", "required"),
        "propertyNames",
        "type",
    }
)


def _find(schema: Any, keyword: str) -> str | None:
    """JSON pointer of the first object that has the keyword."""
    pending: list[tuple[str, Any]] = [("", schema)]
    while pending:
        path, value = pending.pop(0)
        if isinstance(value, dict):
            if keyword in value:
                return path
            pending += [(f"{path}/{escape(name)}", inner) for name, inner in value.items()]
        elif isinstance(value, list):
            pending += [(f"{path}/{index}", inner) for index, inner in enumerate(value)]
    return None
