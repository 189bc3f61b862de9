from __future__ import annotations

import time
from datetime import date
from typing import Any

import pytest

from ondevice_sdk.tasks.tools.evidence import Evidence
from ondevice_sdk.tasks.tools.values import narrowed


def held(part: dict[str, Any], request: str, *, required: bool = True, name: str = "value") -> Any:
    schema = {"type": "object", "properties": {name: part}, "required": [name] if required else []}
    return narrowed(schema, Evidence.of(request))["properties"].get(name)


NUMBER = {"type": "number"}
INTEGER = {"type": "integer"}
TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("request_", "numbers"),
    [
        ("charges of 5C and 7 C, 3 metres apart", (5, 7, 3)),
        ("12,000 miles at -4.5 degrees", (12000, -4.5)),
        ("1e-9 of it, and 3.5e6", (1e-9, 3.5e6)),
        ("50 million dollars, 3 thousand euros", (50e6, 3000)),
        ("$50k for 300K", (50, 50_000, 300, 300_000)),
        ("three bottles and a dozen eggs", (3, 12)),
        ("versions v2 and 3rd of x86", (3,)),
        ("2024-03-05", (2024, 3, 5)),
        ("none", ()),
        ("9" * 400, ()),
    ],
)
def test_numbers(request_: str, numbers: tuple[float, ...]) -> None:
    assert Evidence.of(request_).numbers == numbers


def test_numbers_are_taken_from_the_request() -> None:
    assert held(INTEGER, "base 10 and height 5")["enum"] == [10, 5]
    assert held(INTEGER, "base 2.5") == INTEGER
    assert held(NUMBER, "a rate of 5%")["enum"] == [0.05]
    assert held({**NUMBER, "description": "in per cent"}, "a rate of 5%")["enum"] == [5]
    assert held(INTEGER, "a rate of 5%")["enum"] == [5]
    assert held({**INTEGER, "maximum": 7, "description": "d"}, "10 or 5") == {"description": "d", "enum": [5]}
    assert held(INTEGER, "no number at all") == INTEGER


@pytest.mark.parametrize(
    ("part", "request_", "kept"),
    [
        ({"type": ["integer", "null"]}, "for 3 guests", {"enum": [3]}),
        ({"const": 5, "type": "integer"}, "for 3 guests", {"const": 5, "type": "integer"}),
        (
            {"type": "array", "items": {"type": "integer", "maximum": 10}},
            "guests 3, 7 and 50",
            {"type": "array", "items": {"enum": [3, 7]}, "minItems": 1, "maxItems": 3},
        ),
        ({"type": "array", "items": TEXT, "contains": {"const": "x"}}, "a, b and c", None),
    ],
)
def test_rules_of_the_schema_are_not_narrowed_away(part: dict[str, Any], request_: str, kept: Any) -> None:
    assert held(part, request_) == (part if kept is None else kept)


def test_phrases_are_taken_from_the_request() -> None:
    phrases = held(TEXT, 'Play "Dil Nu" by Maninder Buttar, please. It is good')["enum"]
    assert {"Dil Nu", "Maninder Buttar", "good"} <= set(phrases)
    assert not {"by Maninder", "Buttar, please. It", "by", "please"} & set(phrases)
    assert "McDonald's" in held(TEXT, "Order from McDonald's.")["enum"]
    assert "Washington D.C." in held(TEXT, "Fly to Washington D.C.")["enum"]
    assert "New York, USA" in held(TEXT, "From New York, USA to Rome")["enum"]
    assert "The Godfather" in held(TEXT, "Who shot The Godfather?")["enum"]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "string", "pattern": "^a"},
        {"type": "string", "maxLength": 5},
        {"type": "string", "format": "email"},
        {"type": "string", "description": "A time in the format HH:MM."},
    ],
)
def test_strings_of_a_form_of_their_own_are_written_freely(part: dict[str, Any]) -> None:
    assert held(part, "Mail bob@example.com in Rome") == part


def test_texts_whose_phrases_cannot_be_told_leave_strings_free() -> None:
    assert held(TEXT, "東京の天気を教えて") == TEXT
    assert held(TEXT, "word " * 300) == TEXT


def test_lists_are_taken_from_the_request() -> None:
    numbers = {"type": "array", "items": NUMBER}
    assert held(numbers, "the mean of 2, 4.5 and 10")["enum"] == [[2, 4.5, 10]]
    assert held(numbers, "of [200,300,400] at 10%")["enum"] == [[200, 300, 400]]
    texts = {"type": "array", "items": TEXT}
    assert ["Australia", "Canada", "India"] in held(texts, "the capitals of Australia, Canada, and India")["enum"]
    assert held(texts, "join 'John' and 'Doe', please")["enum"] == [["John", "Doe"]]
    only = held(texts, "the capital of Chad")
    assert (only["minItems"], only["maxItems"]) == (1, 1)
    assert "Chad" in only["items"]["enum"]
    few = {**texts, "maxItems": 2}
    assert held(few, "Chad")["maxItems"] == 2
    unique = {**texts, "uniqueItems": True}
    assert held(unique, "Chad and Mali") == unique


