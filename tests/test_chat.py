"""Conversations: what is remembered, what is not, and that no turn is lost or half of one kept."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from ondevice_sdk import AsyncClient, Client, Completed, Generation, Message, TextDelta, Tool, ToolCall, errors
from ondevice_sdk.store import Store

pytestmark = pytest.mark.filterwarnings("error")


def weather(city: str) -> str:
    """Tell the weather of a city.

    Args:
        city: The name of the city.
    """
    return f"mild in {city}"


ASKED = "What is the weather of the city of Rome?"


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("chat")
    path = folder / "model.echo"
    path.write_text(json.dumps({"ondevice-echo": 1, "context_tokens": 2048}))
    with Client(path, privacy="off", isolation="thread", store=Store.open(folder / "store")) as client:
        yield client


def contents(chat: Any) -> list[str]:
    return [message.content for message in chat.messages]


def test_a_failed_turn_leaves_the_conversation_as_it_was(echo: Client) -> None:
    chat = echo.chat("Be brief.")
    chat.send("first", temperature=0)
    before = chat.messages
    with pytest.raises(errors.InputTooLong) as caught:
        chat.send("x" * 5000)
    assert caught.value.tokens > caught.value.limit > 0
    for text in ("", "  ", "a\ud800", Message("assistant", "x"), Message("system", "x"), Message("user", "")):
        with pytest.raises(errors.ConfigurationError):
            chat.send(text)
    with pytest.raises(errors.DeadlineExceeded):
        chat.send("late", timeout=0)
    with pytest.raises(RuntimeError), chat.stream("left", temperature=0):
        raise RuntimeError
    assert chat.messages == before
    assert chat.send("second", temperature=0).text == "second"
    assert contents(chat) == ["first", "first", "second", "second"]


def test_a_stream_that_is_left_early_keeps_what_was_written(echo: Client) -> None:
    chat = echo.chat()
    with chat.stream("abcdefghij" * 20, temperature=0) as stream:
        next(iter(stream))
    assert [message.role for message in chat.messages] == ["user", "assistant"]
    said = chat.messages[-1].content
    assert said == stream.result().text
    assert ("abcdefghij" * 20).startswith(said)
    chat.undo()
    with chat.stream("never read", temperature=0) as stream:
        stream.cancel()
        written = stream.result().text
    assert contents(chat) == (["never read", written] if written else [])


def test_one_turn_at_a_time(echo: Client) -> None:
    chat = echo.chat()
    chat.send("first", temperature=0)
    with chat.stream("second", temperature=0) as stream:
        for use in (lambda: chat.send("third"), chat.undo, lambda: chat.stream("third").__enter__()):
            with pytest.raises(errors.ConfigurationError, match="under way"):
                use()
        assert contents(chat.clone()) == ["first", "first"]  # the turns that are complete
        assert copy.copy(chat).send("other", temperature=0).text == "other"
        assert "".join(stream) == "second"
    assert contents(chat) == ["first", "first", "second", "second"]


def test_a_conversation_goes_on_later(echo: Client) -> None:
    chat = echo.chat("Be brief.")
    chat.send("first", temperature=0)
    later = echo.chat("Be brief.", messages=chat.messages)
    later.send("second", temperature=0)
    assert contents(later) == ["first", "first", "second", "second"]
    assert len(chat.messages) == 2
    later.undo()
    later.undo()
    later.undo()
    assert later.messages == ()
    for wrong in (["text"], [Message("system", "s"), Message("user", "u")], [Message("tool", "t")]):
        with pytest.raises(errors.ConfigurationError):
            echo.chat(messages=wrong)  # type: ignore[arg-type]


def test_tools_in_a_conversation(echo: Client) -> None:
    chat = echo.chat()
    answer = chat.send(ASKED, tools=[weather], temperature=0)
    assert answer.finish_reason == "tool_call"
    (call,) = answer.tool_calls
    assert call.name == "weather"
    assert call.arguments["city"] in ASKED
    follows = chat.send(call.reply(call.run()), tools=[weather], temperature=0)
    assert follows.text == f"Result of weather: mild in {call.arguments['city']}"  # the echo of what it was told
    assert [message.role for message in chat.messages] == ["user", "assistant", "tool", "assistant"]
    chat.undo()
    assert [message.role for message in chat.messages] == ["user", "assistant"]


def test_streams_with_tools(echo: Client) -> None:
    chat = echo.chat()
    with chat.stream(ASKED, tools=[weather]) as stream:
        events = list(stream.events())
    assert not [event for event in events if isinstance(event, TextDelta)]
    call, completed = events[-2:]
    assert isinstance(call, ToolCall)
    assert isinstance(completed, Completed)
    assert completed.finish_reason == "tool_call"
    assert stream.result().tool_calls == (call,)
    with chat.stream("Hello there", tools=[weather], temperature=0) as stream:
        assert "".join(stream) == "Hello there"
    assert stream.result().tool_calls == ()
    with echo.stream(ASKED, tools=[weather]) as stream:
        stream.cancel()
        assert stream.result().finish_reason == "cancelled"
    assert echo.generate(ASKED, tools=[weather], max_tokens=200).receipt is not None


def test_arguments_that_need_more_tokens_are_an_error(echo: Client) -> None:
    with pytest.raises(errors.OutputInvalid):
        echo.generate(ASKED, tools=[weather], max_tokens=5)


def test_a_schema_that_nothing_satisfies_is_refused(echo: Client) -> None:
    broken: Any = {"type": "object", "properties": {"city": {"type": "no such type"}}, "required": ["city"]}
    with pytest.raises(errors.SchemaUnsupported):
        echo.generate(ASKED, tools=[Tool("weather", "Tell the weather of a city.", broken)])


@pytest.fixture
async def async_echo(echo_path: Path, store: Store) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(echo_path, privacy="off", isolation="thread", store=store) as client:
        yield client


@pytest.mark.anyio
async def test_async_conversations(async_echo: AsyncClient) -> None:
    chat = async_echo.chat("Be brief.")
    answer: Generation[str] = await chat.send(ASKED, tools=[weather], temperature=0)
    (call,) = answer.tool_calls
    async with chat.stream(call.reply(call.run()), tools=[weather], temperature=0) as stream:
        with pytest.raises(errors.ConfigurationError, match="under way"):
            await chat.send("meanwhile")
        said = "".join([delta async for delta in stream])
    assert said.startswith("Result of weather")
    assert len(chat.messages) == 4
    async with chat.clone().stream(ASKED, tools=[weather]) as stream:
        events = [event async for event in stream.events()]
    assert isinstance(events[-2], ToolCall)
    before = chat.messages
    with anyio.move_on_after(0):
        await chat.send("never sent")
    with pytest.raises(errors.InputTooLong):
        await chat.send("x" * 5000)
    assert chat.messages == before
    chat.undo()
    later = async_echo.chat(messages=chat.messages)
    assert (await later.send("Hello", temperature=0)).text == "Hello"
    assert len(copy.copy(later).messages) == 4


# --- on the real model ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ai(installed_store: Store) -> Iterator[Client]:
    with Client("smollm2-135m-instruct", backends=("llama_cpp",), context=1024, store=installed_store) as client:
        yield client


@pytest.mark.model
@pytest.mark.slow
def test_a_real_conversation(ai: Client) -> None:
    chat = ai.chat("You are a friendly librarian. " * 20)  # some tokens are always read again
    first = chat.send("My name is Ada. Which book should a sailor read?", max_tokens=24, temperature=0)
    assert first.text
    other = chat.clone()
    second = chat.send("And a baker?", max_tokens=16, temperature=0)
    assert second.usage.cached_tokens > first.usage.prompt_tokens // 2  # the turns before are not read again
    assert other.send("And a baker?", max_tokens=16, temperature=0).text == second.text
    chat.undo()
    assert len(chat.messages) == 2
    with chat.stream("Tell me a long story.", ignore_eos=True, max_tokens=200, temperature=0) as stream:
        read = [delta for delta, _ in zip(stream, range(3), strict=False)]
    assert chat.messages[-1].content.startswith("".join(read))
    assert stream.result().finish_reason == "cancelled"
    before = chat.messages
    with pytest.raises(errors.InputTooLong) as caught:
        chat.send("word " * 1100)
    assert caught.value.tokens > 1024 >= caught.value.limit
    assert chat.messages == before
    assert chat.send("And a gardener?", max_tokens=16).text


@pytest.mark.model
@pytest.mark.slow
def test_a_real_tool(ai: Client) -> None:
    def set_timer(minutes: int, name: str = "timer") -> str:
        """Set a kitchen timer.

        Args:
            minutes: After how many minutes it rings.
            name: A name for the timer.
        """
        return f"rings in {minutes} minutes"

    chat = ai.chat()
    (call,) = chat.send("Please set a kitchen timer for 12 minutes.", tools=[set_timer]).tool_calls
    assert call.arguments["minutes"] == 12
    assert chat.send(call.reply(call.run()), tools=[set_timer], max_tokens=24).text
    assert chat.send("Tell me a joke about cats.", tools=[set_timer], max_tokens=24).tool_calls == ()
    with pytest.raises(errors.OutputInvalid):
        chat.send("Please set a kitchen timer for 12 minutes.", tools=[set_timer], max_tokens=2)
    assert len(chat.messages) == 6
