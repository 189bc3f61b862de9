"""How flows are driven: by hand, with tickets that the test fills."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from ondevice_sdk import errors
from ondevice_sdk.backends import requests
from ondevice_sdk.backends.api import Done, ErrorInfo, Event, Failed, Request, Result, Tokenize, Tokenized
from ondevice_sdk.call import Call, Waiter, Window, run, run_window
from ondevice_sdk.tasks.flow import Flow, Step
from ondevice_sdk.types import Progress, TextDelta


class HandTicket:
    """A ticket that the test answers itself."""

    def __init__(self, request: Request, number: int) -> None:
        self.request = request
        self.request_id = str(number)
        self.cancelled = 0
        self._events: list[Event] = []
        self._wakeup: Callable[[], None] = lambda: None

    def put(self, *events: Event) -> None:
        self._events.extend(events)
        self._wakeup()

    def answer(self, result: Result) -> None:
        self.put(Done(self.request_id, result))

    def fail(self, code: str) -> None:
        self.put(Failed(self.request_id, ErrorInfo(code, "it failed")))

    def take(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def set_wakeup(self, wakeup: Callable[[], None]) -> None:
        self._wakeup = wakeup
        if self._events:
            wakeup()

    def cancel(self) -> None:
        self.cancelled += 1


class Desk:
    """Hands out tickets and keeps them."""

    def __init__(self) -> None:
        self.tickets: list[HandTicket] = []

    def submit(self, request: Request) -> HandTicket:
        self.tickets.append(HandTicket(request, len(self.tickets)))
        return self.tickets[-1]


def two_steps() -> Flow[int]:
    first = yield Step((Tokenize(("a",)), Tokenize(("b",))), "reading")
    second = yield Step((Tokenize(("c",)),), "writing")
    return sum(total(result) for result in [*first, *second])


def total(result: Result) -> int:
    assert isinstance(result, Tokenized)
    return sum(result.counts)


def test_a_flow_gets_its_results_in_the_order_of_its_requests() -> None:
    desk = Desk()

    def flow() -> Flow[list[int]]:
        results = yield Step((Tokenize(("a",)), Tokenize(("b",))))
        return [total(result) for result in results]

    call = Call(desk.submit, flow())
    desk.tickets[1].answer(Tokenized((2,)))
    assert not call.advance()
    desk.tickets[0].answer(Tokenized((1,)))
    assert call.advance()
    assert call.result() == [1, 2]


def test_steps_follow_each_other_and_progress_is_told() -> None:
    desk = Desk()
    told: list[Progress] = []
    call = Call(desk.submit, two_steps(), on_progress=told.append)
    assert len(desk.tickets) == 2
    for ticket in list(desk.tickets):
        ticket.answer(Tokenized((1,)))
    assert not call.advance()
    desk.tickets[2].answer(Tokenized((5,)))
    assert call.advance()
    assert call.result() == 7
    assert [(event.stage, event.done, event.total) for event in told] == [
        ("reading", 1, 2),
        ("reading", 2, 2),
        ("writing", 1, 1),
    ]


def test_the_prompts_of_a_step_are_told_together() -> None:
    desk = Desk()
    told: list[Progress] = []
    call = Call(desk.submit, two_steps(), on_progress=told.append)
    one, two = desk.tickets
    one.put(requests.PromptProgress("0", 64, 100))
    call.advance()
    two.put(requests.PromptProgress("1", 10, 20))
    call.advance()
    one.put(requests.PromptProgress("0", 100, 100))
    one.answer(Tokenized((1,)))
    call.advance()
    two.put(requests.PromptProgress("1", 20, 20))
    two.answer(Tokenized((1,)))
    call.advance()
    desk.tickets[2].put(requests.PromptProgress("2", 5, 5))
    call.advance()
    assert [(event.stage, event.done, event.total, event.unit) for event in told] == [
        ("prompt", 64, None, "tokens"),  # nobody knows yet how long the other one is
        ("prompt", 74, 120, "tokens"),
        ("prompt", 110, 120, "tokens"),
        ("reading", 1, 2, "requests"),
        ("prompt", 120, 120, "tokens"),
        ("reading", 2, 2, "requests"),
        ("prompt", 5, 5, "tokens"),  # the next step begins anew
    ]


def test_requests_without_a_prompt_do_not_hide_the_total() -> None:
    desk = Desk()
    told: list[Progress] = []
    call = Call(desk.submit, two_steps(), on_progress=told.append)
    desk.tickets[0].answer(Tokenized((1,)))
    desk.tickets[1].put(requests.PromptProgress("1", 10, 20))
    call.advance()
    assert told[-1] == Progress("prompt", 10, 20, "tokens")


def test_a_failed_request_is_thrown_into_the_flow_and_cancels_its_siblings() -> None:
    desk = Desk()
    call = Call(desk.submit, two_steps())
    desk.tickets[0].fail("worker_crashed")
    assert call.advance()
    with pytest.raises(errors.WorkerCrashed, match="it failed"):
        call.result()
    assert desk.tickets[1].cancelled


def test_a_flow_may_handle_an_error_and_go_on() -> None:
    desk = Desk()

    def flow() -> Flow[str]:
        try:
            yield Step((Tokenize(("a",)),))
        except errors.InputTooLong as error:
            return f"{error.tokens} of {error.limit}"
        return "never"

    call = Call(desk.submit, flow())
    desk.tickets[0].put(Failed("0", ErrorInfo("input_too_long", data={"tokens": 9, "limit": 8})))
    assert run(call) == "9 of 8"


def test_the_deadline_ends_the_call() -> None:
    desk = Desk()
    call = Call(desk.submit, two_steps(), timeout=0)
    with pytest.raises(errors.DeadlineExceeded):
        run(call)
    assert all(ticket.cancelled for ticket in desk.tickets)


def test_an_abandoned_call_cancels_closes_its_flow_and_says_so_once() -> None:
    desk, ended, closed = Desk(), [], []

    def flow() -> Flow[None]:
        try:
            yield Step((Tokenize(("a",)),))
        finally:
            closed.append(True)

    call = Call(desk.submit, flow(), on_end=lambda: ended.append(True))
    call.abandon()
    call.abandon()
    assert desk.tickets[0].cancelled
    assert (ended, closed) == ([True], [True])


def test_a_request_that_cannot_be_submitted_ends_the_call() -> None:
    ended: list[bool] = []

    def refuse(request: Request) -> HandTicket:
        raise errors.ClientClosed

    with pytest.raises(errors.ClientClosed):
        Call(refuse, two_steps(), on_end=lambda: ended.append(True))
    assert ended == [True]


def test_deltas_are_given_once() -> None:
    desk = Desk()
    call = Call(desk.submit, two_steps())
    desk.tickets[0].put(requests.TextDelta("0", "one "), requests.TextDelta("0", "two"))
    call.advance()
    assert call.take_deltas() == [TextDelta("one "), TextDelta("two")]
    assert call.take_deltas() == []


def test_waiting_wakes_from_another_thread() -> None:
    desk = Desk()
    call = Call(desk.submit, two_steps())

    def answer() -> None:
        answered = 0
        while answered < 3:
            if len(desk.tickets) > answered:
                desk.tickets[answered].answer(Tokenized((1,)))
                answered += 1

    thread = threading.Thread(target=answer)
    thread.start()
    assert run(call) == 3
    thread.join()


def one(desk: Desk, text: str) -> Call[int]:
    def flow() -> Flow[int]:
        results: Sequence[Result] = yield Step((Tokenize((text,)),))
        return total(results[0])

    return Call(desk.submit, flow())


def starts(desk: Desk, items: Iterator[str]) -> Iterator[Callable[[], Call[int]]]:
    for item in items:
        yield lambda item=item: one(desk, item)  # type: ignore[misc]


def test_a_window_takes_items_lazily_and_gives_results_in_order() -> None:
    desk = Desk()
    taken: list[str] = []

    def items() -> Iterator[str]:
        for item in "abcdef":
            taken.append(item)
            yield item

    window = Window(starts(desk, items()), size=2, on_error="raise")
    assert not window.advance()
    assert taken == ["a", "b"]
    desk.tickets[1].answer(Tokenized((2,)))
    assert not window.advance()  # the first is not there yet
    assert taken == ["a", "b"]
    desk.tickets[0].answer(Tokenized((1,)))
    assert window.advance()
    assert [window.take(), window.take()] == [1, 2]


def test_closing_the_iterator_cancels_the_rest() -> None:
    desk = Desk()
    window = Window(starts(desk, iter("abc")), size=3, on_error="raise")
    results = run_window(window)
    window.advance()
    desk.tickets[0].answer(Tokenized((1,)))
    assert next(results) == 1
    results.close()  # type: ignore[attr-defined]
    assert [ticket.cancelled for ticket in desk.tickets] == [0, 1, 1]


def test_errors_are_raised_or_given_in_place() -> None:
    for on_error in ("raise", "return"):
        desk = Desk()
        window = Window(starts(desk, iter("ab")), size=2, on_error=on_error)
        window.advance()
        desk.tickets[0].fail("generation_failed")
        desk.tickets[1].answer(Tokenized((4,)))
        results = run_window(window)
        if on_error == "raise":
            with pytest.raises(errors.GenerationFailed):
                next(results)
        else:
            first, second = results
            assert isinstance(first, errors.GenerationFailed)
            assert second == 4


def test_a_waiter_remembers_a_wake_up_that_came_before_it_slept() -> None:
    desk = Desk()
    call = Call(desk.submit, two_steps())
    waiter = Waiter(call)
    desk.tickets[0].answer(Tokenized((1,)))
    waiter.wait()  # would hang if the wake-up were lost