@pytest.mark.parametrize(
    "said", ["2024-03-05", "2024/3/5", "March 5th, 2024", "Mar. 5 2024", "5 March 2024", "5th of march, 2024"]
)
def test_dates(said: str) -> None:
    evidence = Evidence.of(f"The weather on {said} please")
    assert evidence.dates == (date(2024, 3, 5),)
    assert held({"type": "string", "format": "date"}, said)["enum"] == ["2024-03-05"]
    assert held({"type": "string", "description": "as DD/MM/YYYY"}, said, required=False)["enum"] == ["05/03/2024"]


def test_days_that_do_not_exist_are_no_dates() -> None:
    assert Evidence.of("2024-13-45, February 30 2024, may 2024").dates == ()


def test_options_that_the_request_names() -> None:
    unit = {"enum": ["celsius", "fahrenheit"]}
    assert held(unit, "in Fahrenheit please")["enum"] == ["fahrenheit"]
    assert held(unit, "please") == unit
    assert held(unit, "please", required=False) is None
    assert held({"type": "string", "description": "options: 'Darwin', 'Lamarck'"}, "the Darwin model", required=False)[
        "enum"
    ] == ["Darwin"]
    assert held({"enum": [1, 2, 3]}, "for two people", required=False)["enum"] == [2]
    amenities = {"type": "array", "items": {"enum": ["Patio", "Wi-Fi"]}}
    assert held(amenities, "with a patio", required=False)["items"]["enum"] == ["Patio"]


def test_optional_arguments_need_a_word() -> None:
    assert held(TEXT, "anything", required=False, name="region") is None
    assert held(TEXT, "the region of Bavaria", required=False, name="region") is not None
    assert held(INTEGER, "the limit", required=False, name="limit") is None  # and a number
    assert held(INTEGER, "a limit of 3", required=False, name="limit")["enum"] == [3]
    assert held({"type": "boolean"}, "with details, please", required=False, name="include_details") is not None
    one_for_the_base = {
        "type": "object",
        "properties": {"base": NUMBER, "height": NUMBER},
        "required": ["base"],
    }
    assert list(narrowed(one_for_the_base, Evidence.of("base 3, what height"))["properties"]) == ["base"]


def test_schemas_with_definitions() -> None:
    schema = {
        "type": "object",
        "$defs": {"Unit": {"enum": ["m", "feet"]}},
        "properties": {
            "unit": {"anyOf": [{"$ref": "#/$defs/Unit"}, {"type": "null"}]},
            "odd": {"$ref": "#/$defs/None"},
            "inner": {"type": "object", "properties": {"x": INTEGER}, "required": ["x"]},
        },
        "required": ["unit", "odd", "inner"],
    }
    made = narrowed(schema, Evidence.of("in feet, 4 of them"))["properties"]
    assert made["unit"]["enum"] == ["feet"]
    assert made["odd"] == {"$ref": "#/$defs/None"}
    free = narrowed(schema, Evidence.of("none of these"))["properties"]
    assert free["unit"] == {"anyOf": [{"$ref": "#/$defs/Unit"}, {"type": "null"}]}
    assert made["inner"]["properties"]["x"]["enum"] == [4]


def test_types_that_hold_themselves() -> None:
    schema: dict[str, Any] = {
        "type": "object",
        "$defs": {
            "Node": {
                "type": "object",
                "properties": {"size": INTEGER, "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}}},
                "required": ["size", "children"],
            },
            "Loop": {"anyOf": [{"$ref": "#/$defs/Loop"}, {"type": "null"}]},
        },
        "properties": {"root": {"$ref": "#/$defs/Node"}, "loop": {"$ref": "#/$defs/Loop"}},
        "required": ["root", "loop"],
    }
    made = narrowed(schema, Evidence.of("of size 5"))
    assert made["properties"]["root"]["properties"]["size"]["enum"] == [5]
    assert made["$defs"] == schema["$defs"]


def test_objects_whose_fields_depend_on_each_other_stay_as_they_are() -> None:
    schema = {"type": "object", "properties": {"a": TEXT, "b": TEXT}, "minProperties": 1}
    assert narrowed(schema, Evidence.of("anything")) == schema


@pytest.mark.parametrize(
    "text", ["9" * 200_000, "a " * 100_000, "'" * 100_000, "1," * 100_000, "may 1 " * 30_000, "x" * 10**6]
)
def test_hostile_requests_are_read_in_linear_time(text: str) -> None:
    started = time.perf_counter()
    Evidence.of(text)
    assert time.perf_counter() - started < 2
