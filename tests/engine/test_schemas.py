from __future__ import annotations

import contextlib
import json
import re
import time
from typing import Any

import pytest

from ondevice_sdk.backends.api import Grammar
from ondevice_sdk.engine.grammar import GrammarCompiler
from ondevice_sdk.engine.schemas.patterns import FORMATS, anything_but, example, longest_need, of_names, portable
from ondevice_sdk.engine.schemas.rewrite import Rewriter
from ondevice_sdk.errors import ConfigurationError, OutputInvalid, SchemaUnsupported
from ondevice_sdk.evaluate.measures.schemas import is_valid

from .writing import compiler, repeat, schema, write

SEVEN = "http://json-schema.org/draft-07/schema#"
FOUR = "http://json-schema.org/draft-04/schema#"
WORD = {"type": "string", "maxLength": 5}
ACCEPTED: dict[str, Any] = {
    "condition": {
        "type": "object",
        "properties": {"kind": {"enum": ["a", "b"]}, "n": {"type": "integer"}, "s": WORD},
        "required": ["kind"],
        "additionalProperties": False,
        "if": {"properties": {"kind": {"const": "a"}}},
        "then": {"required": ["n"]},
        "else": {"required": ["s"], "properties": {"n": False}},
    },
    "condition without an else": {"type": "integer", "if": {"maximum": 0}, "then": {"const": -5}},
    "exclusive choice by required fields": {
        "type": "object",
        "properties": {"a": WORD, "b": WORD},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    "exclusive choice of overlapping numbers": {"oneOf": [{"type": "integer", "maximum": 9}, {"minimum": 5}]},
    "exclusive choice with a number too large to be written": {
        "oneOf": [{"type": "integer"}, {"type": "integer", "minimum": 2**60}]
    },
    "exclusive choice, told apart by a denial": {"oneOf": [{"not": {"type": "integer"}}, {"type": ["number", "null"]}]},
    "not a type": {"not": {"type": ["string", "object", "array"]}},
    "not a value": {"type": "string", "maxLength": 4, "not": {"enum": ["foo", "fo", ""]}},
    "not with a field": {"type": "object", "properties": {"a": {}}, "not": {"required": ["a"]}},
    "not a number": {"type": "integer", "minimum": 0, "maximum": 4, "not": {"enum": [1, 3]}},
    "not within a range": {"type": "number", "not": {"minimum": 0, "maximum": 10}},
    "dependent fields": {
        "type": "object",
        "properties": {"a": WORD, "b": WORD, "c": WORD},
        "dependentRequired": {"a": ["b"]},
        "dependentSchemas": {"b": {"required": ["c"], "minProperties": 2}},
    },
    "dependencies": {
        "$schema": SEVEN,
        "type": "object",
        "properties": {"a": WORD, "b": WORD},
        "dependencies": {"a": ["b"], "b": {"required": ["c"]}},
    },
    "different words": {"type": "array", "items": WORD, "uniqueItems": True, "minItems": 2},
    "different choices": {
        "type": "array",
        "items": {"enum": ["x1", "x2", "y", "é"]},
        "uniqueItems": True,
        "minItems": 3,
    },
    "different truths": {"type": "array", "items": {"type": "boolean"}, "uniqueItems": True, "minItems": 2},
    "different digits": {
        "type": "array",
        "items": {"type": "integer", "minimum": 0, "maximum": 12},
        "uniqueItems": True,
        "minItems": 5,
    },
    "different objects within different arrays": {
        "type": "array",
        "uniqueItems": True,
        "items": {"type": "array", "uniqueItems": True, "items": {"enum": [{"a": 1}, {"a": 2}, None]}, "minItems": 1},
        "minItems": 2,
        "maxItems": 3,
    },
    "an item": {"type": "array", "contains": {"const": 5}, "items": {"type": "integer"}},
    "several items": {"type": "array", "contains": {"type": "null"}, "minContains": 2, "maxContains": 3},
    "no such item": {"type": "array", "contains": {"const": 1}, "minContains": 0, "maxContains": 1},
    "names of a form": {"type": "object", "propertyNames": {"pattern": "^[a-c]+$"}, "additionalProperties": WORD},
    "short names": {"type": "object", "propertyNames": {"maxLength": 2}, "minProperties": 2},
    "names of a list": {"type": "object", "propertyNames": {"enum": ["x", "y"]}, "minProperties": 1},
    "patterns of names that overlap": {
        "type": "object",
        "patternProperties": {"a": {"type": "integer"}, "b": {"maximum": 20}},
        "minProperties": 1,
    },
    "nothing left over": {
        "properties": {"a": WORD},
        "allOf": [{"properties": {"b": WORD}}],
        "anyOf": [{"properties": {"c": {"const": 1}}, "required": ["c"]}, {"properties": {"d": {"const": 2}}}],
        "unevaluatedProperties": False,
        "type": "object",
    },
    "numbers left over": {"type": "array", "prefixItems": [WORD], "unevaluatedItems": {"type": "integer"}},
    "two of three fields": {
        "type": "object",
        "properties": {"a": WORD, "b": WORD, "c": WORD},
        "minProperties": 2,
        "additionalProperties": False,
    },
    "at most one of three fields": {
        "type": "object",
        "properties": {"a": WORD, "b": WORD, "c": WORD},
        "required": ["b"],
        "maxProperties": 2,
    },
    "numbers that end": {"type": "array", "items": {"type": ["integer", "number"]}, "minItems": 2},
    "halves": {"type": "number", "multipleOf": 0.5},
    "hundredths": {"type": "array", "items": {"type": "number", "multipleOf": 0.01, "minimum": 0}, "minItems": 3},
    "a price": {
        "type": "object",
        "properties": {"price": {"multipleOf": 0.01, "type": "number"}},
        "required": ["price"],
    },
    "ten-thousandths of anything": {"multipleOf": 0.0001},
    "a large step": {"type": "integer", "multipleOf": 123456789},
    "a schema that holds itself": {
        "$id": "https://example.com/tree",
        "type": "object",
        "properties": {"name": WORD, "children": {"type": "array", "items": {"$ref": "#"}, "uniqueItems": True}},
        "required": ["name"],
        "additionalProperties": False,
    },
    "references in a circle beside other keywords": {
        "$defs": {
            "node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node", "properties": {"n": WORD}}}}
        },
        "$ref": "#/$defs/node",
        "required": ["next"],
    },
    "anchors": {
        "$id": "https://example.com/a",
        "$ref": "other.json#here",
        "$defs": {"x": {"$id": "other.json", "$defs": {"y": {"$anchor": "here", "enum": [1, 2]}}}},
    },
    "a dynamic reference": {
        "$id": "https://example.com/strings",
        "$ref": "list",
        "$defs": {
            "word": {"$dynamicAnchor": "item", "type": "string"},
            "list": {
                "$id": "list",
                "type": "array",
                "items": {"$dynamicRef": "#item"},
                "$defs": {"any": {"$dynamicAnchor": "item"}},
            },
        },
    },
    "draft 4": {"$schema": FOUR, "type": "number", "minimum": 3, "exclusiveMinimum": True, "maximum": 4},
    "keywords that an old draft does not know": {
        "$schema": FOUR,
        "oneOf": [{"type": "string", "const": "x"}, {"type": "string", "contains": {}, "minLength": 1}, {"const": 3}],
        "if": False,
        "else": False,
    },
    "what stands beside an old reference": {
        "$schema": SEVEN,
        "definitions": {"a": {"type": "integer"}},
        "properties": {"x": {"$ref": "#/definitions/a", "maximum": -(2**60)}},
        "required": ["x"],
    },
    "whole numbers with a point": {"type": "array", "minItems": 2.0, "maxItems": 3.0, "items": {"const": 1.0}},
    "dates": {"type": "array", "items": {"type": "string", "format": "date-time"}, "minItems": 1},
    "an unknown format": {"type": "string", "format": "phase-of-the-moon", "minLength": 3},
    "letters that are none": {"type": "string", "pattern": r"^[^\w]{2}\W\D$"},
    "a control character": {"const": "a\u0000b"},
    "names that look alike": {"type": "object", "properties": {"a": {"type": "integer"}}, "minProperties": 2},
    "limits that no floating-point number holds": {
        "type": "array",
        "items": {"type": "integer", "minimum": 2**53 + 1, "maximum": 2**53 + 9},
        "minItems": 2,
    },
    "whole numbers of 64 bits": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "an old name": {
        "$schema": FOUR,
        "id": "http://example.com/a",
        "definitions": {"x": {"id": "b", "enum": [1]}},
        "properties": {"x": {"$ref": "http://example.com/b"}},
        "required": ["x"],
    },
    "anything": {},
}
REFUSED: dict[str, tuple[Any, str | None]] = {
    "another document": ({"$ref": "https://example.invalid/x"}, "$ref"),
    "nowhere": ({"properties": {"a": {"$ref": "#/$defs/none"}}}, "$ref"),
    "a reference to itself": ({"$ref": "#", "title": "me"}, "$ref"),
    "not a pattern": ({"not": {"type": "string", "pattern": "a"}, "type": "string"}, None),
    "not anything": ({"not": {"pattern": "a"}, "type": "string"}, "not"),
    "looking ahead": ({"type": "string", "pattern": "^(?=.*a)b"}, "pattern"),
    "a pattern that Python does not know": ({"type": "string", "pattern": r"^\p{L}$"}, "pattern"),
    "a long fraction": ({"type": "number", "multipleOf": 0.123456789}, "multipleOf"),
    "steps that take too long together": ({"allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]}, "multipleOf"),
    "an unknown type": ({"type": "strung"}, "type"),
    "two patterns of which one has to fit alone": ({"oneOf": [{"pattern": "a"}, {"pattern": "b"}]}, "oneOf"),
    "nothing": ({"type": "object", "required": ["a"], "properties": {"a": False}}, None),
}


@pytest.fixture(scope="module")
def made() -> GrammarCompiler:
    return compiler()


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_written_under_a_schema_is_valid(made: GrammarCompiler, name: str) -> None:
    for seed, limit in enumerate((60, 46)):
        text = write(made, schema(ACCEPTED[name]), seed, limit)
        assert is_valid(json.loads(text), ACCEPTED[name]), text


@pytest.mark.slow
@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_written_under_a_schema_is_always_valid(made: GrammarCompiler, name: str) -> None:
    for seed in range(150):
        text = write(made, schema(ACCEPTED[name]), seed, 60 + seed)
        assert is_valid(json.loads(text), ACCEPTED[name]), text


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_kept_is_refused_before_anything_is_written(made: GrammarCompiler, name: str) -> None:
    refused, keyword = REFUSED[name]
    with pytest.raises(SchemaUnsupported) as caught:
        made.compile(schema(refused), ignore_eos=False)
    assert keyword is None or caught.value.keyword == keyword


def test_a_refusal_names_the_place(made: GrammarCompiler) -> None:
    with pytest.raises(SchemaUnsupported) as caught:
        made.compile(schema({"properties": {"a/b": {"items": {"pattern": "\\p{L}"}}}}), ignore_eos=False)
    assert (caught.value.path, caught.value.keyword) == ("/properties/a~1b/items", "pattern")


def test_every_value_of_a_set_can_be_written(made: GrammarCompiler) -> None:
    choice = {"type": "array", "items": {"enum": ["x1", "x2", "y"]}, "uniqueItems": True, "minItems": 2, "maxItems": 2}
    seen = {write(made, schema(choice), seed, 30) for seed in range(30)}
    assert len(seen) == 6, "in every order, and none twice"


def test_one_item_that_contains_asks_for_may_come_second(made: GrammarCompiler) -> None:
    asked = {"type": "array", "contains": {"const": "z"}, "items": {"enum": ["z", "y"]}, "maxItems": 3}
    seen = {write(made, schema(asked), seed, 30) for seed in range(30)}
    assert {'["z"]', '["y","z"]'} <= seen


@pytest.mark.parametrize(
    ("grammar", "least"),
    [
        (Grammar("regex", "[0-9]{20}"), 20),
        (Grammar("choice", choices=("a long choice", "another one")), 11),
        (schema({"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}), 11),
        (schema({"type": "array", "items": {"type": "string", "pattern": "^[a-z]+@[a-z]+$"}, "minItems": 1}), 7),
        (schema({"anyOf": [{"type": "array", "items": {"const": "longer"}, "minItems": 2}, {"enum": ["long"]}]}), 6),
    ],
)
def test_the_budget_says_how_much_it_takes(made: GrammarCompiler, grammar: Grammar, least: int) -> None:
    with pytest.raises(OutputInvalid) as caught:
        write(made, grammar, 0, least - 1)
    assert caught.value.hint == f"max_tokens has to be at least {least}"
    assert caught.value.raw == ""
    text = write(made, grammar, 0, least)
    assert len(text.encode()) == least


@pytest.mark.parametrize("limit", [20, 33])
def test_regular_expressions_and_deep_values_end_in_time(made: GrammarCompiler, limit: int) -> None:
    for seed in range(3):
        assert re.fullmatch(
            "[a-f]{3,}-[0-9]{2,}(;x*){3}", write(made, Grammar("regex", "[a-f]{3,}-[0-9]{2,}(;x*){3}"), seed, limit)
        )
        json.loads(write(made, schema({"type": ["array", "object"]}), seed, limit))


def test_a_budget_costs_nothing_far_from_its_end(made: GrammarCompiler, monkeypatch: pytest.MonkeyPatch) -> None:
    from ondevice_sdk.engine import grammar

    asked: list[object] = []
    monkeypatch.setattr(grammar, "Planner", lambda *given: asked.append(given))
    closed = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False}
    assert json.loads(write(made, schema(closed), 1, 400)) is not None
    assert not asked


@pytest.mark.parametrize(
    "pattern", [r"^[^\w-]+$", r"\W", r"^\d{2}$", r"a\-b", "[]a]", r"^[[a]+$", r"\D", r"^(?!\.|a)(?!b\/).+", r"^[a&&b]$"]
)
def test_patterns_mean_no_more_than_in_python(made: GrammarCompiler, pattern: str) -> None:
    assert portable(pattern) is not None
    for seed in range(3):
        assert re.search(pattern, json.loads(write(made, schema({"type": "string", "pattern": pattern}), seed, 40)))


def test_texts_that_are_not_in_a_set() -> None:
    but = re.compile(anything_but(["foo", "fo", "", "é"]).replace("(?s:", "(?:"))
    for text in ("foo", "fo", "", "é"):
        assert not but.search(text)
    for text in ("f", "fooo", "bar", "éa", "o"):
        assert but.search(text)


@pytest.mark.parametrize(
    ("kind", "text", "fits"),
    [
        ("date", "2024-02-29", True),
        ("date", "2023-02-29", False),
        ("date", "1900-02-29", False),
        ("date", "2000-02-29", True),
        ("date", "0000-01-01", False),
        ("date", "2024-04-31", False),
        ("time", "23:59:59Z", True),
        ("time", "23:59:60Z", False),
        ("date-time", "2024-12-31T00:00:00.5+01:00", True),
        ("date-time", "2024-12-31 00:00:00Z", False),
    ],
)
def test_dates_exist(kind: str, text: str, fits: bool) -> None:
    assert (re.search(FORMATS[kind], text) is not None) == fits


@pytest.mark.parametrize("pattern", ["1.1", "^[a-z]+@[a-z]+\\.com$", "^(foo|bar)$", "^\\d{3}-[0-9]{2}$", "^v[0-9]+$"])
def test_examples_match(pattern: str) -> None:
    text = example(pattern)
    assert text is not None
    assert re.search(pattern, text)


def test_rewriting_leaves_the_schema_as_it_was() -> None:
    before = json.dumps(ACCEPTED)
    for value in ACCEPTED.values():
        Rewriter(value).whole()
    assert json.dumps(ACCEPTED) == before


@pytest.mark.parametrize("depth", [40, 20_000])
def test_a_schema_nested_deeply_is_read_or_refused(made: GrammarCompiler, depth: int) -> None:
    nested = '{"not":' * depth + "true" + "}" * depth
    with contextlib.suppress(SchemaUnsupported, ConfigurationError):
        made.compile(Grammar("json_schema", nested), ignore_eos=False)


CHOICE = {"enum": ["red", "green", "blue"]}


@pytest.mark.parametrize(
    "asked",
    [
        {"$defs": {"C": CHOICE}, "type": "array", "items": {"$ref": "#/$defs/C"}, "uniqueItems": True},
        {"type": "array", "items": {"type": "string", "pattern": "^[ab]$"}, "uniqueItems": True},
        {"type": "array", "items": {"type": ["boolean", "null"]}, "uniqueItems": True},
        {
            "type": "object",
            "propertyNames": {"pattern": "^[ab]$"},
            "additionalProperties": {"type": "null"},
            "minProperties": 2,
        },
        ACCEPTED["different objects within different arrays"],
        ACCEPTED["hundredths"],
    ],
)
@pytest.mark.parametrize("liked", ['",rgbtfn', ',"a', ',"ab}'])
def test_who_repeats_does_not_run_into_a_dead_end(made: GrammarCompiler, asked: Any, liked: str) -> None:
    text = repeat(made, schema(asked), liked, 200)
    assert is_valid(json.loads(text), asked), text


def _layers(count: int, width: int) -> dict[str, Any]:
    """Definitions of which each chooses one of the whole layer below."""
    made: dict[str, Any] = {f"d0_{index}": {"const": f"v{index}"} for index in range(width)}
    for layer in range(1, count + 1):
        ways = [{"$ref": f"#/$defs/d{layer - 1}_{index}"} for index in range(width)]
        made |= {f"d{layer}_{index}": {"oneOf": ways, "title": str(index)} for index in range(width)}
    return made


@pytest.mark.parametrize(
    "costly",
    [
        {"$ref": "#/$defs/d3_0", "$defs": _layers(3, 4)},
        {"oneOf": [{"type": "object", "required": [f"n{index}"]} for index in range(120)]},
        {"type": "array", "contains": {"type": "null"}, "minContains": 10**9},
        {"not": {"contains": {"type": "null"}, "maxContains": 10**9}},
    ],
)
def test_what_would_take_for_ever_is_refused(made: GrammarCompiler, costly: Any) -> None:
    began = time.monotonic()
    with pytest.raises(SchemaUnsupported):
        made.compile(schema(costly), ignore_eos=False)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "large",
    [
        {"type": "string", "pattern": "^(a+)+a{30}$"},
        {
            "type": "object",
            "properties": {f"p{index}": {"type": "null"} for index in range(60)},
            "maxProperties": 30,
            "additionalProperties": False,
        },
    ],
)
def test_what_looks_costly_is_taken_quickly(made: GrammarCompiler, large: Any) -> None:
    began = time.monotonic()
    made.compile(schema(large), ignore_eos=False)
    assert time.monotonic() - began < 10


NAMES = {"type": "object", "additionalProperties": {"type": "integer"}}
NINETEEN = "https://json-schema.org/draft/2019-09/schema"


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({**NAMES, "patternProperties": {r"^\d$": {"type": "null"}}}, '{"٣":1}'),
        ({**NAMES, "patternProperties": {r"^\w$": {"type": "null"}}}, '{"é":1}'),
        ({**NAMES, "patternProperties": {r"^[\w-]$": {"type": "null"}}}, '{"é":1}'),
        ({**NAMES, "patternProperties": {r"\s": {"type": "null"}}}, '{"\u2003":1}'),
        ({**NAMES, "patternProperties": {r"^[\S\s]$": {"type": "null"}}}, '{"\u00a0":1}'),
        ({**NAMES, "patternProperties": {"^a$": {"type": "null"}}}, '{"a\\n":1}'),
        ({"patternProperties": {r"^\w$": {"type": "null"}}, "unevaluatedProperties": {"type": "integer"}}, '{"é":1}'),
        ({"not": {"maxProperties": 1}}, '{"a":1,"a":2}'),
        ({"not": {"const": 1}}, "1.00000000000000000001"),
        ({"not": {"maximum": 1}}, "1.00000000000000000001"),
        ({"not": {"exclusiveMinimum": 2**53 + 3}}, "9007199254740996"),
        ({"type": "integer", "minimum": 2**53 + 1}, "9007199254740992"),
        ({"exclusiveMinimum": 1}, "1.00000000000000000001"),
    ],
)
def test_what_is_not_valid_is_not_written(made: GrammarCompiler, asked: Any, text: str) -> None:
    assert not is_valid(json.loads(text), asked)
    assert not made.compile(schema(asked), ignore_eos=False).completes(list(text.encode()))


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({**NAMES, "patternProperties": {r"^\w+$": {"type": "null"}}}, '{"aé":null}'),
        ({**NAMES, "patternProperties": {r"^a\Z": {"type": "null"}}}, '{"a\\n":1}'),
        ({"$schema": NINETEEN, "additionalItems": {"type": "number"}, "unevaluatedItems": {"type": "null"}}, "[null]"),
        ({"not": {"maxProperties": 1}}, '{"a":1,"b":2}'),
        ({"type": "integer", "not": {"const": 1}}, "2"),
        ({"$schema": FOUR, "oneOf": [{"properties": {"a": {"required": True}}, "type": "object"}]}, '{"a":1}'),
        ({"id": "x", "properties": {"y": {"id": "z", "$ref": "#/$defs/n"}}, "$defs": {"n": {"enum": [1]}}}, '{"y":1}'),
    ],
)
def test_what_is_valid_may_be_written(made: GrammarCompiler, asked: Any, text: str) -> None:
    assert made.compile(schema(asked), ignore_eos=False).completes(list(text.encode()))


