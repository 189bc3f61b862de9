"""Extraction field by field, driven with plain values: the scores are known, so that every choice is."""

from __future__ import annotations

import datetime
import json
import math
import time
from collections.abc import Mapping
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from ondevice_sdk.errors import ConfigurationError, InputTooLong
from ondevice_sdk.tasks import analyse
from ondevice_sdk.tasks.extract.ask import windows
from ondevice_sdk.tasks.extract.outline import outline
from ondevice_sdk.tasks.flow import run_with
from ondevice_sdk.text.split import sentences
from ondevice_sdk.types import Analysis, Evidence, JsonValue

from .models import FakeModel, prompt_text


def run(
    text: str, form: Any, model: FakeModel | None = None, context_tokens: int = 4096, **options: Any
) -> Analysis[Any]:
    result = run_with(analyse(text, form, context_tokens=context_tokens, **options), model or FakeModel())
    for proof in result.evidence:
        assert text[proof.start : proof.end] == proof.text
    return result


def knows(**values: str) -> FakeModel:
    """A model that gives each field, by its name on the page, the value it is told, and no other field any."""

    def score(prompt: str, value: str) -> float:
        name = prompt.rsplit("\n", 1)[-1].removesuffix(":").lower()
        wanted = values.get(name.split(" (")[0].replace(" ", "_"), "none")
        return {wanted: -0.1, "none": -4.0}.get(value.strip(), -12.0)

    return FakeModel(score=score)


def where(result: Analysis[Any], path: str) -> list[str]:
    return [proof.text for proof in result.evidence if proof.path == path]


def strings(*names: str) -> Mapping[str, JsonValue]:
    return {"type": "object", "properties": {name: {"type": "string"} for name in names}}


class Item(BaseModel):
    name: str
    price: float | None = None


class Invoice(BaseModel):
    number: int
    date: datetime.date | None = None
    city: str | None
    kind: Literal["bill", "reminder"] = "bill"
    items: list[Item] = Field(description="what was bought")


NAMES = "amot anar apes arud elin elot enar epes erud ilin ilot inar ipes irud olin olot".split()  # noqa: SIM905
INVOICE = "Invoice 4711\nDate: 5 March 2021\nTea $3.50\nCake $1,200"


def test_values_are_pieces_of_the_text_with_their_places() -> None:
    text = "Add the 40 cal tune to the laundry  playlist."
    result = run(text, strings("artist", "playlist", "owner"), knows(artist="40 cal", playlist="laundry"))
    assert result.output == {"artist": "40 cal", "playlist": "laundry"}
    assert where(result, "/artist") == ["40 cal"]
    assert result.evidence[0] == Evidence(8, 14, "40 cal", "/artist")
    assert result.warnings == ()
    assert "cal" not in repr(result)


def test_kinds_of_values_and_rows() -> None:
    model = knows(number="4711", date="5 March 2021", name="Tea", price="$3.50")
    result = run(INVOICE, Invoice, model)
    assert result.output == Invoice(
        number=4711, date=datetime.date(2021, 3, 5), city=None, items=[Item(name="Tea", price=3.5)]
    )
    assert where(result, "/date") == ["5 March 2021"]
    assert where(result, "/items/0/price") == ["$3.50"]
    assert not model.generations


def test_what_is_not_in_the_text_is_null_or_left_out_and_never_invented() -> None:
    nullable: JsonValue = {"type": ["string", "null"]}
    schema = {
        "type": "object",
        "properties": {"a": nullable, "b": {"type": "string"}, "c": nullable},
        "required": ["a"],
    }
    result = run("Nothing of that kind.", schema, knows())
    assert result.output == {"a": None, "c": None}
    assert result.evidence == ()
    assert result.warnings == ()


def test_a_value_that_has_to_be_there_is_doubtful() -> None:
    class Strict(BaseModel):
        colour: str
        count: int

    model = knows()
    model.answer = lambda prompt: "7"
    result = run("Mostly harmless things.", Strict, model)
    assert result.output.colour in "Mostly harmless things."
    assert result.output.count == 7  # no number stands in the text: the model wrote one
    assert set(result.warnings) == {
        "/colour: not clearly borne out by the text",
        "/count: not clearly borne out by the text",
    }
    assert not any("armless" in warning for warning in result.warnings)


def test_nested_objects_lists_and_references() -> None:
    class Person(BaseModel):
        name: str | None = None

    class Deal(BaseModel):
        buyer: Person
        seller: Person | None = None
        goods: list[str] = []

    def score(prompt: str, value: str) -> float:
        name = prompt.rsplit("\n", 1)[-1]
        wanted = {"Name:": ["Anna Lund"], "Goods:": ["oak chairs", "lamps"]}.get(name, ["none"])
        return -0.1 if value.strip() in wanted else -12.0

    result = run("Anna Lund bought oak chairs and lamps.", Deal, FakeModel(score=score))
    assert result.output.buyer.name == "Anna Lund"
    assert result.output.goods == ["oak chairs", "lamps"]
    assert where(result, "/goods/1") == ["lamps"]


