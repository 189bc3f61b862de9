from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from ondevice_sdk.backends.api import Chat, Grammar, Message
from ondevice_sdk.errors import ConfigurationError, OutputInvalid, SchemaUnsupported
from ondevice_sdk.tasks import count_tokens, generate, prewarm
from ondevice_sdk.tasks.flow import run_with
from ondevice_sdk.tasks.schema import grammar_for
from ondevice_sdk.types import Generation

from .models import FakeModel


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class City(BaseModel):
    name: str
    people: int


def run(prompt: Any, model: FakeModel, **options: Any) -> Generation[Any]:
    return run_with(generate(prompt, context_tokens=2048, **options), model)


def writes(text: str, finish_reason: str = "stop") -> FakeModel:
    return FakeModel(lambda prompt: text, finish_reason=finish_reason)


def test_options_reach_the_request() -> None:
    model = writes("hello", "length")
    result = run(
        "Hi",
        model,
        instructions="Be kind.",
        max_tokens=5,
        temperature=0,
        seed=3,
        stop="\n",
        stream=True,
    )
    assert (result.text, result.output, result.finish_reason) == ("hello", "hello", "length")
    (request,) = model.generations
    assert request.prompt == Chat((Message("system", "Be kind."), Message("user", "Hi")))
    assert (request.max_tokens, request.sampling.temperature, request.sampling.seed) == (5, 0.0, 3)
    assert (request.stop, request.stream, request.grammar) == (("\n",), True, None)


def test_conversations_keep_every_turn() -> None:
    turns = [Message("system", "S"), *(Message("user" if n % 2 == 0 else "assistant", str(n)) for n in range(9))]
    model = writes("x")
    run(turns, model, instructions="I")
    assert model.generations[0].prompt == Chat((Message("system", "I\n\nS"), *turns[1:]))


@pytest.mark.parametrize(
    ("form", "raw", "expected"),
    [
        (Colour, "blue", Colour.BLUE),
        (Literal["yes", "no"], "no", "no"),
        (Literal[1, 2], "2", 2),
        (City, '{"name":"Bern","people":5}', City(name="Bern", people=5)),
        (dict[str, int], '{"a":1}', {"a": 1}),
        ({"type": "array"}, "[1]", [1]),
        (re.compile(r"\d{3}"), "123", "123"),
        (str, "free", "free"),
        (float, "1.5", 1.5),
    ],
)
def test_typed_output(form: Any, raw: str, expected: Any) -> None:
    result = run("Q", writes(raw), output_type=form)
    assert result.output == expected
    assert result.text == raw


def test_grammars() -> None:
    assert grammar_for(Colour) == Grammar("choice", choices=("red", "blue"))
    assert grammar_for(re.compile("a+b", re.IGNORECASE | re.DOTALL)) == Grammar("regex", source="(?is)a+b")
    assert grammar_for(str) is None
    city = grammar_for(City)
    assert city is not None
    assert json.loads(city.source)["required"] == ["name", "people"]


def test_the_schema_is_shown_to_the_model() -> None:
    model = writes("5")
    run("Q", model, output_type=int, instructions="Be brief.")
    prompt = model.generations[0].prompt
    assert isinstance(prompt, Chat)
    assert prompt.messages[0].role == "system"
    assert '{"type":"integer"}' in prompt.messages[0].content
    assert "Be brief." in prompt.messages[0].content


@pytest.mark.parametrize(
    ("form", "raw"),
    [(City, '{"name":"Be'), ({"type": "object"}, "{"), (Colour, "re"), (re.compile(r"\d{3}"), "12"), (int, "")],
)
def test_unfinished_output_is_invalid(form: Any, raw: str) -> None:
    with pytest.raises(OutputInvalid) as caught:
        run("Q", writes(raw, "length"), output_type=form)
    assert caught.value.raw == raw
    assert caught.value.__context__ is None


def test_a_cancelled_generation_gives_its_part() -> None:
    assert run("Q", writes("Once upon", "cancelled")).output == "Once upon"
    typed = run("Q", writes('{"na', "cancelled"), output_type=City)
    assert (typed.text, typed.output, typed.finish_reason) == ('{"na', None, "cancelled")


@pytest.mark.parametrize(
    "options",
    [
        {"prompt": ""},
        {"prompt": " \n"},
        {"prompt": []},
        {"prompt": [Message("system", "only this")]},
        {"prompt": [Message("user", "a"), Message("system", "b")]},
        {"prompt": [Message("robot", "a")]},  # type: ignore[arg-type]
        {"prompt": ["text"]},
        {"prompt": "a\ud800"},
        {"instructions": "\ud800"},
        {"instructions": 5},
        {"max_tokens": 0},
        {"max_tokens": 1.5},
        {"max_tokens": True},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": "hot"},
        {"top_p": 0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"min_p": 2},
        {"repetition_penalty": 0},
        {"seed": -1},
        {"seed": 2**63},
        {"seed": "1"},
        {"stop": [""]},
        {"stop": [5]},
        {"output_type": "int"},
        {"output_type": {"a": {1, 2}}},
    ],
)
def test_bad_input_is_refused_before_the_first_request(options: dict[str, Any]) -> None:
    model = writes("x")
    with pytest.raises(ConfigurationError):
        run(options.pop("prompt", "Q"), model, **options)
    assert not model.requests


@pytest.mark.parametrize("form", [Callable, re.compile(b"x"), re.compile("x", re.ASCII), type("Odd", (), {})])
def test_types_that_cannot_be_a_constraint(form: Any) -> None:
    with pytest.raises(SchemaUnsupported) as caught:
        run("Q", writes("x"), output_type=form)
    assert caught.value.keyword


def test_counting_and_warming() -> None:
    model = writes("x")
    assert run_with(count_tokens("abcdefgh", context_tokens=64), model) == 2
    assert run_with(count_tokens("", context_tokens=64), model) == 0
    assert run_with(count_tokens([Message("user", "abcdefgh")], context_tokens=64), model) == 12
    run_with(prewarm("Be kind.", context_tokens=64), model)
    assert model.generations[0].max_tokens == 1
    with pytest.raises(ConfigurationError):
        run_with(prewarm("\ud800", context_tokens=64), model)
