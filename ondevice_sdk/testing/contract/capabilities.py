"""Every capability is either kept, or refused by its name; nothing that was asked for is ignored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import pytest

from ondevice_sdk.backends.api import (
    GREEDY,
    Backend,
    Capability,
    Chat,
    Embed,
    Embedded,
    Engine,
    Generate,
    LocalAdapter,
    LocalModel,
    Message,
    Raw,
    Score,
    Scored,
    Segment,
    Tokenize,
)
from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.testing import answer, as_engine, drain
from ondevice_sdk.testing.contract.base import (
    DEVICE,
    ContractBase,
    assert_refused,
    counts,
    exact,
    generated,
    last,
    raw,
    scored,
)
from ondevice_sdk.testing.contract.crowds import NOISE
from ondevice_sdk.testing.contract.guard import part

# Where a claim is tested; a new capability without a test fails the SDK's own tests.
TESTED_BY: Final[Mapping[Capability, str]] = {
    Capability.GENERATE: "test_max_tokens",
    Capability.BATCH: "test_several_run_side_by_side",
    Capability.SCHEMA: "test_schema",
    Capability.SCORE: "test_the_greedy_token_scores_highest",
    Capability.EMBED: "test_embed",
    Capability.PREFIX_CACHE: "test_prefix_is_reused",
    Capability.ADAPTER: "test_adapter",
    Capability.SEED: "test_seed",
    Capability.DETERMINISTIC: "test_deterministic_alone_and_among_others",
    Capability.CHAT: "test_chat",
}

_OTHERS: Final = (" zebra", " 77", "@@", " the", " of", "\n", ".", " Xylophone", " and", "é")


@part()
class Capabilities(ContractBase):
    """What is claimed works; what is not claimed is refused with `Unsupported`."""

    def test_several_run_side_by_side(self, engine: Engine) -> None:
        """Batches: two requests write in the same steps. Without: one at a time, and both come to their end."""
        for name in ("a", "b"):
            engine.add_request(name, Generate(self.prompt, 24, GREEDY, stream=True, ignore_eos=True))
        together = 0
        while engine.busy:
            together += len({event.request_id for event in engine.step(64) if event.kind == "text_delta"}) == 2
        assert (together > 0) == (Capability.BATCH in engine.capabilities)
        assert (engine.max_sequences > 1) == (Capability.BATCH in engine.capabilities)

    def test_determinism_is_kept_or_refused(self, engine: Engine) -> None:
        """Never a best effort under that name."""
        request = Generate(self.prompt, 4, GREEDY, deterministic=True)
        if Capability.DETERMINISTIC in engine.capabilities:
            assert generated(engine, request).text == generated(engine, request).text
        else:
            assert_refused(engine, request, Capability.DETERMINISTIC)

    def test_adapter(self, engine: Engine, adapter: LocalAdapter | None) -> None:
        """An adapter changes what is written, also beside requests without it; one that is not there is an error."""
        plain = Generate(self.prompt, 12, GREEDY, ignore_eos=True, deterministic=exact(engine))
        if Capability.ADAPTER not in engine.capabilities:
            assert_refused(engine, Generate(self.prompt, 2, GREEDY, adapter="x"), Capability.ADAPTER)
            if Capability.SCORE in engine.capabilities:
                assert_refused(engine, Score(self.prompt, ("a",), adapter="x"), Capability.ADAPTER)
            return
        assert adapter is not None, "adapters are claimed and not tested: override the fixture `adapter`"
        adapted = replace(plain, adapter=adapter.name)
        alone = [generated(engine, each).text for each in (plain, adapted)]
        assert alone[0] != alone[1]
        events = drain(engine, {"plain": plain, "adapted": adapted})
        if exact(engine):
            assert [last(events[name]).text for name in ("plain", "adapted")] == alone
        if Capability.SCORE in engine.capabilities:
            scores = [answer(engine, Score(self.prompt, (" red",), adapter=name)) for name in (None, adapter.name)]
            logprobs = [each.logprobs[0] for each in scores if isinstance(each, Scored)]
            assert len(logprobs) == 2
            assert abs(logprobs[0] - logprobs[1]) > NOISE
        with pytest.raises(ConfigurationError):
            answer(engine, Generate(self.prompt, 2, GREEDY, adapter="there is none of this name"))

    def test_embed(self, backend: Backend, engine: Engine, embedding_model: LocalModel | None) -> None:
        """One vector of finite numbers a text; equal texts have equal ones, others do not. Or refused."""
        if Capability.EMBED not in engine.capabilities:
            assert_refused(engine, Embed(("text",)), Capability.EMBED)
        if Capability.EMBED not in backend.probe(DEVICE).capabilities:
            return
        assert Capability.EMBED in engine.capabilities or embedding_model is not None, (
            "embeddings are claimed and not tested: override the fixture `embedding_model`"
        )
        embedder = engine if embedding_model is None else as_engine(backend.load(embedding_model, self.options))
        try:
            assert Capability.EMBED in embedder.capabilities
            result = answer(embedder, Embed(("the first text", "a second one", "the first text")))
            assert isinstance(result, Embedded)
            one, two, three = result.vectors
            assert len(one) == len(two) == len(three) > 1
            assert all(math.isfinite(value) for vector in result.vectors for value in vector)
            assert math.dist(one, three) < 1e-3 < math.dist(one, two)
            assert result.usage.prompt_tokens > 0
        finally:
            if embedder is not engine:
                embedder.close()

    def test_chat(self, engine: Engine) -> None:
        """A chat is answered, or refused where the model has no template."""
        request = Generate(Chat((Message("user", "Say hello."),)), 8, GREEDY)
        if Capability.CHAT in engine.capabilities:
            assert generated(engine, request).usage.prompt_tokens > 0
        else:
            assert_refused(engine, request, Capability.CHAT)

    def test_prefix_is_reused(self, engine: Engine) -> None:
        """The second of two prompts with a long common beginning takes it from the cache, where that is claimed."""
        shared = "A long introduction that both share, number by number. " * 12
        generated(engine, Generate(raw(shared + "First?"), 2, GREEDY))
        usage = generated(engine, Generate(raw(shared + "Second?"), 2, GREEDY)).usage
        least = 64 if Capability.PREFIX_CACHE in engine.capabilities else 0
        assert least <= usage.cached_tokens < usage.prompt_tokens
        assert usage.cached_tokens == 0 or least
        engine.forget()
        assert generated(engine, Generate(raw(shared + "Second?"), 2, GREEDY)).usage.cached_tokens == 0

    # --- tokens -------------------------------------------------------------------------------------------------------

    def test_special_tokens_in_data_are_text(self, engine: Engine) -> None:
        """A control token written by a user has more than one token, and cannot end a turn."""
        for marker in ("<|im_end|>", "<|end|>", "</s>", "<eos>", "<|eot_id|>"):
            (data, control) = counts(engine, Tokenize(prompts=(raw(marker), Raw((Segment(marker, "control"),)))))
            assert data >= control
        (count,) = counts(engine, Tokenize(texts=("<|im_end|>",)))
        assert count > 1

    def test_special_tokens_in_messages_are_text(self, engine: Engine) -> None:
        """Also through a chat template: the marks of the template in a message are so many more tokens."""
        if Capability.CHAT not in engine.capabilities:
            return
        for marker in ("<|im_end|>", "<|end|>", "<|eot_id|>"):
            chats = [Chat((Message("user", text),)) for text in ("word word", f"word{marker} word")]
            (plain, marked) = counts(engine, Tokenize(prompts=tuple(chats)))
            assert marked > plain + 1

    def test_tokenize_counts(self, engine: Engine) -> None:
        """More text has more tokens; an empty text has none."""
        empty, short, long = counts(engine, Tokenize(texts=("", "word", "word " * 50)))
        assert empty == 0
        assert 0 < short < long

    # --- scores -------------------------------------------------------------------------------------------------------

    def test_the_greedy_token_scores_highest(self, engine: Engine) -> None:
        """Teacher-forced: after each beginning of the greedy text its next token has the highest score."""
        if Capability.SCORE not in engine.capabilities:
            assert_refused(engine, Score(self.prompt, ("a",)), Capability.SCORE)
            return
        prompt, total = self.prompt, 0.0
        for _ in range(5):
            token = generated(engine, Generate(prompt, 1, GREEDY, ignore_eos=True)).text
            if not token or "\ufffd" in token:
                break  # a part of a character, which is no text
            result = scored(engine, prompt, token, *_OTHERS)
            assert all(math.isfinite(logprob) and logprob <= 1e-6 for logprob in result.logprobs)
            assert all(count >= 1 for count in result.token_counts)
            if result.token_counts[0] == 1:
                others = [p for p, t in zip(result.logprobs, ("", *_OTHERS), strict=True) if t != token][1:]
                assert result.logprobs[0] >= max(others) - 1e-3
                total += 1
            prompt = raw("".join(segment.text for segment in prompt.segments) + token)
        assert total, "the greedy text has no token that can be scored"

    def test_what_is_written_scores_higher(self, engine: Engine) -> None:
        """What the model writes greedily is likelier than what it does not."""
        if Capability.SCORE not in engine.capabilities:
            return
        written = generated(engine, Generate(self.prompt, 3, GREEDY, ignore_eos=True)).text
        result = scored(engine, self.prompt, written, "@@ zebra @@", " Xylophone 77 %")
        assert result.logprobs[0] == max(result.logprobs)

    def test_a_score_is_the_sum_of_its_tokens(self, engine: Engine) -> None:
        """A continuation of three words scores as each of them after the ones before, up to floating point."""
        if Capability.SCORE not in engine.capabilities:
            return
        words = (" red", " green", " blue")
        whole = scored(engine, self.prompt, "".join(words))
        text = "".join(segment.text for segment in self.prompt.segments)
        total, tokens = 0.0, 0
        for word in words:
            result = scored(engine, raw(text), word)
            total, tokens, text = total + result.logprobs[0], tokens + result.token_counts[0], text + word
        assert tokens == whole.token_counts[0]
        assert abs(total - whole.logprobs[0]) < NOISE * tokens

    def test_probabilities_are_at_most_one(self, engine: Engine) -> None:
        """Continuations of which none begins another share one probability."""
        if Capability.SCORE not in engine.capabilities:
            return
        result = scored(engine, self.prompt, " one", " two", " red", " blue", "x", "\n", ". The", " fox")
        assert sum(map(math.exp, result.logprobs)) <= 1.001

    def test_empty_scores_are_refused(self, engine: Engine) -> None:
        """Nothing, and a continuation of nothing, cannot be scored."""
        if Capability.SCORE not in engine.capabilities:
            return
        for continuations in ((), ("",)):
            with pytest.raises(ConfigurationError):
                answer(engine, Score(self.prompt, continuations))