def test_an_object_that_may_lack_is_whole_or_not_there() -> None:
    class Person(BaseModel):
        name: str
        age: int

    class Deal(BaseModel):
        seller: Person | None
        buyer: Person | None = None
        place: str | None = None

    def score(prompt: str, value: str) -> float:
        return {"Anna Lund": -0.1, "none": -4.0}.get(value.strip(), -12.0) if prompt.endswith("Name:") else -6.0

    half = run("Sold by Anna Lund.", Deal, FakeModel(score=score))
    assert half.output == Deal(seller=None)
    assert where(half, "/seller/name") == where(half, "/buyer/name") == []


def test_labels_and_yes_or_no() -> None:
    class Order(BaseModel):
        size: Literal["small", "very_large"] | None = None
        urgent: bool = False
        gift: bool | None = None
        version: Literal[2] = 2

    def score(prompt: str, value: str) -> float:
        return -0.1 if value == (" yes" if "hurry" in prompt else " no") else -3.0

    result = run("A very large one. It is urgent, please hurry.", Order, FakeModel(score=score))
    assert result.output == Order(size="very_large", urgent=True, gift=None, version=2)
    assert where(result, "/size") == ["very large"]
    assert where(result, "/urgent") == ["It is urgent, please hurry."]  # nothing in the text is about a gift


def test_examples_stand_before_the_text() -> None:
    model = knows(colour="red")
    run("A red hat.", strings("colour"), model, examples=[("A blue coat.", {"colour": "blue"})])
    assert prompt_text(model.scorings[0].prompt).startswith("Text: A blue coat.\nColour: blue\n\nText: A red hat.\n")
    long = ("A hat. " * 500, {"colour": "blue"})
    result = run("A red hat.", strings("colour"), model, examples=[long])
    assert result.warnings == ("1 of 1 examples did not fit into the context",)
    with pytest.raises(ConfigurationError):
        run("A red hat.", Invoice, model, examples=[("A blue coat.", {"colour": "blue"})])


FACT = "The ferry from Oskarin to Teld costs exactly 17 crowns and 40 pence."
ASKED: Mapping[str, JsonValue] = {
    "type": "object",
    "properties": {
        "fare": {"type": ["string", "null"], "description": "How much does the ferry from Oskarin to Teld cost?"},
        "crowns": {"type": "integer", "description": "How many crowns does the ferry from Oskarin to Teld cost?"},
        "captain": {"type": ["string", "null"], "description": "Who is the captain of the submarine Gull?"},
        "many": {"type": "array", "items": {"type": "string"}, "description": "Where does the ferry from Oskarin go?"},
    },
}


def test_questions_are_answered_from_anywhere_in_a_long_text() -> None:
    filler = "The wind blew over the hills, and nobody in the town of Alder spoke of it. " * 20
    for before, behind in ((0, 30), (15, 15), (30, 0)):
        text = "\n\n".join([filler] * before + [FACT] + [filler] * behind)
        model = FakeModel()
        result = run(text, ASKED, model)
        assert result.output == {
            "fare": "17 crowns and 40 pence",
            "crowns": 17,
            "captain": None,
            "many": ["Teld"],
        }
        start = text.index(FACT)
        assert all(start <= proof.start < proof.end <= start + len(FACT) for proof in result.evidence)
        assert all(
            len(prompt_text(request.prompt)) < 2000 for request in model.scorings
        )  # bounded, whatever the length


def test_time_is_linear_in_the_text() -> None:
    def seconds(times: int) -> float:
        text = "The wind blew over the hills, and nobody spoke. It rained.\n\n" * times + FACT
        started = time.process_time()
        run(text, ASKED)
        return time.process_time() - started

    seconds(10)
    assert seconds(800) < 12 * max(seconds(200), 0.005)  # four times the text; sixteen if it were quadratic


@pytest.mark.parametrize(
    "text",
    [
        "x" * 200_000,
        "a " * 100_000,
        "(" * 50_000,
        "1," * 50_000,
        "🧪" * 20_000,
        "日本" * 20_000,
        "\n" * 1000 + "x",
        "-" * 9999,
    ],
)
def test_hostile_texts(text: str) -> None:
    form = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "q": {"type": "number", "description": "Who?"}},
    }
    assert isinstance(run(text, form, context_tokens=2048).output, dict)


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=1, max_size=300), st.floats())
def test_any_text_and_any_score_give_pieces_of_the_text(text: str, score: float) -> None:
    if not text.strip():
        return
    schema = {**strings("name", "city"), "required": ["name"]}
    model = FakeModel(answer=lambda prompt: '"x"', score=lambda prompt, value: score)
    output = run(text, schema, model).output
    for value in output.values():
        assert value == "x" or "".join(value.split()) in "".join(text.split())


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "array", "items": {"type": "string"}},
        {"type": "object", "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "integer"}]}}},
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
        {"$ref": "#"},
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "^a+$"}}},
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["b"]},
        {"type": "object", "properties": {f"a{n}": {"type": "string"} for n in range(200)}},
        {"type": "object", "properties": {"a": {"$ref": "other.json"}}},
        {"type": "object", "properties": {"a": True}},
        {"anyOf": [{"type": "null"}]},
        {"type": "object", "properties": {"a": {"enum": []}}},
        {"type": "object", "properties": {"a": {"enum": 5}}},
        {"type": "object", "properties": {"a": {"type": "string", "const": 5}}},
        {"type": "object", "properties": {"a": {"type": "integer", "enum": [True]}}},
        {"type": "object", "properties": {"a": {"type": "string", "maxLength": "x"}}},
        {"type": "object", "properties": {"a": {"type": "integer", "minimum": "x"}}},
        {"type": "object", "properties": {"a": {"type": "array", "minItems": "x", "items": {"type": "string"}}}},
        {"type": "object", "properties": {"a": {"anyOf": 5}}},
        {"type": "object", "properties": {"a": {"type": "thing"}}},
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": 5},
        True,
    ],
)
def test_what_is_no_list_of_fields(schema: Any) -> None:
    assert outline(schema) is None


