"""What no honest engine sends is refused; what one may send is handed on."""

from __future__ import annotations

import pytest

from ondevice_sdk.backends.api import (
    Done,
    Embed,
    Embedded,
    ErrorInfo,
    Event,
    Failed,
    Generate,
    Generated,
    PromptProgress,
    Raw,
    Request,
    Score,
    Scored,
    Segment,
    TextDelta,
    Tokenize,
    Tokenized,
    Usage,
)
from ondevice_sdk.errors import Cancelled, ClientClosed, WorkerCrashed
from ondevice_sdk.runtime.dispatch import BYTES_PER_TOKEN, EVENTS_BEYOND_TOKENS, SPARE_BYTES, Dispatcher
from ondevice_sdk.runtime.wire import ProtocolError

RAW = Raw((Segment("p"),))
GENERATE = Generate(RAW, 4)
STREAM = Generate(RAW, 4, stream=True)
SCORE = Score(RAW, ("a", "b"))
EMBED = Embed(("a", "b"))
TOKENIZE = Tokenize(("a",), (RAW,))
ROOM = 4 * BYTES_PER_TOKEN + SPARE_BYTES


def generated(text: str = "", **usage: float) -> Generated:
    return Generated(text, "stop", Usage(**usage))  # type: ignore[arg-type]


