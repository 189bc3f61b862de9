from __future__ import annotations

import enum
import json
import threading
from datetime import date
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from ondevice_sdk.backends.api import Chat, Generate, Message, Score
from ondevice_sdk.errors import Cancelled, ConfigurationError, OutputInvalid, SchemaUnsupported
from ondevice_sdk.tasks import generate
from ondevice_sdk.tasks.flow import run_with
from ondevice_sdk.tasks.tools.offers import offers_of
from ondevice_sdk.types import Generation, Tool, ToolCall

from .models import FakeModel, prompt_text


class Unit(enum.Enum):
    CELSIUS = "celsius"
    FAHRENHEIT = "fahrenheit"


class Room(BaseModel):
    beds: int
    view: str = "street"


def weather(city: str, day: date | None = None, unit: Unit = Unit.CELSIUS) -> str:
    """Tell the weather of a city.

    It knows the next ten days.

    Args:
        city: The name of the city.
        day (date): Which day.

    Returns:
        A sentence.
    """
    return f"{city} {day} {unit.value}"


def timer(minutes: int, label: str = "") -> None:
    """Set a kitchen timer.

    :param minutes: how long
    """


class Counter:
    def __init__(self) -> None:
        self.calls = 0

    def count(self, step: Annotated[int, Field(description="By how much.", ge=1)] = 1) -> int:
        """Count on."""
        self.calls += step
        return self.calls


def likes(name: str, arguments: str, finish_reason: str = "stop") -> FakeModel:
    """A model that finds requests likely after one tool, and writes its arguments."""
    return FakeModel(
        lambda prompt: arguments if prompt.endswith("Arguments: ") else "words",
        lambda prompt, _: -1.0 if prompt.startswith(f"Function: {name}\n") else -3.0,
        finish_reason=finish_reason,
    )


def run(prompt: Any, model: FakeModel, **options: Any) -> Generation[Any]:
    return run_with(generate(prompt, context_tokens=2048, **options), model)


ASKED = "What is the weather of the city of New York on March 5th, 2024, in fahrenheit?"
WRITTEN = '{"city":"New York","day":"2024-03-05","unit":"fahrenheit"}'


def test_a_call_is_proposed_and_nothing_runs() -> None:
    ran: list[str] = []

    def city_weather(city: str) -> str:
        """Tell the weather of a city."""
        ran.append(city)
        return "mild"

    model = likes("city weather", '{"city":"New York"}')
    answer = run(ASKED, model, tools=[timer, city_weather], seed=1)
    (call,) = answer.tool_calls
    assert (call.name, dict(call.arguments), answer.finish_reason) == (
        "city_weather",
        {"city": "New York"},
        "tool_call",
    )
    assert json.loads(answer.text) == {"name": "city_weather", "arguments": {"city": "New York"}}
    assert answer.output == answer.text
    assert ran == []
    assert call.run() == "mild"
    assert ran == ["New York"]
    assert "New York" not in repr(call)


def test_arguments_have_the_types_of_the_function() -> None:
    (call,) = run(ASKED, likes("weather", WRITTEN), tools=[weather]).tool_calls
    assert call.arguments == {"city": "New York", "day": date(2024, 3, 5), "unit": Unit.FAHRENHEIT}
    assert call.run() == "New York 2024-03-05 fahrenheit"


def test_the_model_writes_within_what_the_request_says() -> None:
    model = likes("weather", WRITTEN)
    run(ASKED, model, tools=[weather], max_tokens=77)
    (request,) = model.generations
    assert request.grammar is not None
    schema = json.loads(request.grammar.source)
    assert schema["properties"]["day"]["enum"] == ["2024-03-05"]
    assert schema["properties"]["unit"]["enum"] == ["fahrenheit"]
    assert "New York" in schema["properties"]["city"]["enum"]
    assert schema["required"] == ["city", "day", "unit"]
    assert (request.max_tokens, request.sampling.temperature, request.stream) == (77, 0.0, False)
    prompt = prompt_text(request.prompt)
    assert "The name of the city." in prompt
    assert ASKED in prompt


