"""Requests that are given up: in the queue, in the prompt, while they write."""

from __future__ import annotations

import pytest

from ondevice_sdk.backends.api import (
    GREEDY,
    Capability,
    Done,
    Engine,
    Event,
    Failed,
    Generate,
    Score,
    TextDelta,
    Tokenize,
)
from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.testing import drain
from ondevice_sdk.testing.contract.base import ContractBase, counts, generated, last, prompt_of, raw, streamed
from ondevice_sdk.testing.contract.guard import part


@part()
class Cancelling(ContractBase):
    """`abort_request` ends one request, and no other."""

    def test_cancel_in_the_prompt(self, engine: Engine) -> None:
        """A long prompt stops at the next step, and the engine goes on."""
        engine.add_request("a", Generate(prompt_of(engine, engine.context_tokens // 2, "line "), 4, GREEDY))
        events = list(engine.step(16))
        assert not any(isinstance(event, Done | Failed) for event in events)
        engine.abort_request("a")
        end = last([event for event in engine.step(16) if isinstance(event, Done | Failed)])
        assert (end.finish_reason, end.text) == ("cancelled", "")
        assert not engine.busy
        generated(engine, Generate(self.prompt, 2, GREEDY))

    def test_a_cancelled_prompt_leaves_no_trace(self, engine: Engine) -> None:
        """The same prompt is answered as ever after it was given up in its middle, while others were writing."""
        phrases = [f"{number} is followed by {number + 1}," for number in range(100)]
        texts = [" ".join(phrases[:count]) for count in range(1, 101)]
        sizes = counts(engine, Tokenize(texts=tuple(texts)))
        text = texts[max(1, sum(size <= engine.context_tokens // 2 for size in sizes)) - 1]
        asked = Generate(raw(text), 8, GREEDY, ignore_eos=True)
        engine.forget()
        alone = generated(engine, asked).text
        engine.forget()
        others = [f"other{number}" for number in range(min(2, engine.max_sequences - 1))]
        for name in others:
            engine.add_request(name, Generate(self.prompt, 60, GREEDY, ignore_eos=True))
            engine.step(64)
        engine.add_request("a", asked)
        engine.step(64)
        for name in ("a", *others):
            engine.abort_request(name)
        engine.step(64)
        assert not engine.busy
        assert generated(engine, asked).text == alone

    def test_cancel_while_writing(self, engine: Engine) -> None:
        """The partial text is kept, and is what was streamed."""
        engine.add_request("a", Generate(self.prompt, 500, GREEDY, stream=True, ignore_eos=True))
        events: list[Event] = []
        while sum(isinstance(event, TextDelta) for event in events) < 2:
            events += engine.step(64)
        engine.abort_request("a")
        engine.abort_request("a")
        events += engine.step(64)
        assert not engine.busy
        assert last(events).finish_reason == "cancelled"
        assert last(events).text == streamed(events) != ""

    def test_cancel_before_the_first_step(self, engine: Engine) -> None:
        """Nothing was done for it, and it has its end."""
        engine.add_request("a", Generate(self.prompt, 50, GREEDY))
        engine.abort_request("a")
        end = last(engine.step(64))
        assert (end.finish_reason, end.text) == ("cancelled", "")
        assert not engine.busy

    def test_cancel_of_one_among_many(self, engine: Engine) -> None:
        """The others, running and waiting, come to their own ends."""
        requests = {f"r{n}": Generate(raw(f"Count: {n}, {n + 1},"), 12, GREEDY, ignore_eos=True) for n in range(9)}
        for request_id, request in requests.items():
            engine.add_request(request_id, request)
        early = [*engine.step(64), *engine.step(64)]
        for gone in ("r1", "r8"):  # one of the first, and one that has to wait
            engine.abort_request(gone)
        ends = {event.request_id: event for event in early if isinstance(event, Done | Failed)}
        while engine.busy:
            ends |= {event.request_id: event for event in engine.step(64) if isinstance(event, Done | Failed)}
        assert set(ends) == set(requests)
        reasons = {request_id: last([end]).finish_reason for request_id, end in ends.items()}
        assert reasons == {name: "cancelled" if name in ("r1", "r8") else "length" for name in requests}

    def test_cancel_of_a_score(self, engine: Engine) -> None:
        """What has no partial result fails as cancelled."""
        if Capability.SCORE not in engine.capabilities:
            return  # that it is refused is tested with the scores
        engine.add_request("a", Score(prompt_of(engine, engine.context_tokens // 2, "entry "), (" one", " two")))
        engine.abort_request("a")
        (end,) = [event for event in engine.step(16) if isinstance(event, Done | Failed)]
        assert isinstance(end, Failed)
        assert end.error.code == "cancelled"
        assert not engine.busy

    def test_cancel_of_nothing(self, engine: Engine) -> None:
        """Unknown and finished ids are ignored."""
        drain(engine, {"a": Generate(self.prompt, 2, GREEDY)})
        engine.abort_request("a")
        engine.abort_request("never seen")
        assert not engine.busy
        drain(engine, {"a": Generate(self.prompt, 2, GREEDY)})  # not cancelled by what was said before

    def test_an_id_is_in_use_once(self, engine: Engine) -> None:
        """A second request with the id of one that runs is refused, and the first goes on."""
        request = Generate(self.prompt, 4, GREEDY, ignore_eos=True)
        engine.add_request("a", request)
        with pytest.raises(ConfigurationError):
            engine.add_request("a", request)
        events: list[Event] = []
        while engine.busy:
            events += engine.step(64)
        assert last(events).usage.completion_tokens == 4
