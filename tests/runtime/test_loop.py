from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest

from ondevice_sdk.backends.api import (
    Done,
    Engine,
    Event,
    Failed,
    Generate,
    Generated,
    PromptProgress,
    Raw,
    Request,
    Segment,
    TextDelta,
    Usage,
)
from ondevice_sdk.runtime.loop import EngineBroken, EngineLoop, StepBudget

REQUEST = Generate(Raw((Segment("text"),)), 4)


class Scripted(Engine):
    """Does in each step what the next function says."""

    def __init__(self, *steps: Callable[[Scripted], Sequence[Event]]) -> None:
        self.capabilities = frozenset()
        self.context_tokens = 100
        self.steps = list(steps)
        self.active: list[str] = []
        self.aborted: list[str] = []
        self.budgets: list[int] = []
        self.closed = 0

    def add_request(self, request_id: str, request: Request) -> None:
        self.active.append(request_id)

    def abort_request(self, request_id: str) -> None:
        self.aborted.append(request_id)

    def step(self, token_budget: int) -> Sequence[Event]:
        self.budgets.append(token_budget)
        return self.steps.pop(0)(self)

    @property
    def busy(self) -> bool:
        return bool(self.active)

    def close(self) -> None:
        self.closed += 1


def done(request_id: str) -> Done:
    return Done(request_id, Generated("", "stop", Usage()))


def explode(_: Engine) -> Sequence[Event]:
    raise RuntimeError("quoting SECRET")


def run(engine: Scripted, *ids: str) -> list[Event]:
    """Serve these requests until all have ended."""
    events: list[Event] = []
    waiting = set(ids)

    def emit(batch: Sequence[Event]) -> None:
        events.extend(batch)
        waiting.difference_update(e.request_id for e in batch if isinstance(e, Done | Failed))
        if not waiting:
            loop.stop()

    loop = EngineLoop(engine, emit)
    for request_id in ids:
        loop.submit(request_id, REQUEST)
    loop.run()
    return events


def test_serves_and_closes() -> None:
    engine = Scripted(lambda _: [PromptProgress("a", 1, 2)], lambda _: [done("a")])
    assert run(engine, "a") == [PromptProgress("a", 1, 2), done("a")]
    assert engine.closed == 1


def test_an_exception_fails_all_in_flight_without_its_text_and_the_engine_goes_on() -> None:
    # What the engine still says of the failed requests is late and dropped; a third request is served.
    engine = Scripted(explode, lambda _: [done("a"), done("b"), done("c")])
    events: list[Event] = []

    def emit(batch: Sequence[Event]) -> None:
        events.extend(batch)
        if len(events) == 2:
            loop.submit("c", REQUEST)
        if len(events) == 3:
            loop.stop()

    loop = EngineLoop(engine, emit)
    loop.submit("a", REQUEST)
    loop.submit("b", REQUEST)
    loop.run()
    first, second, third = events
    assert isinstance(first, Failed)
    assert isinstance(second, Failed)
    assert {first.request_id, second.request_id} == {"a", "b"}
    assert first.error.code == "generation_failed"
    assert first.error.message == "the engine failed (RuntimeError)"
    assert third == done("c")
    assert set(engine.aborted) == {"a", "b"}


def test_an_engine_that_always_raises_is_given_up() -> None:
    engine = Scripted(*[explode] * 20)
    count = 0

    def emit(batch: Sequence[Event]) -> None:
        nonlocal count
        count += 1
        loop.submit(f"r{count}", REQUEST)

    loop = EngineLoop(engine, emit)
    loop.submit("r0", REQUEST)
    with pytest.raises(EngineBroken):
        loop.run()
    assert count == 8
    assert engine.closed == 1


def test_a_lost_request_fails() -> None:
    def lose(engine: Scripted) -> Sequence[Event]:
        engine.active.clear()
        return []

    (event,) = run(Scripted(lose), "a")
    assert isinstance(event, Failed)
    assert event.error.code == "generation_failed"


def test_cancel_reaches_the_engine_between_steps() -> None:
    def cancel(_: Scripted) -> Sequence[Event]:
        loop.cancel("a")
        loop.cancel("unknown")
        return []

    def end(engine: Scripted) -> Sequence[Event]:
        assert engine.aborted == ["a"]
        loop.stop()
        return [done("a")]

    loop = EngineLoop(Scripted(cancel, end), lambda _: None)
    loop.submit("a", REQUEST)
    loop.run()


def test_an_idle_loop_waits_and_stops() -> None:
    engine = Scripted()
    loop = EngineLoop(engine, lambda _: None)
    thread = threading.Thread(target=loop.run)
    thread.start()
    loop.stop()
    thread.join(60)
    assert engine.closed == 1
    assert engine.budgets == []