def test_a_request_of_something_else_is_answered_in_words() -> None:
    model = FakeModel(lambda prompt: "words")
    answer = run("Write a poem about the sea.", model, tools=[weather, timer], stream=True)
    assert (answer.text, answer.tool_calls, answer.finish_reason) == ("words", (), "stop")
    (request,) = model.requests
    assert isinstance(request, Generate)
    assert request.stream
    assert request.prompt == Chat((Message("user", "Write a poem about the sea."),))


@pytest.mark.parametrize("name", ["city_tides", "city_weather"])
def test_between_rivals_the_model_decides(name: str) -> None:
    def city_weather(city: str) -> None:
        """Tell the weather and the tides of a city."""

    def city_tides(city: str) -> None:
        """Tell the tides and the weather of a city."""

    model = likes(name.replace("_", " "), '{"city":"Ostend"}')
    asked = "What about weather and tides in the city of Ostend?"
    answer = run(asked, model, tools=[city_weather, city_tides, timer])
    assert [call.name for call in answer.tool_calls] == [name]
    assert len(model.scorings) == 2  # the timer is no rival
    assert answer.usage.prompt_tokens > len(asked)  # of two scorings and a writing


def test_a_tool_whose_numbers_are_not_given_is_not_called() -> None:
    model = likes("timer", '{"minutes":5}')
    assert run("Please set the kitchen timer.", model, tools=[timer]).tool_calls == ()
    assert run("Please set the kitchen timer to five minutes.", model, tools=[timer]).tool_calls[0].arguments == {
        "minutes": 5
    }


def test_a_result_goes_back_and_the_model_goes_on() -> None:
    first = run(ASKED, likes("weather", WRITTEN), tools=[weather])
    (call,) = first.tool_calls
    turns = [
        Message("user", ASKED),
        Message("assistant", first.text),
        call.reply({"degrees": 50, "day": date(2024, 3, 5)}),
    ]
    assert turns[-1] == Message("tool", 'Result of weather: {"degrees":50,"day":"2024-03-05"}')
    model = likes("weather", WRITTEN)
    answer = run(turns, model, tools=[weather])
    assert (answer.text, answer.finish_reason) == ("words", "stop")  # a tool that has answered is not asked again
    assert model.scorings == []
    prompt = model.generations[0].prompt
    assert isinstance(prompt, Chat)
    assert [message.role for message in prompt.messages] == ["user", "assistant", "user"]
    following = run(
        [*turns, Message("assistant", "50"), Message("user", ASKED)], likes("weather", WRITTEN), tools=[weather]
    )
    assert following.finish_reason == "tool_call"  # a new request may


def test_results_of_two_tools_are_one_turn_of_the_user() -> None:
    model = FakeModel(lambda prompt: "words")
    both = [Message("user", "Q"), Message("assistant", "A"), Message("tool", "one"), Message("tool", "two")]
    run(both, model)
    assert model.generations[0].prompt == Chat((*both[:2], Message("user", "one\ntwo")))


def test_arguments_that_run_out_of_tokens_are_no_call() -> None:
    for written in ('{"city":"New', '{"city":"New"}'):
        with pytest.raises(OutputInvalid) as caught:
            run(ASKED, likes("weather", written, "length"), tools=[weather])
        assert caught.value.raw == written


@pytest.mark.parametrize("written", ['{"city":5}', '{"town":"Rome"}', "[]", "{"])
def test_arguments_are_validated(written: str) -> None:
    with pytest.raises(OutputInvalid):
        run(ASKED, likes("weather", written), tools=[weather])


def test_a_cancelled_call_is_no_call() -> None:
    answer = run(ASKED, likes("weather", '{"ci', "cancelled"), tools=[weather])
    assert (answer.tool_calls, answer.finish_reason, answer.text) == ((), "cancelled", '{"ci')

    def city_weather(city: str) -> None:
        """Tell the weather of a city."""

    def weather_city(city: str) -> None:
        """Tell the weather of a city."""

    flow = generate(ASKED, context_tokens=64, tools=[city_weather, weather_city])
    assert isinstance(next(flow).requests[0], Score)
    with pytest.raises(StopIteration) as stopped:
        flow.throw(Cancelled())
    assert stopped.value.value.finish_reason == "cancelled"


