"""The async client on asyncio and trio: the same results, cancellation, no thread held by a stream."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from ondevice_sdk import AsyncClient, Sentiment, errors
from ondevice_sdk.store import Store
from ondevice_sdk.types import Completed, Progress, PromptProgress

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def echo(echo_path: Path, store: Store) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(echo_path, store=store) as client:
        yield client


async def test_generate_and_stream(echo: AsyncClient) -> None:
    assert (await echo.generate("hello", temperature=0)).text == "hello"
    async with echo.stream("one two", temperature=0) as stream:
        assert "".join([delta async for delta in stream]) == "one two"
        assert (await stream.result()).text == "one two"
    async with echo.stream("one two", temperature=0) as stream:
        events = [event async for event in stream.events()]
    assert isinstance(events[-1], Completed)
    progress = [event for event in events if isinstance(event, PromptProgress)]
    assert progress[-1].done == progress[-1].total > 0


async def test_progress_of_load_and_prompt(echo_path: Path, store: Store) -> None:
    told: list[Progress] = []
    async with AsyncClient(echo_path, store=store, on_load=told.append) as client:
        await client.generate("x" * 500, temperature=0, max_tokens=2, on_progress=told.append)
    stages = [progress.stage for progress in told]
    assert stages == sorted(stages, key=["loading", "prompt", "writing"].index)
    last = {progress.stage: progress for progress in told}
    assert (last["loading"].done, last["loading"].total) == (100, 100)
    assert last["prompt"].done == last["prompt"].total >= 500  # type: ignore[operator]
    assert last["prompt"].unit == "tokens"


async def test_many_tasks_at_once(echo: AsyncClient) -> None:
    answers: dict[int, str] = {}

    async def ask(number: int) -> None:
        answers[number] = (await echo.generate(f"task {number}", temperature=0)).text

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(ask, number)
    assert answers == {number: f"task {number}" for number in range(10)}


async def test_many_in_order(echo: AsyncClient) -> None:
    prompts = [f"prompt {number}" for number in range(12)]
    assert [answer.text async for answer in echo.generate_many(prompts, temperature=0)] == prompts


async def test_streams_hold_no_thread(tmp_path: Path, store: Store) -> None:
    slow = tmp_path / "slow.echo"
    slow.write_text('{"ondevice-echo": 1, "context_tokens": 2048, "delay_s": 0.01}')
    async with AsyncClient(slow, store=store) as client:
        await client.generate("warm", temperature=0)
        before = threading.active_count()
        counts: list[int] = []

        async def read(number: int) -> None:
            async with client.stream(f"stream {number}", temperature=0) as stream:
                counts.extend([threading.active_count() async for _ in stream])

        async with anyio.create_task_group() as group:
            for number in range(6):
                group.start_soon(read, number)
        # starting a stream borrows a pool thread for a moment; reading it must not, or six would be busy
        assert max(counts) <= before + 6
        assert counts


async def test_cancelling_the_task_cancels_the_request(tmp_path: Path, store: Store) -> None:
    slow = tmp_path / "slow.echo"
    slow.write_text('{"ondevice-echo": 1, "context_tokens": 2048, "delay_s": 0.02}')
    async with AsyncClient(slow, store=store) as client:
        await client.generate("warm", temperature=0)
        with anyio.move_on_after(0.2) as scope:
            await client.generate("x" * 1500, temperature=0, max_tokens=2000)
        assert scope.cancelled_caught
        assert (await client.generate("ab", temperature=0)).text == "ab"


async def test_errors_and_facts(echo: AsyncClient) -> None:
    with pytest.raises(errors.ConfigurationError):
        await echo.generate("")
    with pytest.raises(errors.DeadlineExceeded):
        await echo.generate("x" * 1000, temperature=0, timeout=0)
    assert await echo.count_tokens("abc") == 3
    assert await echo.context_length() == 2048
    assert (await echo.model()).backend == "echo"
    assert (await echo.privacy_report()).enforced
    assert (await echo.availability("generate")).state == "available"
    assert (await echo.explain()).candidates
    await echo.prewarm("a prefix")


async def test_chat(echo: AsyncClient) -> None:
    chat = echo.chat()
    assert (await chat.send("first", temperature=0)).text == "first"
    async with chat.clone().stream("second", temperature=0) as stream:
        assert "".join([delta async for delta in stream]) == "second"
    assert len(chat.messages) == 2


async def test_use_after_close(echo: AsyncClient) -> None:
    await echo.close()
    with pytest.raises(errors.ClientClosed):
        await echo.generate("a")


@pytest.mark.slow
@pytest.mark.model
async def test_tasks_on_the_real_model(installed_store: Store) -> None:
    async with AsyncClient("smollm2-135m-instruct", backends=("llama_cpp",), store=installed_store) as ai:
        label = await ai.analyse("What a wonderful day, I am so happy.", Sentiment)
        assert label.output is Sentiment.POSITIVE
        summary = await ai.summarise("The bridge is closed. It will open in May. Buses run instead.", length="short")
        assert summary.points