GOOD: list[tuple[Request, Event]] = [
    (GENERATE, PromptProgress("r1", 0, 0)),
    (STREAM, TextDelta("r1", "x" * ROOM)),
    (GENERATE, Done("r1", generated("x" * ROOM))),
    (SCORE, Done("r1", Scored((-1.0, 0.001), (1, 1), Usage()))),
    (EMBED, Done("r1", Embedded(((1.0,), (2.0,)), Usage()))),
    (TOKENIZE, Done("r1", Tokenized((0, 7)))),
    (SCORE, Failed("r1", ErrorInfo("unsupported", data={"capability": "score"}))),
]
BAD: list[tuple[Request, Event]] = [
    (GENERATE, PromptProgress("r2", 1, 2)),
    (GENERATE, PromptProgress("", 1, 2)),
    (GENERATE, PromptProgress("r1", 3, 2)),
    (GENERATE, PromptProgress("r1", -1, 2)),
    (GENERATE, PromptProgress("r1", 1, 10**30)),
    (GENERATE, TextDelta("r1", "not asked for")),
    (SCORE, TextDelta("r1", "not asked for")),
    (STREAM, TextDelta("r1", "x" * (ROOM + 1))),
    (STREAM, TextDelta("r1", "é" * (ROOM // 2 + 1))),
    (GENERATE, Done("r1", generated("x" * (ROOM + 1)))),
    (GENERATE, Done("r1", Generated("", "cancelled", Usage()))),
    (GENERATE, Done("r1", generated(prompt_tokens=-1))),
    (GENERATE, Done("r1", generated(completion_tokens=2**50))),
    (GENERATE, Done("r1", generated(decode_s=-0.1))),
    (GENERATE, Done("r1", generated(prefill_s=float("inf")))),
    (GENERATE, Done("r1", Scored((), (), Usage()))),
    (SCORE, Done("r1", generated())),
    (SCORE, Done("r1", Scored((-1.0,), (1,), Usage()))),
    (SCORE, Done("r1", Scored((-1.0, -1.0), (1,), Usage()))),
    (SCORE, Done("r1", Scored((-1.0,) * 3, (1,) * 3, Usage()))),
    (SCORE, Done("r1", Scored((-1.0, 0.5), (1, 1), Usage()))),
    (SCORE, Done("r1", Scored((-1.0, float("-inf")), (1, 1), Usage()))),
    (SCORE, Done("r1", Scored((-1.0, -1.0), (1, -1), Usage()))),
    (EMBED, Done("r1", Embedded(((1.0,),), Usage()))),
    (EMBED, Done("r1", Embedded(((1.0,), (1.0, 2.0)), Usage()))),
    (EMBED, Done("r1", Embedded(((), ()), Usage()))),
    (EMBED, Done("r1", Embedded(((1.0,), (float("nan"),)), Usage()))),
    (TOKENIZE, Done("r1", Tokenized((1,)))),
    (TOKENIZE, Done("r1", Tokenized((1, -1)))),
    (GENERATE, Failed("r1", ErrorInfo("nonsense"))),
    (GENERATE, Failed("r1", ErrorInfo("cancelled"))),
    (GENERATE, Failed("r1", ErrorInfo("worker_crashed"))),
]


@pytest.mark.parametrize(("request_", "event"), GOOD)
def test_honest_events_arrive(request_: Request, event: Event) -> None:
    dispatcher = Dispatcher(lambda _: None)
    ticket = dispatcher.issue(request_)
    dispatcher.handle([event])
    assert ticket.take() == [event]


@pytest.mark.parametrize(("request_", "event"), BAD)
def test_other_events_are_refused_and_never_arrive(request_: Request, event: Event) -> None:
    dispatcher = Dispatcher(lambda _: None)
    ticket = dispatcher.issue(request_)
    with pytest.raises(ProtocolError):
        dispatcher.handle([event])
    assert ticket.take() == []


@pytest.mark.parametrize("end", [Done("r1", generated()), Failed("r1", ErrorInfo("generation_failed"))])
def test_nothing_comes_after_the_end(end: Event) -> None:
    dispatcher = Dispatcher(lambda _: None)
    ticket = dispatcher.issue(STREAM)
    with pytest.raises(ProtocolError):
        dispatcher.handle([end, TextDelta("r1", "more")])
    assert ticket.take() == [end]


def test_text_in_pieces_counts_together() -> None:
    dispatcher = Dispatcher(lambda _: None)
    dispatcher.issue(STREAM)
    dispatcher.handle([TextDelta("r1", "x" * ROOM)])
    with pytest.raises(ProtocolError):
        dispatcher.handle([TextDelta("r1", "x")])


def test_a_flood_of_events_is_refused() -> None:
    dispatcher = Dispatcher(lambda _: None)
    ticket = dispatcher.issue(STREAM)
    events = [PromptProgress("r1", 1, 2)] * (EVENTS_BEYOND_TOKENS + 16)
    dispatcher.handle(events)
    with pytest.raises(ProtocolError):
        dispatcher.handle(events[:1])
    assert len(ticket.take()) == 1
    with pytest.raises(ProtocolError):
        dispatcher.handle([])


def test_cancel_is_sent_once_and_only_while_in_flight() -> None:
    sent: list[str] = []
    dispatcher = Dispatcher(sent.append)
    ticket = dispatcher.issue(GENERATE)
    ticket.cancel()
    ticket.cancel()
    assert sent == ["r1"]
    dispatcher.handle([Done("r1", Generated("", "cancelled", Usage()))])
    ticket.cancel()
    other = dispatcher.issue(GENERATE)
    dispatcher.handle([Done("r2", generated())])
    other.cancel()
    assert sent == ["r1"]


def test_what_nobody_takes_is_merged() -> None:
    dispatcher = Dispatcher(lambda _: None)
    ticket = dispatcher.issue(Generate(RAW, 1000, stream=True))
    for number in range(1000):
        dispatcher.handle([PromptProgress("r1", number, 1000), TextDelta("r1", f"{number} ")])
    end = Done("r1", generated())
    dispatcher.handle([end])
    text = "".join(f"{number} " for number in range(1000))
    assert ticket.take() == [PromptProgress("r1", 999, 1000), TextDelta("r1", text), end]
    assert ticket.take() == []


def test_wakeups() -> None:
    calls: list[int] = []
    dispatcher = Dispatcher(lambda _: None)
    ticket = dispatcher.issue(STREAM)
    ticket.set_wakeup(lambda: calls.append(1))
    assert calls == []
    dispatcher.handle([TextDelta("r1", "a")])
    assert calls == [1]
    ticket.set_wakeup(lambda: calls.append(2))
    assert calls == [1, 2]


def test_a_wakeup_that_raises_harms_nobody() -> None:
    dispatcher = Dispatcher(lambda _: None)
    first, second = dispatcher.issue(STREAM), dispatcher.issue(STREAM)
    first.set_wakeup(lambda: 1 // 0)  # type: ignore[arg-type]
    dispatcher.handle([TextDelta("r1", "a"), TextDelta("r2", "b")])
    assert first.take() == [TextDelta("r1", "a")]
    assert second.take() == [TextDelta("r2", "b")]


def test_stop_ends_all_and_refuses_the_next() -> None:
    dispatcher = Dispatcher(lambda _: None)
    ticket = dispatcher.issue(STREAM)
    dispatcher.handle([TextDelta("r1", "a")])
    dispatcher.stop(WorkerCrashed("dead", signal="SIGABRT"), WorkerCrashed)
    delta, failed = ticket.take()
    assert delta == TextDelta("r1", "a")
    assert isinstance(failed, Failed)
    assert failed.error.code == "worker_crashed"
    assert failed.error.data == {"signal": "SIGABRT", "exit_code": None}
    assert not dispatcher.open
    with pytest.raises(WorkerCrashed):
        dispatcher.issue(STREAM)
    dispatcher.handle([TextDelta("r1", "late")])
    dispatcher.stop(Cancelled(), ClientClosed)
    assert ticket.take() == []
    with pytest.raises(ClientClosed):
        dispatcher.issue(STREAM)