def test_tools_beside_a_type() -> None:
    called = run(ASKED, likes("weather", WRITTEN), tools=[weather], output_type=int)
    assert called.output is None
    assert called.tool_calls
    answered = run("How many?", FakeModel(lambda prompt: "5"), tools=[weather], output_type=int)
    assert answered.output == 5


def test_tools_that_are_schemas() -> None:
    parameters: Any = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool = Tool("get.weather", "Weather of a city.", parameters)
    (call,) = run(ASKED, likes("get weather", '{"city":"New York"}'), tools=[tool]).tool_calls
    assert call == ToolCall("get.weather", {"city": "New York"})
    with pytest.raises(ConfigurationError, match="no function"):
        call.run()


def test_methods_docstrings_and_annotations() -> None:
    counter = Counter()
    (offer, timed, told) = offers_of([counter.count, timer, weather])
    assert offer.parameters["step"]["description"] == "By how much."
    assert offer.call('{"step":2}').run() == 2
    assert counter.calls == 2
    assert (timed.description, timed.parameters["minutes"]["description"]) == ("Set a kitchen timer.", "how long")
    assert told.description == "Tell the weather of a city. It knows the next ten days."
    assert told.parameters["city"]["description"] == "The name of the city."
    assert told.schema["required"] == ["city"]


def test_models_as_arguments() -> None:
    def book(room: Room, kind: Literal["day", "night"] = "day") -> None:
        """Book a room."""

    (offer,) = offers_of([book])
    assert offer.call('{"room":{"beds":2},"kind":"night"}').arguments == {"room": Room(beds=2), "kind": "night"}


def bare(city) -> None:  # type: ignore[no-untyped-def]
    pass


def many(*cities: str) -> None:
    pass


def words(**cities: str) -> None:
    pass


def placed(city: str, /) -> None:
    pass


def unknown(city: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821
    pass


def locked(lock: threading.Thread) -> None:
    pass


@pytest.mark.parametrize(
    ("tool", "named"),
    [
        (bare, "'city' of the tool 'bare' has no type hint"),
        (many, "'cities' of the tool 'many'"),
        (words, "'cities' of the tool 'words'"),
        (placed, "'city' of the tool 'placed'"),
        (unknown, "'Nowhere'"),
        (lambda city: None, "lambda"),
        (print, "builtin"),
        (Room, "a function"),
        ("weather", "a function"),
        (Tool("", "d", {}), "name"),
        (Tool("n", "d", {"type": "array"}), "'n'"),
        (Tool("n", 5, {}), "'n'"),  # type: ignore[arg-type]
        (Tool("n\ud800", "d", {}), "name"),
        (Tool("n", "d", {"properties": {"a": {"enum": {1}}}}), "schema"),  # type: ignore[dict-item]
    ],
)
def test_what_is_no_tool(tool: Any, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        run(ASKED, FakeModel(), tools=[tool])


def test_types_that_no_argument_can_have() -> None:
    with pytest.raises(SchemaUnsupported) as caught:
        run(ASKED, FakeModel(), tools=[locked])
    assert caught.value.path == "$.lock"


@pytest.mark.parametrize("tools", [[weather, weather], weather, "weather", {"weather": weather}])
def test_what_is_no_list_of_tools(tools: Any) -> None:
    with pytest.raises(ConfigurationError):
        run(ASKED, FakeModel(), tools=tools)


@pytest.mark.parametrize(
    "turns",
    [
        [Message("tool", "a")],
        [Message("user", "a"), Message("tool", "b")],
        [Message("system", "a"), Message("tool", "b")],
    ],
)
def test_a_result_follows_a_call(turns: list[Message]) -> None:
    with pytest.raises(ConfigurationError, match="tool"):
        run(turns, FakeModel())


def test_a_long_request_is_weighed_by_its_ends() -> None:
    model = likes("weather", WRITTEN)
    pasted = f"Summarise this. {'word ' * 2000} The weather of the city was bad. {'word ' * 2000} Thank you."
    assert run(pasted, model, tools=[weather]).text == "words"
    assert len(prompt_text(model.generations[-1].prompt)) > 20_000  # and answered in full
    assert run(f"{pasted} What is the weather of the city of Rome?", model, tools=[weather]).tool_calls
