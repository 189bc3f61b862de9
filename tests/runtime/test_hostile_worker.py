"""A worker that was taken over by a malicious model: the app lives on, and every outcome is a typed error."""

from __future__ import annotations

import json
import pickle
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ondevice_sdk import errors
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
    Score,
    Scored,
    Segment,
    TextDelta,
    Tokenize,
    Usage,
)
from ondevice_sdk.errors import WorkerCrashed
from ondevice_sdk.runtime import protocol, wire
from ondevice_sdk.runtime.dispatch import Dispatcher
from ondevice_sdk.runtime.wire import ProtocolError

from .conftest import MODULES, Opener, ask, finish

RAW = Raw((Segment("p"),))
REQUESTS = (Generate(RAW, 20, stream=True), Score(RAW, ("a", "b")), Embed(("a",)), Tokenize(("a", "b")))
HONEST: list[tuple[Event, ...]] = [
    (PromptProgress("r1", 1, 2), TextDelta("r1", "some text")),
    (Done("r2", Scored((-1.0, -2.0), (1, 2), Usage(1, 2, 3, 0.5, 0.5))),),
    (TextDelta("r1", "more"), Done("r3", Embedded(((0.25, 0.5),), Usage()))),
    (Failed("r4", ErrorInfo("input_too_long", "long", None, {"tokens": 5, "limit": 4})),),
    (Done("r1", Generated("some textmore", "stop", Usage())),),
]
STREAM = [protocol.to_app(protocol.Events(events)) for events in HONEST]
WORDS = (b"null", b"-1", b"1e999", b"NaN", b'"r9"', b"[]", b"{}", b"true", b'"\\ud800"', b"9" * 400, b"[" * 300)


class Bomb:
    """Would run code if anything unpickled it."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return (exec, ("import tests_were_fooled",))


def mutate(dice: random.Random, frames: list[bytes]) -> bytes:
    """One to three changes: of frames, of bytes, of JSON values, of stated lengths."""
    frames = list(frames)
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(frames))
        frame = bytearray(frames[at])
        match dice.randrange(9):
            case 0:
                frame[dice.randrange(len(frame))] = dice.randrange(256)
            case 1:
                frame[dice.randrange(len(frame))] ^= 1 << dice.randrange(8)
            case 2:
                del frame[dice.randrange(len(frame)) :]
                frame += b"x"
            case 3:
                where = dice.randrange(len(frame))
                frame[where:where] = dice.randbytes(dice.randint(1, 40))
            case 4:
                frame = bytearray(frames[dice.randrange(len(frames))])
            case 5:
                dice.shuffle(frames)
                continue
            case 6:
                frame = bytearray(pickle.dumps(Bomb()))
            case _:
                frame = bytearray(_change_value(dice, bytes(frame)))
        frames[at] = bytes(frame)
    return b"".join(frames)


def _change_value(dice: random.Random, frame: bytes) -> bytes:
    """Keep the frame well-formed and change one value of the events in it."""
    length = int.from_bytes(frame[:4], "big")
    blob = frame[4 + length :]
    marks = [i + 1 for i, byte in enumerate(blob) if byte in b":,[" and i + 1 < len(blob)]
    if not marks:
        return frame
    begin = dice.choice(marks)
    end = next((i for i in range(begin, len(blob)) if blob[i] in b",]}"), len(blob))
    blob = blob[:begin] + dice.choice(WORDS) + blob[end:]
    header = json.dumps({"kind": "events", "blob": len(blob)}).encode()
    return len(header).to_bytes(4, "big") + header + blob


def play(stream: bytes, dice: random.Random) -> str:
    """What an app's side makes of a stream; anything but a ProtocolError fails the test."""
    dispatcher = Dispatcher(lambda _: None)
    tickets = [dispatcher.issue(request) for request in REQUESTS]
    decoder, at, outcome = wire.Decoder(wire.TO_APP), 0, "ended"
    try:
        while at < len(stream):
            size = dice.randint(1, 600)
            for frame in decoder.feed(stream[at : at + size]):
                message = protocol.from_worker(frame)
                if not isinstance(message, protocol.Events):
                    raise ProtocolError("out of turn")
                dispatcher.handle(message.events)
            at += size
    except ProtocolError:
        outcome = "refused"
    dispatcher.stop(WorkerCrashed(), WorkerCrashed)
    for ticket in tickets:
        *_, end = ticket.take()
        assert isinstance(end, Done | Failed)
        if isinstance(end, Failed):
            errors.rebuild(end.error.code, end.error.message, end.error.hint, end.error.data)
    return outcome


