"""Writing: lengths, seeds, streams, stop strings, characters, the limits of the context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from ondevice_sdk.backends.api import (
    GREEDY,
    Capability,
    Engine,
    Failed,
    Generate,
    Grammar,
    PromptProgress,
    Raw,
    Sampling,
    Segment,
    TextDelta,
    Tokenize,
)
from ondevice_sdk.errors import InputTooLong, OnDeviceError, Unsupported
from ondevice_sdk.testing import answer, drain
from ondevice_sdk.testing.contract.base import ContractBase, counts, exact, generated, last, prompt_of, raw, streamed
from ondevice_sdk.testing.contract.guard import part

_FOREIGN = "naïve 日本語 🦊 Ελλάδα"


@part()
class Generation(ContractBase):
    """One request at a time."""

    @pytest.mark.parametrize("tokens", [1, 5])
    def test_max_tokens(self, engine: Engine, tokens: int) -> None:
        """Not one token more; the reason is the length."""
        result = generated(engine, Generate(self.prompt, tokens, GREEDY, ignore_eos=True))
        assert result.usage.completion_tokens == tokens
        assert result.finish_reason == "length"

    def test_usage(self, engine: Engine) -> None:
        """Prompt tokens are those that `Tokenize` counts, and times are not negative."""
        (expected,) = counts(engine, Tokenize(prompts=(self.prompt,)))
        usage = generated(engine, Generate(self.prompt, 3, GREEDY, ignore_eos=True)).usage
        assert usage.prompt_tokens == expected
        assert 0 <= usage.cached_tokens <= usage.prompt_tokens
        assert min(usage.prefill_s, usage.decode_s) >= 0

    def test_greedy_repeats_itself(self, engine: Engine) -> None:
        """Temperature 0 gives the same text again."""
        request = Generate(self.prompt, 12, GREEDY, deterministic=exact(engine))
        assert generated(engine, request).text == generated(engine, request).text

    @pytest.mark.parametrize(
        "narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}], ids=lambda each: next(iter(each))
    )
    def test_sampling_settings_are_heeded(self, engine: Engine, narrow: Mapping[str, float]) -> None:
        """What leaves only the likeliest token gives the greedy text; a setting that the engine lacks is refused."""
        greedy = Generate(self.prompt, 8, GREEDY, ignore_eos=True, deterministic=exact(engine))
        wide = Sampling(temperature=1.5, top_p=1.0, top_k=0, min_p=0.0, seed=3 if _seeds(engine) else None)
        request = replace(greedy, sampling=replace(wide, **narrow))  # type: ignore[arg-type]
        try:
            text = generated(engine, request).text
        except Unsupported:
            return
        assert text == generated(engine, greedy).text

    def test_repetition_penalty_is_heeded(self, engine: Engine) -> None:
        """What was written is not written again, where that is made expensive enough."""
        prompt = raw("one two one two one two one two one two one two one two one two one two")
        plain = Generate(prompt, 16, GREEDY, ignore_eos=True)
        try:
            other = generated(engine, replace(plain, sampling=replace(GREEDY, repetition_penalty=1e6)))
        except Unsupported:
            return
        assert other.text != generated(engine, plain).text

    def test_seed(self, engine: Engine) -> None:
        """The same seed gives the same text; some other seed another one."""
        sampling = Sampling(temperature=1.5, top_p=1.0, top_k=0, min_p=0.0, seed=1)
        request = Generate(self.prompt, 16, sampling, ignore_eos=True, deterministic=exact(engine))
        if not _seeds(engine):
            with pytest.raises(Unsupported) as caught:
                answer(engine, request)
            assert caught.value.capability == Capability.SEED
            return
        texts = [
            generated(engine, replace(request, sampling=replace(sampling, seed=seed))).text
            for seed in (0, 0, 1, 2, 2**64 - 1, 2**64 - 1)
        ]
        assert texts[0] == texts[1]
        assert texts[-1] == texts[-2]
        assert len(set(texts)) > 1

    # --- streams ------------------------------------------------------------------------------------------------------

    def test_stream_is_the_text(self, engine: Engine) -> None:
        """Progress of the prompt comes first and ends complete; the deltas are the text."""
        events = drain(engine, {"a": Generate(self.prompt, 8, GREEDY, stream=True)})["a"]
        kinds = [type(event) for event in events if isinstance(event, PromptProgress | TextDelta)]
        assert kinds == sorted(kinds, key=[PromptProgress, TextDelta].index)
        progress = [event for event in events if isinstance(event, PromptProgress)]
        assert progress
        assert [event.done for event in progress] == sorted(event.done for event in progress)
        assert progress[-1].done == progress[-1].total
        deltas = [event.text for event in events if isinstance(event, TextDelta)]
        assert all(deltas)
        assert "".join(deltas) == last(events).text

    def test_stream_comes_while_it_is_written(self, engine: Engine) -> None:
        """A text of many tokens is not kept until it is whole."""
        engine.add_request("a", Generate(self.prompt, 48, GREEDY, stream=True, ignore_eos=True))
        steps = 0
        while engine.busy:
            steps += any(isinstance(event, TextDelta) for event in engine.step(64))
        assert steps > 2

    def test_no_deltas_without_stream(self, engine: Engine) -> None:
        """Deltas are sent to those who asked."""
        events = drain(engine, {"a": Generate(self.prompt, 8, GREEDY)})["a"]
        assert not any(isinstance(event, TextDelta) for event in events)

    def test_stop_string(self, engine: Engine) -> None:
        """The text ends before the stop string, and no part of it is streamed."""
        request = Generate(self.prompt, 16, GREEDY, stream=True, ignore_eos=True, deterministic=exact(engine))
        whole = last(drain(engine, {"a": request})["a"]).text
        assert len(whole) > 6, "the model should write a few characters here"
        stop = whole[3:6]
        events = drain(engine, {"a": replace(request, stop=("never there", stop))})["a"]
        assert last(events).text == streamed(events) == whole[: whole.index(stop)]
        assert last(events).finish_reason == "stop"

    def test_what_may_become_a_stop_string_is_not_lost(self, engine: Engine) -> None:
        """An end of the text that only begins like a stop string is part of it."""
        request = Generate(self.prompt, 16, GREEDY, stream=True, ignore_eos=True, deterministic=exact(engine))
        whole = last(drain(engine, {"a": request})["a"]).text
        events = drain(engine, {"a": replace(request, stop=(whole[-2:] + "\0",))})["a"]
        assert last(events).text == streamed(events) == whole

    # --- characters ---------------------------------------------------------------------------------------------------

    def test_unicode_survives(self, engine: Engine) -> None:
        """Every delta is whole characters; only a text cut by its length may end within one."""
        prompt = raw("naïve 日本語 🦊 日本語 🦊 日本語 🦊 日本語")
        events = drain(engine, {"a": Generate(prompt, 24, GREEDY, stream=True, ignore_eos=True)})["a"]
        for event in events:
            if isinstance(event, TextDelta):
                event.text.encode("utf-8")
        assert "\ufffd" not in streamed(events)[:-1]
        assert streamed(events) == last(events).text

    def test_foreign_characters_are_written_whole(self, engine: Engine) -> None:
        """Characters of two, three and four bytes, which the model is made to write, come out as they are."""
        if Capability.SCHEMA not in engine.capabilities:
            return  # that it is refused is tested with the schemas
        request = Generate(self.prompt, 64, GREEDY, stream=True, grammar=Grammar("choice", choices=(_FOREIGN,)))
        events = drain(engine, {"a": request})["a"]
        deltas = [event.text for event in events if isinstance(event, TextDelta)]
        assert len(deltas) > 2
        assert "".join(deltas) == last(events).text == _FOREIGN

    @pytest.mark.parametrize("text", ["\ud800", "\0", "a\u0301\u200d🏽", "\r\n\t", "\U0010ffff"], ids=ascii)
    def test_odd_characters_do_no_harm(self, engine: Engine, text: str) -> None:
        """Half a character, control characters: answered or refused, and the engine goes on."""
        prompt = Raw((*self.prompt.segments, Segment(text)))
        try:
            generated(engine, Generate(prompt, 3, GREEDY, stop=(text,)))
        except OnDeviceError as error:
            assert error.code != "generation_failed"  # noqa: PT017 - a refusal is as good as an answer
        (count,) = counts(engine, Tokenize(texts=(text,)))
        assert count > 0
        generated(engine, Generate(self.prompt, 2, GREEDY))

    # --- limits -------------------------------------------------------------------------------------------------------

    def test_context_limit(self, engine: Engine) -> None:
        """A prompt that does not fit is refused with both numbers; generation ends where the context does."""
        long = raw("word " * (2 * engine.context_tokens))
        with pytest.raises(InputTooLong) as caught:
            answer(engine, Generate(long, 4, GREEDY))
        assert caught.value.tokens > caught.value.limit == engine.context_tokens - 1
        prompt = prompt_of(engine, engine.context_tokens - 40)
        result = generated(engine, Generate(prompt, 10 * engine.context_tokens, GREEDY, ignore_eos=True))
        assert result.finish_reason == "length"
        assert result.usage.prompt_tokens + result.usage.completion_tokens == engine.context_tokens

    @pytest.mark.parametrize(
        "change",
        [
            {"max_tokens": 0},
            {"sampling": Sampling(temperature=-1.0)},
            {"sampling": Sampling(top_p=0.0)},
            {"sampling": Sampling(temperature=float("nan"))},
        ],
    )
    def test_wrong_settings(self, engine: Engine, change: dict[str, int | Sampling]) -> None:
        """Values without a meaning are configuration errors."""
        request = replace(Generate(self.prompt, 4, GREEDY), **change)  # type: ignore[arg-type]
        event = drain(engine, {"a": request})["a"][-1]
        assert isinstance(event, Failed)
        assert event.error.code == "configuration_error"


def _seeds(engine: Engine) -> bool:
    return Capability.SEED in engine.capabilities
