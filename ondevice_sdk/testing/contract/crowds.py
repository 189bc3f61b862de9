"""Many requests at once: each gets its own right answer."""

from __future__ import annotations

from dataclasses import replace

from ondevice_sdk.backends.api import (
    GREEDY,
    Capability,
    Engine,
    Event,
    Generate,
    Raw,
    Sampling,
    Score,
    Scored,
    Tokenize,
    Tokenized,
)
from ondevice_sdk.testing import drain
from ondevice_sdk.testing.contract.base import ContractBase, exact, generated, last, raw, scored
from ondevice_sdk.testing.contract.guard import part

# Small quantised models amplify the last bits of a sum: so much a token is noise, another token's score is not.
NOISE = 0.15


@part()
class Crowds(ContractBase):
    """Batches and queues."""

    def test_many_at_once(self, engine: Engine) -> None:
        """More requests than sequences: every answer is as when alone, up to floating point.

        Where two tokens are as likely as each other the last bits decide, and what follows is another text: then it has
        to be as likely for its own prompt as the one that was written alone.
        """
        requests = {f"r{n}": Generate(_series(n), 6 + n % 3, GREEDY, ignore_eos=True, stream=True) for n in range(11)}
        alone = {name: generated(engine, request).text for name, request in requests.items()}
        engine.forget()
        together = drain(engine, requests)
        for name, request in requests.items():
            end = last(together[name])
            assert end.usage.completion_tokens == request.max_tokens
            if end.text != alone[name]:
                _assert_as_likely(engine, request, end.text, alone[name])

    def test_many_at_once_exactly(self, engine: Engine) -> None:
        """With determinism every answer is the same, byte by byte."""
        if not exact(engine):
            return  # that it is refused is tested with the capabilities
        requests = {f"r{n}": Generate(_series(n), 5, GREEDY, ignore_eos=True, deterministic=True) for n in range(7)}
        alone = {name: generated(engine, request).text for name, request in requests.items()}
        together = {name: last(events).text for name, events in drain(engine, requests).items()}
        assert together == alone

    def test_deterministic_alone_and_among_others(self, engine: Engine) -> None:
        """Same text alone, batched, cached and cold."""
        if not exact(engine):
            return  # see above
        sampling = Sampling(temperature=1.2, top_k=0, top_p=1.0, min_p=0.0, seed=5)
        prompt = raw("One two three four five six seven. " * 20)
        request = Generate(prompt, 16, sampling, ignore_eos=True, deterministic=True)
        alone = generated(engine, request).text
        others = {f"o{n}": Generate(raw(f"Tell me {n} " * (5 + 9 * n)), 12, GREEDY, ignore_eos=True) for n in range(5)}
        among = drain(engine, {**others, "a": request, "b": request}, token_budget=24)
        assert last(among["a"]).text == alone
        assert last(among["b"]).text == alone
        engine.forget()
        assert generated(engine, request).text == alone

    def test_kinds_of_requests_mix(self, engine: Engine) -> None:
        """What writes, what is scored and what is only counted run side by side."""
        requests: dict[str, Generate | Score | Tokenize] = {
            "write": Generate(self.prompt, 8, GREEDY, ignore_eos=True),
            "count": Tokenize(texts=("some words", "")),
            "write more": Generate(_series(3), 8, replace(GREEDY, temperature=0.5), ignore_eos=True),
        }
        if Capability.SCORE in engine.capabilities:
            requests["score"] = Score(self.prompt, (" fox", " xylophone", " one two three four"))
        ends: dict[str, list[Event]] = drain(engine, requests)
        assert last(ends["write"]).usage.completion_tokens == last(ends["write more"]).usage.completion_tokens == 8
        assert isinstance(getattr(ends["count"][-1], "result", None), Tokenized)
        if "score" in requests:
            result = getattr(ends["score"][-1], "result", None)
            assert isinstance(result, Scored)
            assert result.logprobs[0] > result.logprobs[1]

    def test_score_does_not_depend_on_company(self, engine: Engine) -> None:
        """A continuation has the same score alone and among others, up to floating point."""
        if Capability.SCORE not in engine.capabilities:
            return  # that it is refused is tested with the scores
        texts = tuple(f" number {n} and some more words" for n in range(7))
        together = scored(engine, self.prompt, *texts)
        for text, logprob, count in zip(texts, together.logprobs, together.token_counts, strict=True):
            assert abs(scored(engine, self.prompt, text).logprobs[0] - logprob) < NOISE * count


def _series(number: int) -> Raw:
    """A prompt whose continuation is plain, and another one for each number."""
    words = f"{number} {number + 1} {number + 2} "
    return raw("Again: " + words * 5)


def _assert_as_likely(engine: Engine, request: Generate, text: str, expected: str) -> None:
    assert Capability.SCORE in engine.capabilities, "another text than alone, and no score that could explain it"
    assert isinstance(request.prompt, Raw)
    one, other = scored(engine, request.prompt, text, expected).logprobs
    assert abs(one - other) < NOISE * request.max_tokens, "another text than alone, and not as likely"
