"""Starts, ends and everything that goes wrong between: threads, forks, signals, crashes, garbage, event loops.

All through the real worker; the echo model makes it quick. `Pipeline._users` is looked at where "nothing leaks" has no
face of its own: a call that is never taken off it would keep the model loaded for ever.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
import trio

from ondevice_sdk import AsyncClient, Client, errors
from ondevice_sdk.device import detect
from ondevice_sdk.store import Store
from ondevice_sdk.types import Progress
from tests.processes import gone, workers

MakeModel = Callable[..., Path]


@pytest.fixture
def make_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeModel:
    """Writes echo models; clients of the test find an empty store."""
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "home"))

    def make(**settings: float) -> Path:
        path = tmp_path / f"{len(list(tmp_path.glob('*.echo')))}.echo"
        path.write_text(json.dumps({"ondevice-echo": 1, "context_tokens": 2048, **settings}))
        return path

    return make


@pytest.fixture
def echo(make_model: MakeModel) -> Iterator[Client]:
    with Client(make_model()) as client:
        yield client


@pytest.fixture
def slow(make_model: MakeModel) -> Iterator[Client]:
    """20 ms for every token."""
    with Client(make_model(delay_s=0.02)) as client:
        client.prewarm()
        yield client


def idle(client: Client) -> bool:
    return not client._pipeline._users


def in_threads(*tasks: Callable[[], object]) -> None:
    threads = [threading.Thread(target=task) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


def run_app(code: str, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """An app of its own; a warning of the SDK is an error there."""
    line = [sys.executable, "-W", "error", "-X", "dev", "-c", code, *arguments]
    done = subprocess.run(line, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done


# --- threads ----------------------------------------------------------------------------------------------------------


def test_threads_that_start_at_once_make_one_worker(make_model: MakeModel) -> None:
    with Client(make_model()) as client:
        pids: set[int] = set()

        def ask(number: int) -> None:
            assert client.generate(f"thread {number}", temperature=0).text == f"thread {number}"
            pids.update(worker.pid for worker in workers())

        in_threads(*[partial(ask, number) for number in range(16)])
        assert len(pids) == 1


def test_close_ends_calls_and_streams_in_other_threads(slow: Client) -> None:
    ends: list[object] = []
    reading = threading.Barrier(7)

    def generate() -> None:
        reading.wait()
        try:
            slow.generate("x" * 1500, temperature=0, max_tokens=400)
        except errors.OnDeviceError as error:
            ends.append(type(error))

    def stream() -> None:
        try:
            with slow.stream("x" * 100, temperature=0, deterministic=True) as events:
                next(iter(events))
                reading.wait()
                events.result()
        except errors.OnDeviceError as error:
            ends.append(type(error))

    def close() -> None:
        reading.wait()
        slow.close()

    in_threads(*3 * [generate], *3 * [stream], close)
    # a call that had not been submitted when the client was closed found it closed
    assert set(ends) <= {errors.Cancelled, errors.ClientClosed}
    assert len(ends) == 6
    assert errors.Cancelled in ends
    assert not workers()


def test_close_ends_a_load(make_model: MakeModel) -> None:
    loading = threading.Event()
    ends: list[object] = []

    def hold(progress: Progress) -> None:
        loading.set()
        while not client._pipeline._closed:
            time.sleep(0.001)

    client = Client(make_model(), on_load=hold)

    def generate() -> None:
        try:
            client.generate("a")
        except errors.OnDeviceError as error:
            ends.append(type(error))

    def close() -> None:
        loading.wait(20)
        client.close()

    in_threads(generate, close)
    assert ends == [errors.Cancelled]
    assert not workers()


def test_one_stream_has_one_reader(slow: Client) -> None:
    ends: list[object] = []
    stream = slow.stream("x" * 100, temperature=0, max_tokens=30)

    def read() -> None:
        try:
            ends.append(len(stream.result().text))
        except errors.ConfigurationError as error:
            ends.append(type(error))

    in_threads(read, read, read)
    # those that came while one was reading are refused; one that came after the end gets the result too
    assert 30 in ends
    assert set(ends) <= {30, errors.ConfigurationError}


def test_unloading_while_threads_go_on_asking(make_model: MakeModel) -> None:
    with Client(make_model(), keep_alive=0) as client:
        most = 0

        def ask() -> None:
            nonlocal most
            for number in range(4):
                assert client.generate(f"{number}", temperature=0).text == f"{number}"
                most = max(most, len(workers()))

        in_threads(ask, ask, ask)
        assert most <= 1
        assert gone(workers())


def test_facts_count_as_calls_for_keep_alive(make_model: MakeModel) -> None:
    with Client(make_model(), keep_alive=0) as client:
        assert client.context_length == 2048
        assert gone(workers())


def test_an_open_stream_keeps_the_model_loaded(make_model: MakeModel) -> None:
    with Client(make_model(delay_s=0.005), keep_alive=0) as client:
        with client.stream("x" * 100, temperature=0) as stream:
            deltas = iter(stream)
            first = next(deltas)
            (worker,) = workers()
            assert client.generate("another call ends", temperature=0).text == "another call ends"
            assert workers() == [worker]
            assert first + "".join(deltas) == "x" * 100
        assert gone([worker])
        with client.stream("again", temperature=0) as stream:
            assert "".join(stream) == "again"


def test_unloading_and_coming_back_leaves_nothing_in_the_app(make_model: MakeModel) -> None:
    app = psutil.Process()

    def cycle() -> tuple[int, int]:
        assert client.generate("a", temperature=0).text == "a"
        processes = workers()
        client._pipeline.unload_idle()
        assert gone(processes)
        return app.num_fds(), threading.active_count()

    with Client(make_model(), keep_alive=1000) as client:
        first = cycle()
        assert [cycle() for _ in range(2)] == [first] * 2


# --- streams ----------------------------------------------------------------------------------------------------------


def test_abandoned_streams_free_their_sequences(echo: Client) -> None:
    for number in range(50):
        deltas = iter(echo.stream("x" * 1900 + str(number), temperature=0, max_tokens=100))
        if number % 3:
            next(deltas)
        if number % 2:
            deltas.close()  # type: ignore[attr-defined]
        del deltas
    assert idle(echo)
    # needs all cells of the context: would wait for ever behind a sequence that was not freed
    assert len(echo.generate("y" * 1900, temperature=0, max_tokens=100, timeout=30).text) == 100


def test_leaving_the_block_keeps_the_partial_text(slow: Client) -> None:
    with slow.stream("x" * 500, temperature=0) as stream:
        next(iter(stream))
    partial = stream.result()
    assert partial.finish_reason == "cancelled"
    assert 0 < len(partial.text) < 500
    assert partial.usage.completion_tokens > 0


def test_an_exception_in_the_block_cancels(slow: Client) -> None:
    with pytest.raises(KeyError, match="mine"), slow.stream("x" * 1000, temperature=0) as stream:
        raise KeyError("mine")
    assert idle(slow)
    with pytest.raises(errors.Cancelled):
        stream.result()
    assert slow.generate("a", temperature=0).text == "a"


def test_streams_after_the_client_was_closed(slow: Client) -> None:
    finished = slow.stream("abc", temperature=0)
    assert "".join(finished) == "abc"
    running = slow.stream("x" * 500, temperature=0)
    deltas = iter(running)
    next(deltas)
    slow.close()
    with pytest.raises(errors.Cancelled):
        list(deltas)
    with pytest.raises(errors.Cancelled):
        running.result()
    running.cancel()
    running.close()
    assert finished.result().text == "abc"
    assert finished.result().receipt is not None


def test_what_was_written_is_given_before_the_error(make_model: MakeModel) -> None:
    with Client(make_model(crash_at_token=40)) as client:
        text = ""
        with pytest.raises(errors.WorkerCrashed):  # noqa: PT012 - the text before it is the point
            for delta in client.stream("x" * 30, temperature=0):
                text += delta
        assert text


def test_everything_refuses_after_close(echo: Client) -> None:
    echo.close()
    uses: list[Callable[[], object]] = [
        lambda: echo.generate("a"),
        lambda: echo.stream("a"),
        lambda: echo.summarise("a"),
        lambda: echo.analyse("a", bool),
        lambda: list(echo.generate_many(["a"])),
        lambda: list(echo.generate_many(iter(lambda: "endless", None), on_error="return")),
        lambda: echo.chat().send("a"),
        lambda: echo.count_tokens("a"),
        lambda: echo.context_length,
        lambda: echo.model,
        lambda: echo.prewarm(),
        lambda: echo.availability("generate"),
        lambda: echo.explain(),
        lambda: echo.privacy_report(),
    ]
    for use in uses:
        with pytest.raises(errors.ClientClosed):
            use()


# --- callbacks and many -----------------------------------------------------------------------------------------------


def test_errors_of_progress_callbacks_reach_the_caller(slow: Client) -> None:
    def fault(progress: Progress) -> None:
        raise KeyError("callback")

    prompt: Any = "x" * 300
    options: Any = {"temperature": 0, "max_tokens": 2, "on_progress": fault}
    for use in (
        lambda: slow.generate(prompt, **options),
        lambda: slow.stream(prompt, **options).result(),
        lambda: list(slow.stream(prompt, **options)),
        lambda: list(slow.generate_many([prompt, "y"], **options)),
        lambda: slow.summarise("One thing is so. Another is not so. " * 5, on_progress=fault),
    ):
        with pytest.raises(KeyError, match="callback"):
            use()
        assert idle(slow)
    stream = slow.stream(prompt, **options)
    for _ in range(2):
        with pytest.raises(KeyError, match="callback"):
            stream.result()
    assert slow.generate("a", temperature=0).text == "a"


@pytest.mark.parametrize("isolation", ["process", "thread"])
def test_errors_of_load_callbacks_reach_the_caller(isolation: Any, make_model: MakeModel) -> None:
    def fault(progress: Progress) -> None:
        raise KeyError("callback")

    privacy: Any = "guarded" if isolation == "thread" else "strict"
    with Client(make_model(), isolation=isolation, privacy=privacy, on_load=fault) as client:
        for _ in range(2):
            with pytest.raises(KeyError, match="callback"):
                client.generate("a")
        assert not workers()


def test_a_source_that_fails_does_not_take_results_along(echo: Client) -> None:
    def items() -> Iterator[str]:
        yield from ("a", "b", "c")
        raise KeyError("source")

    texts: list[str] = []
    with pytest.raises(KeyError, match="source"):
        texts.extend(answer.text for answer in echo.generate_many(items(), temperature=0))
    assert texts == ["a", "b", "c"]
    assert idle(echo)


def test_a_source_may_depend_on_results(echo: Client) -> None:
    texts: list[str] = []

    def items() -> Iterator[str]:
        yield "a"
        while len(texts) < 4:
            yield texts[-1] + "a"

    texts.extend(answer.text for answer in echo.generate_many(items(), temperature=0, window=1))
    assert texts == ["a", "aa", "aaa", "aaaa"]


def test_each_of_many_has_its_deadline(slow: Client) -> None:
    results: list[object] = [
        *slow.generate_many(["x" * 1000] * 3, temperature=0, timeout=0.2, on_error="return"),
    ]
    assert {type(result) for result in results} == {errors.DeadlineExceeded}
    assert idle(slow)


@pytest.mark.slow
def test_forgotten_many_are_cancelled(slow: Client) -> None:
    results = slow.generate_many(["x" * 50] * 30, temperature=0)
    next(results)
    del results
    gc.collect()
    assert idle(slow)
    assert slow.generate("a", temperature=0).text == "a"


@pytest.mark.model
@pytest.mark.slow
def test_many_equal_one_by_one(installed_store: Store) -> None:
    prompts = [f"Tell me about the number {number}." for number in range(6)]
    options: Any = {"max_tokens": 24, "seed": 3, "deterministic": True}
    with Client("smollm2-135m-instruct", backends=("llama_cpp",), store=installed_store) as client:
        alone = [client.generate(prompt, **options).text for prompt in prompts]
        assert [answer.text for answer in client.generate_many(prompts, **options)] == alone


# --- copies, garbage, the end of the app ------------------------------------------------------------------------------


def test_clients_and_streams_are_not_copied_and_chats_are_apart(echo: Client) -> None:
    stream = echo.stream("abc", temperature=0)
    for value in (echo, stream, AsyncClient()):
        for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="pickled"):
                duplicate(value)
    assert "".join(stream) == "abc"
    chat = echo.chat()
    chat.send("a", temperature=0)
    other = copy.copy(chat)
    other.send("b", temperature=0)
    assert (len(chat.messages), len(other.messages)) == (2, 4)


def test_a_forgotten_client_leaves_no_worker(make_model: MakeModel) -> None:
    client = Client(make_model(), keep_alive=1000)
    client.generate("a", temperature=0)
    processes = workers()
    assert processes
    del client
    gc.collect()
    assert gone(processes)
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


@pytest.mark.slow
@pytest.mark.parametrize("end", ["", "stream.close()", "raise SystemExit(0)"])
def test_an_app_that_ends_without_closing_is_quiet(end: str, make_model: MakeModel) -> None:
    code = f"""