def test_the_budget_settles_where_a_step_takes_its_target() -> None:
    for rate, expected in ((400.0, 32), (800.0, 64), (2000.0, 192), (100_000.0, 512), (10.0, 32)):
        budget = StepBudget()
        assert budget.tokens == 64
        for _ in range(20):
            budget.observe(budget.tokens / rate, budget.tokens)
            assert 32 <= budget.tokens <= 512
            assert budget.tokens % 32 == 0
        assert budget.tokens == expected


def test_the_budget_never_grows_beyond_its_start_without_evidence() -> None:
    budget = StepBudget()
    for _ in range(20):
        budget.observe(0.001, 0)
    assert budget.tokens == 64
    for _ in range(20):
        budget.observe(budget.tokens / 100_000, budget.tokens)
    assert budget.tokens == 512
    for _ in range(20):
        budget.observe(1.0, 0)  # steps too long, of whatever: it shrinks
    assert budget.tokens == 32


def test_the_loop_measures_its_steps() -> None:
    clock = iter(float(n) for n in range(100))  # every step takes a second
    steps: list[Callable[[Scripted], Sequence[Event]]] = [lambda _: [PromptProgress("a", 64, 100)]] * 3
    engine = Scripted(*steps, lambda _: [done("a")])
    loop = EngineLoop(engine, lambda batch: loop.stop() if isinstance(batch[-1], Done) else None, clock=clock.__next__)
    loop.submit("a", REQUEST)
    loop.run()
    assert engine.budgets == [64, 64, 64, 64]  # nobody watches


def test_a_step_may_be_longer_while_nobody_watches_a_stream() -> None:
    budget = StepBudget()
    for watched, expected in ((True, 192), (False, 512), (True, 192)):
        budget.watched = watched
        for _ in range(20):
            budget.observe(budget.tokens / 2100, budget.tokens)
        assert budget.tokens == expected


def test_text_of_a_stream_goes_out_at_a_pace_in_one_piece_and_never_late() -> None:
    stream = Generate(Raw((Segment("text"),)), 9, stream=True)
    now = 0.0

    def step(seconds: float, *events: Event) -> Callable[[Engine], Sequence[Event]]:
        def scripted(_: Engine) -> Sequence[Event]:
            nonlocal now
            now += seconds
            return events

        return scripted

    def text(request_id: str, piece: str) -> TextDelta:
        return TextDelta(request_id, piece)

    engine = Scripted(
        step(1.0, PromptProgress("a", 5, 5)),
        step(0.01, text("a", "1")),  # the first is not held back
        step(0.01, text("a", "2")),
        step(0.01, text("a", "3"), text("b", "first")),  # of another stream: out, and what was held with it
        step(0.01, text("a", "4")),
        step(0.01, text("b", "5")),
        step(0.02, text("a", "6")),  # 40 ms later
        step(0.01, text("a", "7")),
        step(0.01, done("a")),
        step(0.01, text("b", "8"), done("b")),
    )
    batches: list[Sequence[Event]] = []

    def emit(batch: Sequence[Event]) -> None:
        batches.append(batch)
        if batch[-1] == done("b"):
            loop.stop()

    loop = EngineLoop(engine, emit, clock=lambda: now)
    loop.submit("a", stream)
    loop.submit("b", stream)
    loop.run()
    assert batches == [
        [PromptProgress("a", 5, 5)],
        [text("a", "1")],
        [text("a", "23"), text("b", "first")],
        [text("a", "46"), text("b", "5")],
        [text("a", "7"), done("a")],
        [text("b", "8"), done("b")],
    ]


def test_text_does_not_wait_until_a_request_is_taken_in() -> None:
    stream = Generate(Raw((Segment("text"),)), 9, stream=True)
    seen: list[list[Event]] = []  # what was out when a request was taken in

    class Slow(Scripted):
        def add_request(self, request_id: str, request: Request) -> None:
            seen.append(list(events))
            super().add_request(request_id, request)

    def second(_: Engine) -> Sequence[Event]:
        loop.submit("b", REQUEST)
        return [TextDelta("a", "2")]

    events: list[Event] = []

    def emit(batch: Sequence[Event]) -> None:
        events.extend(batch)
        if batch[-1] == done("b"):
            loop.stop()

    engine = Slow(lambda _: [TextDelta("a", "1")], second, lambda _: [done("a"), done("b")])
    loop = EngineLoop(engine, emit, clock=lambda: 0.0)
    loop.submit("a", stream)
    loop.run()
    assert seen == [[], [TextDelta("a", "1"), TextDelta("a", "2")]]
