"""What both executors promise, with the engine in a real worker and on a thread."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ondevice_sdk import errors
from ondevice_sdk.backends.api import (
    Done,
    Embed,
    Failed,
    Generated,
    LoadOptions,
    PromptProgress,
    Raw,
    Score,
    Scored,
    Segment,
    TextDelta,
    Tokenize,
    Tokenized,
)
from ondevice_sdk.runtime import Executor, open_executor
from ondevice_sdk.types import Isolation, Progress

from .conftest import FAKE, Opener, answer, ask, drain, finish, local_model

RAW = Raw((Segment("x"),))
IMPORT_S = 0.05


@pytest.fixture(params=["process", "thread"])
def isolation(request: pytest.FixtureRequest) -> Isolation:
    value: Isolation = request.param
    return value


@pytest.fixture
def make(opener: Opener, isolation: Isolation) -> Callable[..., Executor]:
    privacy = "strict" if isolation == "process" else "guarded"
    return lambda name="fake", **options: opener(name, isolation=isolation, privacy=privacy, **options)


def test_round_trip(make: Opener) -> None:
    executor = make()
    assert executor.alive
    assert executor.loaded.context_tokens == 4096
    assert executor.loaded.max_sequences == 8
    assert executor.loaded.capabilities == {"generate", "batch"}
    events = drain(executor.submit(ask("wörter 日本 😀", stream=True)))
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "wörter 日本 😀"
    assert answer(executor, "a b c", max_tokens=2) == "a b"
    scored = finish(executor, Score(RAW, ("a", "b")))
    assert isinstance(scored, Done)
    assert isinstance(scored.result, Scored)
    assert scored.result.logprobs == (-1.0, -1.0)
    counted = finish(executor, Tokenize(("abc", ""), (RAW,)))
    assert isinstance(counted, Done)
    assert counted.result == Tokenized((3, 0, 1))


def test_many_threads(make: Opener) -> None:
    executor = make()
    texts = [" ".join(f"t{n}w{w}" for w in range(20)) for n in range(200)]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda text: answer(executor, text), texts)) == texts


@pytest.mark.slow
def test_a_slow_consumer_stalls_nobody(make: Opener) -> None:
    executor = make()
    text = " ".join("x" * 500 for _ in range(2000))  # far more than a pipe holds
    slow = executor.submit(ask(text, max_tokens=10_000, stream=True))
    fast = [answer(executor, f"fast {n}") for n in range(50)]
    assert fast == [f"fast {n}" for n in range(50)]
    finished = drain(executor.submit(ask(text, max_tokens=10_000)))  # as long as the other one, and behind it
    assert isinstance(finished[-1], Done)
    waiting = slow.take()
    kinds = Counter(type(event) for event in waiting)
    assert kinds == {PromptProgress: 1, TextDelta: 1, Done: 1}
    assert next(e.text for e in waiting if isinstance(e, TextDelta)) == text


def test_cancel_during_a_prompt(make: Opener) -> None:
    executor = make()
    ticket = executor.submit(ask("!prefill"))
    begun = threading.Event()
    ticket.set_wakeup(begun.set)
    assert begun.wait(60)
    ticket.cancel()
    ticket.cancel()
    last = drain(ticket)[-1]
    assert isinstance(last, Done)
    assert isinstance(last.result, Generated)
    assert last.result.finish_reason == "cancelled"
    ticket.cancel()
    assert answer(executor, "still here") == "still here"


def test_an_engine_that_raises_fails_the_request_only(make: Opener) -> None:
    executor = make()
    for text in ("!raise SECRET", "!add-raises"):
        last = finish(executor, ask(text))
        assert isinstance(last, Failed)
        assert last.error.code == "generation_failed"
        assert "SECRET" not in str(last)
        assert "quoting" not in str(last)
    assert answer(executor, "still here") == "still here"


def test_a_large_request_and_a_large_answer(make: Opener) -> None:
    executor = make()
    text = "word " * 1_500_000
    counted = finish(executor, Tokenize((text,)))
    assert isinstance(counted, Done)
    assert counted.result == Tokenized((len(text),))
    assert len(answer(executor, "!long 2000000", max_tokens=10_000)) == 2_000_000


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("corrupt", errors.ModelCorrupt),
        ("failing", errors.LoadFailed),
        ("raising", errors.LoadFailed),
        ("missing", errors.BackendUnavailable),
    ],
)
def test_load_errors_arrive_as_themselves(make: Opener, name: str, error: type[errors.OnDeviceError]) -> None:
    before = threading.active_count()
    with pytest.raises(error) as caught:
        make(name)
    if isinstance(caught.value, errors.ModelCorrupt):
        assert (caught.value.expected, caught.value.actual) == ("a", "b")
    assert threading.active_count() == before


@pytest.mark.parametrize(
    "entry", ["no_such_module:X", "ondevice_fake:Missing", "ondevice_fake:prompt_of", "nonsense", ""]
)
def test_a_backend_that_is_not_there(make: Opener, entry: str) -> None:
    with pytest.raises(errors.BackendUnavailable):
        make(backend=entry)


def test_close_is_final_and_idempotent(make: Opener) -> None:
    executor = make()
    ticket = executor.submit(ask("!prefill"))
    executor.close()
    last = drain(ticket)[-1]
    assert isinstance(last, Failed)
    assert last.error.code == "cancelled"
    assert not executor.alive
    executor.close()
    with pytest.raises(errors.ClientClosed):
        executor.submit(ask("x"))
    ticket.cancel()
    executor.report()


def test_close_from_many_threads(make: Opener) -> None:
    executor = make()
    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(executor.close) for _ in range(8)]:
            future.result(60)
    assert not executor.alive


def test_progress(isolation: Isolation, modules: None) -> None:
    seen: list[Progress] = []
    executor = open_executor(
        FAKE, local_model(), LoadOptions(), isolation=isolation, privacy="guarded", on_progress=seen.append
    )
    executor.close()
    assert [(p.stage, p.done, p.total, p.unit) for p in seen] == [
        ("loading", 50, 100, "percent"),
        ("loading", 100, 100, "percent"),
    ]


def test_the_parts_of_a_start_are_told(make: Opener, isolation: Isolation) -> None:
    began = time.monotonic()
    start = make(backend="ondevice_fake:SlowToImport").loaded.start
    took = time.monotonic() - began
    assert min(start.spawn_s, start.seal_s, start.import_s, start.load_s) >= 0
    assert (start.spawn_s > 0) == (start.seal_s > 0) == (isolation == "process")
    assert start.import_s >= IMPORT_S  # which the backend sleeps
    assert start.total_s <= took  # they follow each other: none is counted twice


def test_strict_needs_a_process(opener: Opener) -> None:
    with pytest.raises(errors.ConfigurationError):
        opener(isolation="thread", privacy="strict")
    with pytest.raises(errors.ConfigurationError):
        opener(isolation="elsewhere")


def test_a_result_that_is_no_number_fails_in_a_worker_without_ending_it(opener: Opener) -> None:
    executor = opener()
    last = finish(executor, Embed(("nan",)))
    assert isinstance(last, Failed)
    assert last.error.code == "generation_failed"
    assert answer(executor, "still here") == "still here"


def test_an_answer_beyond_its_bound_ends_the_worker(opener: Opener) -> None:
    executor = opener()
    last = finish(executor, ask("!long 100000", max_tokens=10))
    assert isinstance(last, Failed)
    assert last.error.code == "worker_crashed"
    assert "protocol" in last.error.message


def test_native_noise_does_not_reach_the_protocol(opener: Opener) -> None:
    assert answer(opener(), "!noise") == "quiet"


def test_the_private_directory_is_private_and_goes(opener: Opener) -> None:
    executor = opener()
    home = Path(answer(executor, "!home"))
    assert home.stat().st_mode & 0o777 == 0o700
    executor.close()
    assert not home.exists()