import sys
from ondevice_sdk import Client
client = Client(sys.argv[1], keep_alive=1000)
stream = client.stream("x" * 500, temperature=0)
next(iter(stream))
print(client._pipeline._executor.pid)
{end}
"""
    done = run_app(code, str(make_model(delay_s=0.02)))
    assert not psutil.pid_exists(int(done.stdout))


def test_ctrl_c_in_the_middle_of_a_call(make_model: MakeModel) -> None:
    code = """
import os, signal, sys
from ondevice_sdk import Client
client = Client(sys.argv[1])
client.prewarm()
stream = lambda prompt, **options: client.stream(prompt, **options).result()
many = lambda prompt, **options: list(client.generate_many([prompt], **options))
for way in (client.generate, stream, many):
    try:
        way("x" * 1000, temperature=0, on_progress=lambda progress: os.kill(os.getpid(), signal.SIGINT))
    except KeyboardInterrupt:
        assert not client._pipeline._users
        print(client.generate("after", temperature=0).text)
print(client._pipeline._executor.pid)
"""
    *texts, pid = run_app(code, str(make_model(delay_s=0.005))).stdout.split()
    assert texts == ["after"] * 3
    assert not psutil.pid_exists(int(pid))


@pytest.mark.slow
def test_ctrl_c_while_loading(make_model: MakeModel) -> None:
    code = """