def test_the_honest_stream_is_accepted() -> None:
    assert play(b"".join(STREAM), random.Random(0)) == "ended"


@pytest.mark.parametrize("seed", range(6))
def test_mutated_streams_only_ever_end_in_a_refusal(seed: int) -> None:
    dice = random.Random(seed)
    outcomes = [play(mutate(dice, STREAM), dice) for _ in range(2_000)]
    assert set(outcomes) == {"ended", "refused"}  # some changes are harmless: a letter of a text
    assert outcomes.count("refused") > 1_000
    assert "tests_were_fooled" not in sys.modules


def events(*made: Event) -> bytes:
    return protocol.to_app(protocol.Events(made))


def header(text: str) -> bytes:
    return len(text).to_bytes(4, "big") + text.encode()


GARBAGE = [
    b"\xff" * 64,
    b"\x00" * 64,
    b"GET / HTTP/1.1\r\n\r\n",
    pickle.dumps(Bomb()),
    header("{}"),
    header('{"kind":"events","blob":99999999999}'),
    header('{"kind":"go","path":["/"]}'),
    header('{"kind":"submit","request_id":"r1","blob":0}'),
    header('{"kind":"hello","seal":null}'),
    header('{"kind":"ready","context_tokens":-5,"max_sequences":1,"capabilities":[],"import_s":0.1,"load_s":0.1}'),
    header('{"kind":"ready","context_tokens":100,"max_sequences":1,"capabilities":[],"import_s":0.1,"load_s":-1}'),
    header(
        '{"kind":"ready","context_tokens":100,"max_sequences":1,"capabilities":[],"import_s":0.1,"load_s":1,'
        '"template":"a text"}'
    ),
    header('{"kind":"load_progress","fraction":7}'),
    header('{"kind":"refused","error":{"code":"nonsense"}}'),
]
ANSWERS = [
    events(),
    events(Done("r2", Generated("", "stop", Usage()))),
    events(Done("r1", Scored((), (), Usage()))),
    events(Done("r1", Generated("x" * 100_000, "stop", Usage()))),
    events(Failed("r1", ErrorInfo("licence_not_accepted"))),
    header('{"kind":"load_progress","fraction":0.5}'),
]


@pytest.fixture
def hostile(tmp_path: Path) -> Callable[[str, bytes], list[str]]:
    """Makes the command of a worker that turns hostile at some point."""

    def make(point: str, data: bytes) -> list[str]:
        (tmp_path / "data").write_bytes(data)
        return [sys.executable, str(MODULES / "hostile_worker.py"), point, str(tmp_path / "data")]

    return make


Hostile = Callable[[str, bytes], list[str]]


@pytest.mark.slow
@pytest.mark.parametrize("point", ["start", "seal", "load"])
@pytest.mark.parametrize("data", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_before_the_model_is_loaded(opener: Opener, hostile: Hostile, point: str, data: bytes) -> None:
    with pytest.raises(errors.WorkerCrashed, match="protocol"):
        opener(privacy="guarded", worker_command=hostile(point, data))


@pytest.mark.slow
@pytest.mark.parametrize("data", [*GARBAGE, *ANSWERS], ids=range(len(GARBAGE) + len(ANSWERS)))
def test_garbage_as_an_answer(opener: Opener, hostile: Hostile, data: bytes) -> None:
    executor = opener(privacy="guarded", worker_command=hostile("serve", data))
    last = finish(executor, ask("x", max_tokens=10))
    assert isinstance(last, Failed)
    assert last.error.code == "worker_crashed"
    assert "protocol" in last.error.message
    assert not executor.alive


def test_a_flood_is_dammed(opener: Opener, hostile: Hostile) -> None:
    flood = events(*[PromptProgress("r1", 1, 2)] * 1000) * 70
    last = finish(opener(privacy="guarded", worker_command=hostile("serve", flood)), ask("x", max_tokens=10))
    assert isinstance(last, Failed)
    assert "protocol" in last.error.message


def test_a_worker_that_proves_nothing_is_not_trusted_with_strict(opener: Opener, hostile: Hostile) -> None:
    command = hostile("never", b"")
    assert not opener(privacy="guarded", worker_command=command).report().enforced
    with pytest.raises(errors.PrivacyUnavailable) as caught:
        opener(privacy="strict", worker_command=command)
    assert len(caught.value.reasons) >= 2
