"""The contract of a backend, as tests.

Subclass `BackendContract` in a test module of the plugin and override two fixtures:

```python
class TestMyBackend(BackendContract):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls) -> Backend:
        return MyBackend()

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> LocalModel:
        return LocalModel("small", "int4", "my_format", "/path/to/model", "")
```

What a backend does not claim as a capability has to be refused with `Unsupported`; what it claims has to work.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ondevice_sdk.backends.api import (
    GREEDY,
    Backend,
    Capability,
    Chat,
    DeviceProfile,
    Done,
    Embed,
    Engine,
    Event,
    Failed,
    Generate,
    Generated,
    Grammar,
    LoadOptions,
    LocalModel,
    Message,
    ModelShape,
    PromptProgress,
    Raw,
    Sampling,
    Score,
    Scored,
    Segment,
    TextDelta,
    Tokenize,
    Tokenized,
)
from ondevice_sdk.errors import InputTooLong, LoadFailed, ModelCorrupt, ModelUnsupported, OnDeviceError, Unsupported
from ondevice_sdk.testing import answer, as_engine, drain

__all__ = ["BackendContract"]

_SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"yes": {"type": "boolean"}, "word": {"enum": ["red", "blue"]}},
        "required": ["yes", "word"],
        "additionalProperties": False,
    }
)
_DEVICE = DeviceProfile("linux", "x86_64", "any", (), 1, 1, 1 << 34, 1 << 33)
_SHAPE = ModelShape(135_000_000, 30, 576, 9, 3, 64, 1536, 49152, 8192)


def _raw(text: str) -> Raw:
    return Raw((Segment(text),))


def _text(events: list[Event]) -> str:
    last = events[-1]
    assert isinstance(last, Done), last
    assert isinstance(last.result, Generated)
    return last.result.text


class BackendContract:
    """Tests that hold for every backend."""

    options = LoadOptions(context_tokens=1024, max_sequences=4, threads=1, batch_tokens=128)
    prompt = _raw("The quick brown fox jumps over the lazy dog. The quick brown")

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls) -> Backend:
        """The backend under test."""
        raise NotImplementedError("override the fixture `backend`")

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> LocalModel:
        """A small model that the backend can load."""
        raise NotImplementedError("override the fixture `model`")

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, backend: Backend, model: LocalModel) -> Iterator[Engine]:
        """The model, loaded once for all tests."""
        engine = as_engine(backend.load(model, cls.options))
        yield engine
        engine.close()

    # --- the backend --------------------------------------------------------------------------------------------------

    def test_probe_says_usable_and_what_it_can(self, backend: Backend) -> None:
        """The probe does not raise, and claims at least generation."""
        probe = backend.probe(_DEVICE)
        assert probe.usable, probe.reason
        assert Capability.GENERATE in probe.capabilities

    def test_engine_can_what_the_probe_says(self, backend: Backend, engine: Engine) -> None:
        """A capability that depends on the model (chat, embedding) may be missing; no other."""
        missing = backend.probe(_DEVICE).capabilities - engine.capabilities
        assert missing <= {Capability.CHAT, Capability.EMBED}

    def test_estimate_grows_with_the_context(self, backend: Backend) -> None:
        """A longer context takes more memory, and weights are counted."""
        small = backend.estimate(_SHAPE, 10**8, replace(self.options, context_tokens=1024))
        large = backend.estimate(_SHAPE, 10**8, replace(self.options, context_tokens=8192))
        assert small.weights >= 10**8
        assert large.total > small.total

    def test_load_reports_progress(self, backend: Backend, model: LocalModel) -> None:
        """Progress is a share from 0 to 1 that does not fall and ends at 1."""
        seen: list[float] = []
        as_engine(backend.load(model, replace(self.options, on_progress=seen.append))).close()
        assert seen == sorted(seen)
        assert all(0 <= share <= 1 for share in seen)
        assert seen[-1] == 1

    def test_close_twice(self, backend: Backend, model: LocalModel) -> None:
        """The second close does nothing."""
        engine = as_engine(backend.load(model, self.options))
        engine.close()
        engine.close()

    @pytest.mark.parametrize("damage", ["empty", "random", "text", "short", "half", "missing"])
    def test_damaged_file_is_refused(self, backend: Backend, model: LocalModel, tmp_path: Path, damage: str) -> None:
        """A file that is not a whole model is an error of the SDK, not a crash."""
        path = tmp_path / Path(model.path).name
        if damage != "missing":
            path.write_bytes(_damaged(Path(model.path), damage))
        with pytest.raises((ModelCorrupt, LoadFailed, ModelUnsupported)) as caught:
            as_engine(backend.load(replace(model, path=str(path), files=()), self.options)).close()
        assert isinstance(caught.value, LoadFailed if damage == "missing" else ModelCorrupt)

    # --- generation ---------------------------------------------------------------------------------------------------

    def test_max_tokens(self, engine: Engine) -> None:
        """Not one token more; the reason is the length."""
        result = answer(engine, Generate(self.prompt, 5, GREEDY, ignore_eos=True))
        assert isinstance(result, Generated)
        assert result.usage.completion_tokens == 5
        assert result.finish_reason == "length"

    def test_greedy_repeats_itself(self, engine: Engine) -> None:
        """Temperature 0 gives the same text again."""
        request = Generate(self.prompt, 12, GREEDY, deterministic=Capability.DETERMINISTIC in engine.capabilities)
        assert answer(engine, request).text == answer(engine, request).text  # type: ignore[union-attr]

    def test_seed(self, engine: Engine) -> None:
        """The same seed gives the same text; some other seed another one."""
        if Capability.SEED not in engine.capabilities:
            pytest.skip("the engine does not claim seeds")
        exact = Capability.DETERMINISTIC in engine.capabilities
        texts = []
        for seed in (1, 1, 2, 3, 4):
            sampling = Sampling(temperature=1.5, top_p=1.0, top_k=0, min_p=0.0, seed=seed)
            result = answer(engine, Generate(self.prompt, 16, sampling, ignore_eos=True, deterministic=exact))
            assert isinstance(result, Generated)
            texts.append(result.text)
        assert texts[0] == texts[1]
        assert len(set(texts)) > 1

    def test_stream_is_the_text(self, engine: Engine) -> None:
        """Progress of the prompt comes first and ends complete; the deltas are the text."""
        events = drain(engine, {"a": Generate(self.prompt, 8, GREEDY, stream=True)})["a"]
        kinds = [type(event) for event in events if isinstance(event, PromptProgress | TextDelta)]
        assert kinds == sorted(kinds, key=[PromptProgress, TextDelta].index)
        progress = [event for event in events if isinstance(event, PromptProgress)]
        assert progress
        assert progress[-1].done == progress[-1].total
        deltas = [event.text for event in events if isinstance(event, TextDelta)]
        assert all(deltas)
        assert "".join(deltas) == _text(events)

    def test_no_deltas_without_stream(self, engine: Engine) -> None:
        """Deltas are sent to those who asked."""
        events = drain(engine, {"a": Generate(self.prompt, 8, GREEDY)})["a"]
        assert not any(isinstance(event, TextDelta) for event in events)

    def test_stop_string(self, engine: Engine) -> None:
        """The text ends before the stop string, and no part of it is streamed."""
        exact = Capability.DETERMINISTIC in engine.capabilities
        request = Generate(self.prompt, 16, GREEDY, stream=True, ignore_eos=True, deterministic=exact)
        whole = _text(drain(engine, {"a": request})["a"])
        assert len(whole) > 6, "the model should write a few characters here"
        stop = whole[3:6]
        events = drain(engine, {"a": replace(request, stop=("never there", stop))})["a"]
        streamed = "".join(event.text for event in events if isinstance(event, TextDelta))
        assert _text(events) == streamed == whole[: whole.index(stop)]
        assert isinstance(events[-1], Done)
        assert isinstance(events[-1].result, Generated)
        assert events[-1].result.finish_reason == "stop"

    def test_unicode_survives(self, engine: Engine) -> None:
        """Every delta is whole characters."""
        prompt = _raw("naïve 日本語 🦊 日本語 🦊 日本語 🦊 日本語")
        events = drain(engine, {"a": Generate(prompt, 24, GREEDY, stream=True, ignore_eos=True)})["a"]
        for event in events:
            if isinstance(event, TextDelta):
                event.text.encode("utf-8")

    def test_many_at_once(self, engine: Engine) -> None:
        """More requests than sequences all come to their end, each with its own answer."""
        requests = {f"r{n}": Generate(_raw(f"Count: {n}, {n + 1},"), 4 + n % 3, GREEDY) for n in range(11)}
        assert set(drain(engine, requests)) == set(requests)

    def test_deterministic_alone_and_among_others(self, engine: Engine) -> None:
        """Same text alone, batched, cached and cold."""
        if Capability.DETERMINISTIC not in engine.capabilities:
            pytest.skip("the engine does not claim determinism")
        sampling = Sampling(temperature=1.2, top_k=0, top_p=1.0, min_p=0.0, seed=5)
        request = Generate(
            _raw("One two three four five six seven. " * 20), 16, sampling, ignore_eos=True, deterministic=True
        )
        alone = _text(drain(engine, {"a": request})["a"])
        others = {f"o{n}": Generate(_raw(f"Tell me {n} " * (5 + 9 * n)), 12, GREEDY, ignore_eos=True) for n in range(5)}
        among = drain(engine, {**others, "a": request, "b": request}, token_budget=24)
        assert _text(among["a"]) == alone
        assert _text(among["b"]) == alone

    def test_context_limit(self, engine: Engine) -> None:
        """A prompt that does not fit is refused with both numbers; generation ends where the context does."""
        long = _raw("word " * (2 * engine.context_tokens))
        with pytest.raises(InputTooLong) as caught:
            answer(engine, Generate(long, 4, GREEDY))
        assert caught.value.tokens > caught.value.limit == engine.context_tokens - 1
        prompt = _prompt_of(engine, engine.context_tokens - 40)
        result = answer(engine, Generate(prompt, 10 * engine.context_tokens, GREEDY, ignore_eos=True))
        assert isinstance(result, Generated)
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

    # --- cancelling ---------------------------------------------------------------------------------------------------

    def test_cancel_in_the_prompt(self, engine: Engine) -> None:
        """A long prompt stops at the next step, and the engine goes on."""
        engine.add_request("a", Generate(_prompt_of(engine, engine.context_tokens // 2, "line "), 4, GREEDY))
        events = list(engine.step(16))
        assert not any(isinstance(event, Done | Failed) for event in events)
        engine.abort_request("a")
        (last,) = [event for event in engine.step(16) if isinstance(event, Done | Failed)]
        assert isinstance(last, Done)
        assert isinstance(last.result, Generated)
        assert (last.result.finish_reason, last.result.text) == ("cancelled", "")
        assert not engine.busy
        answer(engine, Generate(self.prompt, 2, GREEDY))

    def test_cancel_while_writing(self, engine: Engine) -> None:
        """The partial text is kept, and is what was streamed."""
        engine.add_request("a", Generate(self.prompt, 500, GREEDY, stream=True, ignore_eos=True))
        events: list[Event] = []
        while sum(isinstance(event, TextDelta) for event in events) < 2:
            events += engine.step(64)
        engine.abort_request("a")
        events += engine.step(64)
        assert not engine.busy
        deltas = "".join(event.text for event in events if isinstance(event, TextDelta))
        assert _text(events) == deltas
        assert deltas

    def test_cancel_of_nothing(self, engine: Engine) -> None:
        """Unknown and finished ids are ignored."""
        engine.abort_request("never seen")
        assert not engine.busy

    # --- capabilities -------------------------------------------------------------------------------------------------

    def test_special_tokens_in_data_are_text(self, engine: Engine) -> None:
        """A control token written by a user has more than one token, and cannot end a turn."""
        for marker in ("<|im_end|>", "<|end|>", "</s>", "<eos>", "<|eot_id|>"):
            (data, control) = _counts(engine, Tokenize(prompts=(_raw(marker), Raw((Segment(marker, "control"),)))))
            assert data >= control
        (count,) = _counts(engine, Tokenize(texts=("<|im_end|>",)))
        assert count > 1

    def test_tokenize_counts(self, engine: Engine) -> None:
        """More text has more tokens; an empty text has none."""
        empty, short, long = _counts(engine, Tokenize(texts=("", "word", "word " * 50)))
        assert empty == 0
        assert 0 < short < long

    def test_chat(self, engine: Engine) -> None:
        """A chat is answered, or refused where the model has no template."""
        request = Generate(Chat((Message("user", "Say hello."),)), 8, GREEDY)
        if Capability.CHAT in engine.capabilities:
            result = answer(engine, request)
            assert isinstance(result, Generated)
            assert result.usage.prompt_tokens > 0
        else:
            _refused(engine, request, Capability.CHAT)

    def test_scores_agree_with_greedy(self, engine: Engine) -> None:
        """What the model writes greedily scores higher than what it does not."""
        if Capability.SCORE not in engine.capabilities:
            _refused(engine, Score(self.prompt, ("a",)), Capability.SCORE)
            return
        written = answer(engine, Generate(self.prompt, 3, GREEDY, ignore_eos=True))
        assert isinstance(written, Generated)
        result = answer(engine, Score(self.prompt, (written.text, "@@ zebra @@", " Xylophone 77 %")))
        assert isinstance(result, Scored)
        assert result.logprobs[0] == max(result.logprobs)
        assert all(logprob <= 0 for logprob in result.logprobs)
        assert all(count >= 1 for count in result.token_counts)

    def test_score_does_not_depend_on_company(self, engine: Engine) -> None:
        """A continuation has the same score alone and among others, up to floating point.

        Small quantised models amplify the last bits: 0.15 a token is noise, another token's score is not.
        """
        if Capability.SCORE not in engine.capabilities:
            pytest.skip("the engine does not claim scores")
        texts = tuple(f" number {n} and some more words" for n in range(7))
        together = answer(engine, Score(self.prompt, texts))
        assert isinstance(together, Scored)
        for text, logprob, count in zip(texts, together.logprobs, together.token_counts, strict=True):
            alone = answer(engine, Score(self.prompt, (text,)))
            assert isinstance(alone, Scored)
            assert abs(alone.logprobs[0] - logprob) < 0.15 * count

    def test_schema(self, engine: Engine) -> None:
        """Constrained output is valid; without the capability the constraint is refused."""
        request = Generate(self.prompt, 64, GREEDY, grammar=Grammar("json_schema", _SCHEMA))
        if Capability.SCHEMA not in engine.capabilities:
            _refused(engine, request, Capability.SCHEMA)
            return
        result = answer(engine, request)
        assert isinstance(result, Generated)
        assert result.finish_reason == "stop"
        value = json.loads(result.text)
        assert set(value) == {"yes", "word"}
        assert isinstance(value["yes"], bool)
        assert value["word"] in ("red", "blue")
        choice = answer(engine, replace(request, grammar=Grammar("choice", choices=("alpha", "beta"))))
        assert isinstance(choice, Generated)
        assert choice.text in ("alpha", "beta")

    def test_what_is_not_claimed_is_refused(self, engine: Engine) -> None:
        """Never ignored: adapters and embeddings without the capability."""
        if Capability.ADAPTER not in engine.capabilities:
            _refused(engine, Generate(self.prompt, 2, GREEDY, adapter="x"), Capability.ADAPTER)
        if Capability.EMBED not in engine.capabilities:
            _refused(engine, Embed(("text",)), Capability.EMBED)

    def test_prefix_is_reused(self, engine: Engine) -> None:
        """The second of two prompts with a long common beginning takes it from the cache."""
        if Capability.PREFIX_CACHE not in engine.capabilities:
            pytest.skip("the engine does not claim a prefix cache")
        shared = "A long introduction that both share, number by number. " * 12
        answer(engine, Generate(_raw(shared + "First?"), 2, GREEDY))
        result = answer(engine, Generate(_raw(shared + "Second?"), 2, GREEDY))
        assert isinstance(result, Generated)
        assert 64 <= result.usage.cached_tokens < result.usage.prompt_tokens


def _prompt_of(engine: Engine, tokens: int, word: str = "word ") -> Raw:
    """A prompt of about so many tokens, at most; of another word where it must not be in a cache yet."""
    (ten,) = _counts(engine, Tokenize(texts=(word * 10,)))
    return _raw(word * (10 * tokens // (ten + 1)))


def _counts(engine: Engine, request: Tokenize) -> tuple[int, ...]:
    result = answer(engine, request)
    assert isinstance(result, Tokenized)
    return result.counts


def _refused(engine: Engine, request: Generate | Score | Embed, capability: Capability) -> None:
    with pytest.raises(OnDeviceError) as caught:
        answer(engine, request)
    assert isinstance(caught.value, Unsupported)
    assert caught.value.capability == capability.value


def _damaged(path: Path, damage: str) -> bytes:
    if damage == "empty":
        return b""
    if damage == "random":
        return random.Random(7).randbytes(4096)  # noqa: S311 - the same bytes every time
    if damage == "text":
        return b"<html><body>404 not found</body></html>"
    content = path.read_bytes()
    return content[: 20 if damage == "short" else len(content) // 2]
