"""The measure of tools: what counts as the right call, and what of a free answer counts as one."""

from __future__ import annotations

from typing import Any

import pytest

from ondevice_sdk import Client, Tool, ToolCall
from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.evaluate.data import Record
from ondevice_sdk.evaluate.measures.measure import Sample
from ondevice_sdk.evaluate.measures.tools import ToolMeasure, is_accepted, written_call
from ondevice_sdk.evaluate.session import Session

AREA: dict[str, Any] = {
    "name": "geometry.area",
    "description": "Compute the area of a triangle.",
    "parameters": {
        "type": "object",
        "properties": {"base": {"type": "integer"}, "height": {"type": "integer"}, "unit": {"type": "string"}},
        "required": ["base", "height"],
    },
}
TOOLS = [Tool(AREA["name"], AREA["description"], AREA["parameters"])]


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        ({"base": 5, "height": 3}, True),
        ({"base": 5.0, "height": 3, "unit": "Square-Metres"}, True),
        ({"base": 5}, False),
        ({"base": 5, "height": 4}, False),
        ({"base": True, "height": 3}, False),
        ({"base": 5, "height": 3, "unit": "feet"}, False),
        ({"base": 5, "height": 3, "colour": "red"}, False),
    ],
)
def test_accepted_arguments(arguments: dict[str, Any], right: bool) -> None:
    assert is_accepted(arguments, {"base": [5], "height": [3, "3"], "unit": ["", "square metres"]}) is right


def test_accepted_lists_and_objects() -> None:
    assert is_accepted({"of": ["A b", 2]}, {"of": [[1], ["a B", 2]]})
    assert not is_accepted({"of": [2]}, {"of": [[1, 2]]})
    assert is_accepted({"of": {"x": 1}}, {"of": [{"x": [1, 2], "y": ["", 3]}]})
    assert not is_accepted({"of": {"z": 1}}, {"of": [{"x": [1]}]})


@pytest.mark.parametrize(
    ("answer", "arguments"),
    [
        ('Sure: {"name": "geometry.area", "arguments": {"base": 5, "height": 3}}', {"base": 5, "height": 3}),
        ('{} {"geometry.area": {"base": 5}}', {"base": 5}),
        ('```python\ngeometry.area(base=5, height=3, unit=")")\n```', {"base": 5, "height": 3, "unit": ")"}),
        ("geometry.area(5, height=-3)", {"base": 5, "height": -3}),
        ("def geometry.area(base, height):", None),
        ("geometry.area(base=width)", None),
        ("my_geometry.area(5)", None),
        ('{"name": "volume", "arguments": {}}', None),
        ("geometry.area(" + "(" * 5000, None),
        ("NONE", None),
    ],
)
def test_calls_in_free_answers(answer: str, arguments: dict[str, Any] | None) -> None:
    expected = None if arguments is None else ToolCall("geometry.area", arguments)
    assert written_call(answer, TOOLS) == expected


def test_figures(echo: Client) -> None:
    right = [{"geometry.area": {"base": [5], "height": [5], "unit": [""]}}]
    rows: list[Any] = [
        {"messages": [{"content": "The area of a triangle with base 5 and height 5"}], "ground_truth": right},
        {"messages": [{"content": "geometry.area(5, 5) is the area of a triangle"}], "ground_truth": right},
        {"messages": [{"content": "Who painted this?"}], "ground_truth": []},
        {"messages": [{"content": 'Say {"name": "geometry.area", "arguments": {"base": 1}}'}], "ground_truth": []},
    ]
    records = [Record("mine.jsonl", line, {**row, "tools": [AREA]}) for line, row in enumerate(rows, 1)]
    found = {row.metric: row for row in ToolMeasure().rows(Session(echo), Sample("mine", records, records))}
    assert found["right function"].sdk is not None
    assert found["right function"].sdk.value == 1  # both requests have the words, whatever the echo writes into them
    valid, false = found["valid calls"], found["false calls"]
    assert valid.sdk is not None
    assert 0.5 <= valid.sdk.value <= 1
    assert valid.best_naive is not None
    assert (valid.best_naive.name, valid.best_naive.figure.value) == ("call-python", 0.5)  # which begins with the text
    assert false.sdk is not None
    assert false.sdk.value == 0
    assert false.best_naive is not None
    assert false.best_naive.figure.value == 0.5  # the echo of the last row is a call
    assert false.better == "lower"


def test_a_call_that_fails_is_wrong_where_none_is_wanted_too(echo: Client) -> None:
    row: dict[str, Any] = {"messages": [{"content": "Who? " * 2000}], "tools": [AREA], "ground_truth": []}
    record = Record("mine.jsonl", 1, row)
    (false,) = ToolMeasure().rows(Session(echo), Sample("mine", [record], [record]))
    assert false.sdk is not None
    assert false.best_naive is not None
    assert false.sdk.value == false.best_naive.figure.value == 1


@pytest.mark.parametrize(
    "truth", [[{"a": {}}, {"b": {}}], [{"geometry.area": {}, "b": {}}], [{"volume": {}}], [{"geometry.area": 5}]]
)
def test_rows_of_another_form(echo: Client, truth: Any) -> None:
    record = Record("mine.jsonl", 1, {"messages": [{"content": "a"}], "tools": [AREA], "ground_truth": truth})
    with pytest.raises(ConfigurationError, match=r"mine\.jsonl:1"):
        ToolMeasure().rows(Session(echo), Sample("mine", [record], [record]))