def test_an_old_list_of_further_items_says_nothing_by_itself(made: GrammarCompiler) -> None:
    asked = {"$schema": NINETEEN, "additionalItems": {"type": "number"}, "unevaluatedItems": {"type": "null"}}
    assert not made.compile(schema(asked), ignore_eos=False).completes(list(b"[1]"))


def test_a_recursive_reference_between_resources_is_refused(made: GrammarCompiler) -> None:
    tree = {"$id": "tree", "$recursiveAnchor": True, "items": {"$recursiveRef": "#"}}
    asked = {
        "$schema": NINETEEN,
        "$id": "https://x.y/s",
        "$recursiveAnchor": True,
        "$ref": "tree",
        "$defs": {"t": tree},
    }
    with pytest.raises(SchemaUnsupported) as caught:
        made.compile(schema(asked), ignore_eos=False)
    assert caught.value.keyword == "$recursiveRef"


@pytest.mark.parametrize(
    "asked",
    [
        {"type": "integer", "minimum": 2**53 + 1, "exclusiveMaximum": 2**53 + 3},
        {"type": "integer", "maximum": int("9" * 400)},
        {"type": "number", "exclusiveMinimum": 0, "maximum": 1e-10},
        {"oneOf": [{"type": "string", "minimum": 5}, {"type": "string", "maximum": 3}]},
        {"const": "\ud800"},
        {"properties": {"\ud800": {}}, "required": ["\ud800"]},
        {"$id": "http://[bad", "$ref": "x"},
        {"contains": {}, "minContains": "x"},
        {"not": {"enum": 5}},
        {"propertyNames": {"maxLength": "x"}},
        {"minItems": float("inf")},
        *(json.loads('{"properties":{"a":' * depth + "true" + "}}" * depth) for depth in (64, 200)),
        json.loads('{"items":' * 130 + "true" + "}" * 130),
    ],
)
def test_what_no_grammar_holds_ends_in_an_error_that_says_so(made: GrammarCompiler, asked: Any) -> None:
    with pytest.raises((SchemaUnsupported, ConfigurationError)):
        made.compile(schema(asked), ignore_eos=False)


@pytest.mark.parametrize("limit", [60, 75])
def test_a_format_is_counted_in_the_budget(made: GrammarCompiler, limit: int) -> None:
    asked: Any = {"type": "array", "items": {"type": "string", "format": "uuid"}}
    text = repeat(made, schema(asked), '",0-', limit)
    assert is_valid(json.loads(text), asked), text


def test_counts_within_counts_are_multiplied() -> None:
    assert longest_need("^([ab]{10}){10}$") >= 100
    assert longest_need("(" * 40 + "a" + "{9}){9}" * 40) < 10**10


def test_patterns_of_names_that_python_does_not_know() -> None:
    assert of_names("(") is None


def test_nothing_is_kept_of_a_schema_that_is_forgotten() -> None:
    made = compiler()
    made.compile(schema({"const": "a secret"}), ignore_eos=False)
    assert "a secret" in repr(vars(made))
    made.forget()
    assert "a secret" not in repr(vars(made))
