from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from ondevice_sdk import errors
from ondevice_sdk.backends.api import (
    Chat,
    Done,
    Embed,
    Embedded,
    ErrorInfo,
    Event,
    Failed,
    Generate,
    Generated,
    Grammar,
    LoadOptions,
    LocalAdapter,
    LocalModel,
    Message,
    PromptProgress,
    Raw,
    Request,
    Sampling,
    Score,
    Scored,
    Segment,
    TextDelta,
    Tokenize,
    Tokenized,
    Usage,
)
from ondevice_sdk.runtime import protocol, wire
from ondevice_sdk.runtime.protocol import Events, Submit
from ondevice_sdk.runtime.wire import Decoder, Frame, Limits, ProtocolError

CHAT = Chat((Message("system", "be brief"), Message("user", "¿qué? 日本語 😀 \u2028 <|im_end|>")), "{")
RAW = Raw((Segment("Review: ", "control"), Segment("x\x00y\n")))
REQUESTS: list[Request] = [
    Generate(CHAT, 10, Sampling(0.0, seed=2**60), ("\n", "</s>"), Grammar("choice", choices=("a", "b")), stream=True),
    Generate(RAW, 1, ignore_eos=True, deterministic=True, adapter="a", prefix_key="k", priority=-3),
    Score(RAW, (" yes", " no", "")),
    Embed(("", "text")),
    Tokenize(("a",), (CHAT, RAW)),
]
EVENTS: list[Event] = [
    PromptProgress("r1", 5, 10),
    TextDelta("r1", "日本"),
    Done("r1", Generated("text", "length", Usage(1, 2, 3, 0.5, 0.25))),
    Done("r1", Scored((-1.5, 0.0), (1, 2), Usage())),
    Done("r1", Embedded(((0.5, -1.0), (1e-30, 2.0)), Usage())),
    Done("r1", Tokenized((1, 0))),
    Failed("r1", ErrorInfo("input_too_long", "too long", "shorten it", {"tokens": 9, "limit": 8})),
]


def only(data: bytes, limits: Limits) -> Frame:
    (frame,) = Decoder(limits).feed(data)
    return frame


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: r.kind)
def test_requests_arrive_as_they_were(request_: Request) -> None:
    sent = Submit("r1", request_)
    assert protocol.from_app(only(protocol.to_worker(sent), wire.TO_WORKER)) == sent


def test_events_arrive_as_they_were() -> None:
    sent = Events(tuple(EVENTS))
    assert protocol.from_worker(only(protocol.to_app(sent), wire.TO_APP)) == sent


def test_other_messages_arrive_as_they_were() -> None:
    load = protocol.Load.of("m:B", LocalModel("n", "int4", "gguf", "/p", "0" * 64, ("/p",)), LoadOptions(2048))
    for message in (
        protocol.SealNow("strict", ("/a",), "/b"),
        protocol.Prove(),
        protocol.Go(("/a",)),
        load,
        protocol.Cancel("r1"),
        protocol.Close(),
    ):
        assert protocol.from_app(only(protocol.to_worker(message), wire.TO_WORKER)) == message
    ready = protocol.Ready(2048, 8, frozenset({"score", "generate"}), 0.25, 1.5)
    for answer in (protocol.Started(), protocol.LoadProgress(0.5), ready, protocol.Refused(ErrorInfo("load_failed"))):
        assert protocol.from_worker(only(protocol.to_app(answer), wire.TO_APP)) == answer


MODEL = LocalModel("n", "int4", "gguf", "/p", "0" * 64, ("/p", "/q"))
LOADS = [
    protocol.Load.of("m:B", MODEL, LoadOptions()),
    protocol.Load.of("m:B", MODEL, LoadOptions(2048, 4, 2, 64, "q8_0")),
    protocol.Load.of("m:B", MODEL, LoadOptions(adapters=(LocalAdapter("a", "/a", "1" * 64, 5),) * 2)),
    protocol.Load.of("m:B", MODEL, LoadOptions(), protocol.Handed("/c", "c2VjcmV0", "prefix-state", "0" * 64, 1 << 30)),
]


@pytest.mark.parametrize("load", LOADS)
def test_the_message_that_loads_a_model_can_be_read_without_pydantic(load: protocol.Load) -> None:
    assert (read := protocol.load_from_app(only(protocol.to_worker(load), wire.TO_WORKER))) == load
    assert read.options(print).adapters == load.adapters
    code = """
import sys
from ondevice_sdk.runtime import protocol, wire
protocol.load_from_app(wire.Frame(sys.stdin.buffer.read()))
protocol.to_app(protocol.LoadProgress(0.5))
print("pydantic" in sys.modules)
"""
    frame = only(protocol.to_worker(load), wire.TO_WORKER)
    done = subprocess.run([sys.executable, "-c", code], input=frame.header, capture_output=True, check=True)
    assert done.stdout == b"False\n"


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "go"},
        {"entry": 5},
        {"max_sequences": "8"},
        {"max_sequences": True},
        {"kv_type": "f99"},
        {"model": None},
        {"adapters": [{"name": "a"}]},
        {"prefixes": {"directory": "/c"}},
        {"more": 1},
    ],
)
def test_another_first_message_is_refused(change: dict[str, object]) -> None:
    fields = json.loads(only(protocol.to_worker(LOADS[0]), wire.TO_WORKER).header)
    for frame in (Frame(json.dumps({**fields, **change}).encode()), Frame(b"[]"), Frame(b"{"), Frame(b"[" * 100_000)):
        with pytest.raises(ProtocolError) as caught:
            protocol.load_from_app(frame)
        assert caught.value.__suppress_context__