import os, signal, sys, psutil
from ondevice_sdk import Client
again = []
def interrupt(progress):
    if not again:
        again.append(1)
        os.kill(os.getpid(), signal.SIGINT)
with Client(sys.argv[1], on_load=interrupt) as client:
    try:
        client.generate("a")
    except KeyboardInterrupt:
        assert not psutil.Process().children()
        print(client.generate("after", temperature=0).text)
"""
    assert run_app(code, str(make_model())).stdout == "after\n"


@pytest.mark.slow
def test_a_fork_with_a_live_stream(make_model: MakeModel) -> None:
    code = """
import os, sys
from ondevice_sdk import Client, errors
with Client(sys.argv[1], keep_alive=1000) as client:
    stream = client.stream("x" * 100, temperature=0)
    deltas = iter(stream)
    text = next(deltas)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            list(deltas)
        except errors.WorkerCrashed:
            status = 0 if client.generate("child", temperature=0).text == "child" and not client._pipeline._users else 2
        client.close()
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert text + "".join(deltas) == "x" * 100
"""
    run_app(code, str(make_model(delay_s=0.01)))


# --- the end of the worker --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_crash_after_crash_leaves_nothing(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    process = psutil.Process()

    def state() -> tuple[int, int, int, int]:
        return (
            process.num_fds(),
            threading.active_count(),
            len(process.children()),
            len(list(tmp_path.glob("ondevice-*"))),
        )

    with Client(make_model(crash_at_token=150)) as client:
        client.generate("a", temperature=0)
        before = state()
        for _ in range(5):
            with pytest.raises(errors.WorkerCrashed) as caught:
                client.generate("x" * 200)
            assert caught.value.signal == "SIGABRT"
            assert client.generate("ok", temperature=0).text == "ok"
        assert state() == before
    assert not list(tmp_path.glob("ondevice-*"))


def test_a_worker_that_is_stopped_or_is_none(make_model: MakeModel) -> None:
    with (
        Client(make_model(), worker_command=["/bin/false"]) as client,
        pytest.raises(errors.WorkerCrashed, match="exited with code 1") as caught,
    ):
        client.generate("a")
    assert caught.value.exit_code == 1
    assert not workers()


@pytest.mark.slow
def test_the_out_of_memory_killer_is_named(make_model: MakeModel, tmp_path: Path) -> None:
    top = Path("/sys/fs/cgroup/memory")
    group = (top if top.is_dir() else Path("/sys/fs/cgroup")) / f"ondevice-test-{os.getpid()}"
    limit = group / ("memory.limit_in_bytes" if top.is_dir() else "memory.max")
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error.strerror}")
    try:
        try:
            limit.write_text("150000000")
        except OSError as error:
            pytest.skip(f"the control group's memory cannot be limited here: {error.strerror}")
        code = """