def test_very_deep_schemas_are_written() -> None:
    schema: Any = {"type": "string"}
    for _ in range(50):
        schema = {"type": "object", "properties": {"a": schema}}
    assert outline(schema) is None


def test_a_list_that_must_be_longer_than_the_text_can_fill_is_an_error() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}, "minItems": 3}}}
    model = FakeModel(answer=lambda prompt: json.dumps({"a": ["one", "two", "tea"]}))
    result = run("tea", schema, model)  # the model writes it as a whole
    assert result.output == {"a": ["one", "two", "tea"]}
    assert result.warnings == ("/a/0: not clearly borne out by the text", "/a/1: not clearly borne out by the text")


def test_what_is_written_is_held_against_the_text() -> None:
    schema: Mapping[str, JsonValue] = {
        "type": "object",
        "properties": {
            "who": {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]},
            "age": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
            "town": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
            "names": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
            "rest": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        },
        "required": ["who", "town", "names"],
    }
    written = {"who": "Peter", "age": 42, "town": "ANNA  lund", "names": ["Bern", "lamps"], "rest": "nope"}
    model = FakeModel(answer=lambda prompt: json.dumps(written))
    result = run("Anna\nLund, 42, sells lamps.", schema, model)
    assert result.output == {"who": None, "age": 42, "town": "ANNA  lund", "names": ["lamps"]}
    assert where(result, "/town") == ["Anna\nLund"]
    assert where(result, "/names/0") == ["lamps"]
    assert where(result, "/age") == ["42"]
    assert result.warnings == ()


def test_free_keys_have_a_schema_and_are_in_no_warning() -> None:
    free: JsonValue = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    schema: Mapping[str, JsonValue] = {"type": "object", "additionalProperties": free}
    model = FakeModel(answer=lambda prompt: json.dumps({"secret": ["nope"], "more": ["no"], "x": ["nope", "lamps"]}))
    result = run("Anna sells lamps.", schema, model)
    assert result.output == {"secret": ["nope"], "more": ["no"], "x": ["lamps"]}
    assert result.warnings == ("/*: not clearly borne out by the text",)


def test_long_lists_are_whole_or_a_warning_says_so() -> None:
    text = "\n".join(f"Item {number}" for number in range(30))

    def listed(**limits: int) -> Mapping[str, JsonValue]:
        return {"type": "object", "properties": {"number": {"type": "array", "items": {"type": "integer"}, **limits}}}

    model = FakeModel(score=lambda prompt, value: -9.0 if prompt.endswith("\nOther:") else -1.0)
    whole = run(text, listed(), model)
    assert isinstance(whole.output, dict)
    assert whole.output["number"] == list(range(30))
    assert whole.warnings == ()
    assert run(text, listed(maxItems=4), model).warnings == ("/number: 4 of 30 items only",)
    words = [f"{one}{two}" for one in ("Bar", "Kel", "Mor", "Nis", "Tav") for two in NAMES]
    schema = {"type": "object", "properties": {"name": {"type": "array", "items": {"type": "string"}}}}
    assert run("they saw\n" + "\n".join(words), schema, model).output == {"name": words}
    row = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}
    rows = {"type": "object", "properties": {"rows": {"type": "array", "items": row, "maxItems": 7}}}
    assert run(text, rows, model).warnings == ("/rows: 7 of 30 items only",)


def test_no_window_has_more_bytes_than_it_may() -> None:
    text = "a" * 900 + ". " + "漢字" * 500 + "。 " + "Tea and cake. " * 50
    found = windows(text, sentences(text), 300)
    assert all(len(window.text.encode()) <= 300 and text[window.start : window.end] == window.text for window in found)
    assert "".join("".join(window.text for window in found).split()) == "".join(text.split())


def test_no_room() -> None:
    with pytest.raises(InputTooLong):
        run("x", strings("name"), context_tokens=60)


def test_scores_that_are_no_numbers() -> None:
    result = run("Anna met Bo.", strings("name"), FakeModel(score=lambda prompt, value: math.nan))
    assert isinstance(result.output, dict)