def test_half_a_surrogate_pair_is_replaced_and_offsets_stay() -> None:
    text = "a\ud800b\udc00\ud83d"
    sent = protocol.to_worker(Submit("r1", Embed((text,))))
    received = protocol.from_app(only(sent, wire.TO_WORKER))
    assert isinstance(received, Submit)
    assert received.request == Embed(("a\ufffdb\ufffd\ufffd",))


@pytest.mark.parametrize(
    "bad",
    [
        Generate(RAW, 5, Sampling(float("nan"))),
        Generate(RAW, 5, Sampling(top_p=float("inf"))),
        Generate(RAW, "5"),  # type: ignore[arg-type]
        Generate("SECRET", 5),  # type: ignore[arg-type]
        Embed((5,)),  # type: ignore[arg-type]
        "SECRET",
    ],
)
def test_a_bad_request_is_refused_in_the_app_without_its_text(bad: Request) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        protocol.to_worker(Submit("r1", bad))
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_request_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "TO_WORKER", Limits(1000, 2000))
    protocol.to_worker(Submit("r1", Embed(("x" * 1000,))))
    with pytest.raises(errors.ConfigurationError, match="MiB"):
        protocol.to_worker(Submit("r1", Embed(("x" * 2000,))))


GOOD_READY: dict[str, object] = {
    "kind": "ready", "context_tokens": 1, "max_sequences": 1, "capabilities": [],
    "import_s": 0.5, "load_s": 1.0, "blob": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"kind": "nonsense"},
        {"kind": 5},
        {"kind": "submit", "request_id": "r1", "blob": 0},
        {"kind": "load_progress", "fraction": "0.5"},
        {"kind": "load_progress", "fraction": True},
        {"kind": "load_progress"},
        {**GOOD_READY, "extra": 1},
        {**GOOD_READY, "context_tokens": 1.5},
        {**GOOD_READY, "context_tokens": None},
        {**GOOD_READY, "capabilities": "generate"},
        {**GOOD_READY, "capabilities": [1]},
        {**GOOD_READY, "load_s": "1"},
        {**GOOD_READY, "load_s": float("nan")},
        {**GOOD_READY, "import_s": float("inf")},
        {name: value for name, value in GOOD_READY.items() if name != "load_s"},
        {"kind": "hello", "seal": {}},
    ],
)
def test_a_bad_header_is_refused(header: dict[str, object]) -> None:
    assert protocol.from_worker(Frame(json.dumps(GOOD_READY).encode()))
    with pytest.raises(ProtocolError):
        protocol.from_worker(Frame(json.dumps(header).encode()))


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"{}",
        b"null",
        b"[1]",
        b"[" * 5000,
        b'[{"kind":"text_delta","request_id":"r1"}]',
        b'[{"kind":"text_delta","request_id":"r1","text":1}]',
        b'[{"kind":"text_delta","request_id":"r1","text":"x","more":1}]',
        b'[{"kind":"prompt_progress","request_id":"r1","done":1e3,"total":NaN}]',
        b'[{"kind":"done","request_id":"r1","result":{"kind":"scored","logprobs":[NaN],"token_counts":[1],"usage":{}}}]',
        b'[{"kind":"done","request_id":"r1","result":{"kind":"scored","logprobs":[1e999],"token_counts":[1],"usage":{}}}]',
        b'[{"kind":"done","request_id":"r1","result":{"kind":"other"}}]',
        b'[{"kind":"text_delta","request_id":"r1","text":"\\ud800"}]',
        b'[{"kind":"text_delta","request_id":"r1","text":"\xff"}]',
    ],
)
def test_bad_events_are_refused_and_not_quoted(blob: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        protocol.from_worker(Frame(b'{"kind":"events","blob":1}', blob))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_bytes_that_belong_to_no_message_are_refused() -> None:
    with pytest.raises(ProtocolError):
        protocol.from_worker(Frame(json.dumps(GOOD_READY).encode(), b"x"))


@pytest.mark.parametrize("code", sorted(protocol.REQUEST_ERRORS | protocol.LOAD_ERRORS))
def test_errors_come_back_as_themselves(code: str) -> None:
    error = errors.rebuild(code, "what happened", "do this", {})
    again = protocol.restore(protocol.describe(error), frozenset({code}))
    assert type(again) is type(error)
    assert (again.message, again.hint, again.data()) == ("what happened", "do this", error.data())


@pytest.mark.parametrize(
    "info",
    [
        ErrorInfo("nonsense"),
        ErrorInfo("privacy_unavailable"),
        ErrorInfo("worker_crashed"),
        ErrorInfo("generation_failed", "x" * 5000),
        ErrorInfo("generation_failed", data={"tokens": 1}),
        ErrorInfo("input_too_long", data={"tokens": [1]}),
        ErrorInfo("input_too_long", data={"__class__": "x"}),
        ErrorInfo("output_invalid", data={"raw": {"a": 1}}),
        ErrorInfo("output_invalid", data={"raw": float("nan")}),
    ],
)
def test_errors_that_no_worker_has_are_refused(info: ErrorInfo) -> None:
    with pytest.raises(ProtocolError):
        protocol.restore(info, protocol.REQUEST_ERRORS)


def test_a_long_message_is_cut_by_the_sender() -> None:
    info = protocol.describe(errors.LoadFailed("x" * 10_000))
    assert isinstance(protocol.restore(info, protocol.LOAD_ERRORS), errors.LoadFailed)
    assert replace(info, message="") == ErrorInfo("load_failed")