import os, sys
from dataclasses import replace
from functools import partial
open(sys.argv[1], "w").write(str(os.getpid()))
from ondevice_sdk import Client, errors
from ondevice_sdk.device import detect
plenty = replace(detect(), memory_bytes=8 << 30, memory_available_bytes=8 << 30)
with Client(sys.argv[2], device=plenty) as client:
    try:
        client.generate("a")
    except errors.WorkerCrashed as error:
        print(error.message)
    open(sys.argv[2], "w").write('{"ondevice-echo": 1, "context_tokens": 2048}')
    print(client.generate("again", temperature=0).text)
"""
        line = [sys.executable, "-c", code, str(group / "cgroup.procs"), str(make_model(allocate_bytes=400_000_000))]
        done = subprocess.run(line, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        crash, text = done.stdout.splitlines()
        assert "SIGKILL: out of memory" in crash
        assert text == "again"
    finally:
        group.rmdir()


def test_what_does_not_fit_is_refused_with_numbers(make_model: MakeModel) -> None:
    small = replace(detect(), memory_bytes=1 << 20, memory_available_bytes=1 << 20)
    with Client(make_model(), device=small) as client, pytest.raises(errors.NoModelFits, match=r"\d GB"):
        client.generate("a")
    assert not workers()


# --- event loops ------------------------------------------------------------------------------------------------------

PATIENCE = 60.0  # only ever waited out by a test that fails
LOOPS: list[Any] = [
    pytest.param(asyncio.run, id="asyncio"),
    pytest.param(lambda main: trio.run(lambda: main), id="trio"),
]


async def read_stream(client: AsyncClient) -> None:
    async with client.stream("x" * 400, temperature=0, max_tokens=300) as stream:
        async for _ in stream:
            pass


async def read_many(client: AsyncClient) -> None:
    async for _ in client.generate_many(["x" * 100] * 20, temperature=0):
        pass


ENDLESS: list[Callable[[AsyncClient], Awaitable[object]]] = [
    lambda client: client.generate("x" * 400, temperature=0, max_tokens=300),
    lambda client: client.summarise("Hello there. " * 500),
    read_stream,
    read_many,
]
DELAYS = (0, 0.0005, 0.001, 0.002, 0.005, 0.02, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("run", LOOPS)
def test_cancellation_at_any_point_leaves_nothing(run: Any, make_model: MakeModel) -> None:
    async def main() -> None:
        async with AsyncClient(make_model(delay_s=0.02)) as client:
            await client.prewarm()
            for delay in DELAYS:
                for use in ENDLESS:
                    with anyio.move_on_after(delay) as scope:
                        await use(client)
                    assert scope.cancelled_caught
                    assert idle(client._client)
            assert (await client.generate("a", temperature=0)).text == "a"

    run(main())


def test_native_cancellation_of_asyncio_leaves_nothing(make_model: MakeModel) -> None:
    """A task that is cancelled natively does not wait for its threads: what these start later has to end as well."""

    async def main() -> None:
        async with AsyncClient(make_model(delay_s=0.02)) as client:
            await client.prewarm()
            for delay in DELAYS:
                for use in ENDLESS:
                    task = asyncio.ensure_future(use(client))
                    await asyncio.sleep(delay)
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
            deadline = time.monotonic() + 30
            while not idle(client._client) and time.monotonic() < deadline:
                gc.collect()
                await asyncio.sleep(0.01)
            assert idle(client._client)
            assert (await client.generate("a", temperature=0)).text == "a"

    asyncio.run(main())


@pytest.mark.slow
@pytest.mark.parametrize("run", LOOPS)
def test_iterators_left_early_need_no_aclose(run: Any, make_model: MakeModel) -> None:
    async def main() -> None:
        async with AsyncClient(make_model(delay_s=0.01)) as client:
            async with client.stream("x" * 300, temperature=0) as stream:
                async for _ in stream:
                    break
            assert (await stream.result()).finish_reason == "cancelled"
            async for _ in client.generate_many(["a" * 20] * 30, temperature=0):
                break
            gc.collect()
            with anyio.fail_after(PATIENCE):  # the event loop closes what was left in a step of its own
                while not idle(client._client):
                    await anyio.sleep(0.01)
            results: Any = client.generate_many(["a" * 20] * 30, temperature=0)
            await anext(results)
            await results.aclose()
            assert idle(client._client)
            with pytest.raises(StopAsyncIteration):
                await anext(results)
            assert (await client.generate("a", temperature=0)).text == "a"

    run(main())


@pytest.mark.parametrize("shared", [True, False])
def test_event_loops_in_several_threads(shared: bool, make_model: MakeModel) -> None:
    model = make_model()
    one = AsyncClient(model)
    good: list[bool] = []

    async def use(client: AsyncClient) -> None:
        answers = [(await client.generate(f"{number}", temperature=0)).text for number in range(3)]
        good.append(answers == ["0", "1", "2"])
        async with client.stream("abc", temperature=0) as stream:
            good.append("".join([delta async for delta in stream]) == "abc")

    async def main() -> None:
        if shared:
            await use(one)
        else:
            async with AsyncClient(model) as own:
                await use(own)

    in_threads(lambda: asyncio.run(main()), lambda: trio.run(main), lambda: asyncio.run(main()))
    asyncio.run(one.close())
    assert good == [True] * 6
    assert not workers()


@pytest.mark.parametrize("run", LOOPS)
def test_an_event_loop_that_ends_without_close(run: Any, make_model: MakeModel) -> None:
    async def main() -> None:
        client = AsyncClient(make_model(delay_s=0.01))
        await client.generate("a", temperature=0)
        task_results: Any = client.generate_many(["x" * 100] * 3, temperature=0)
        with anyio.move_on_after(0.05):
            await anext(task_results)

    run(main())
    gc.collect()
    assert gone(workers())


def test_a_signal_to_the_group_is_the_apps_business(make_model: MakeModel) -> None:
    """Ctrl-C in a terminal goes to the whole foreground group; the worker is not in it."""
    with Client(make_model()) as client:
        client.prewarm()
        (worker,) = workers()
        assert os.getpgid(worker.pid) != os.getpgrp()
        worker.send_signal(signal.SIGKILL)
        assert gone([worker])
        with suppress(errors.WorkerCrashed):  # it may still meet the dead worker
            client.generate("a")
        assert client.generate("a", temperature=0).text == "a"
