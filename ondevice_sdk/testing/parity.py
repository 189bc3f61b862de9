"""Whether two backends compute the same model: teacher-forced, token by token.

The reference writes greedily after each prompt. Then both read that text, and at each of its positions two things are
compared: the token that each finds most likely, and how far their distributions are apart. Rounding alone makes some of
the near ties come out differently; a wrong scale, rope base or layer shows in both figures at once.

`ondevice_sdk.testing.contract.parity` puts it into the tests of a plugin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from ondevice_sdk.backends.api import (
    GREEDY,
    Batch,
    Capability,
    Engine,
    Generate,
    ModelRunner,
    Raw,
    Score,
    Scored,
    Segment,
    Tokenize,
    Tokenized,
)
from ondevice_sdk.errors import ConfigurationError, GenerationFailed
from ondevice_sdk.testing import answer, drain

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["PROMPTS", "Parity", "compare"]

PROMPTS: Final = (
    "The quick brown fox jumps over the lazy dog.",
    "The harbour council met on Tuesday to decide about the new ferry. After two hours",
    "Water boils at a lower temperature on a mountain because",
    "Dear Ms Keller,\n\nthank you for your letter of 3 May. I am sorry to tell you that",
    "def fibonacci(n):\n    if n < 2:\n        return n\n",
    "Ingredients: 200 g flour, 3 eggs, half a litre of milk, a pinch of salt.\n\nFirst,",
    "Q: What is the capital of France?\nA:",
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,",
    "Once upon a time there was a lighthouse keeper who",
    "The three main causes of the delay were: 1.",
    '{"name": "Anna", "age": 31, "city": "',
    "In 1969 the first people walked on the moon. Since then",
    "She opened the door slowly. Inside, the room was",
    "To install the program, open a terminal and type",
    "Review: The lamp broke after two days and nobody answers my messages.\nSentiment:",
    "Photosynthesis is the process by which plants",
    "Le chat est sur la table. Les enfants sont dans",
    "Breaking news: heavy rain has closed the bridge between",
    "| city | inhabitants |\n|---|---|\n| Paris |",
    "If all cats are animals and some animals are black, then",
)


@dataclass(frozen=True, slots=True)
class Parity:
    """How near a backend is to the reference.

    Attributes:
        positions: tokens of the reference's text that were compared.
        skipped: tokens that could not be, since the text before them has no single form in tokens; only for engines.
        agreement: share of the positions at which both find the same token most likely.
        divergence: KL(reference || backend) over the whole vocabulary, in nats, the mean of all positions; None where
            the backend gives no logits.
        surprise: by how much the backend finds the reference's text less likely, in nats a token; None where it gives
            neither logits nor scores.
        tokenised_alike: share of the prompts that both split into the same tokens; for engines, into as many.
    """

    positions: int
    skipped: int
    agreement: float
    divergence: float | None
    surprise: float | None
    tokenised_alike: float


@dataclass(slots=True)
class _Sums:
    positions: int = 0
    skipped: int = 0
    agreed: int = 0
    divergence: float = 0.0
    surprise: float = 0.0
    scored: int = 0
    alike: int = 0


def compare(
    reference: ModelRunner, backend: ModelRunner | Engine, prompts: Sequence[str] = PROMPTS, *, tokens: int = 64
) -> Parity:
    """Compare a backend with the reference on the same weights.

    Args:
        reference: gives the text and the logits; its sequence 0 is used.
        backend: sequence 0 of a runner is used; an engine is asked for one token after each beginning of the text.
        prompts: what is gone on with, each on its own.
        tokens: how many are written after each prompt.

    Raises:
        ConfigurationError: the vocabularies differ, or there is nothing to compare.
        GenerationFailed: logits are not finite numbers.
    """
    if not prompts or tokens < 1:
        raise ConfigurationError("parity needs at least one prompt and one token")
    runners = [reference, backend] if isinstance(backend, ModelRunner) else [reference]
    _check_vocabularies(runners)
    rows = min(min(runner.max_batch_tokens, runner.max_logits) for runner in runners)
    sums = _Sums()
    for prompt in prompts:
        forced = _write(reference, prompt, tokens, rows)
        if isinstance(backend, ModelRunner):
            _by_logits(backend, forced, _logs(backend, forced.given, forced.written, rows), sums)
        else:
            _by_text(reference, backend, forced, sums)
    if not sums.positions:
        raise ConfigurationError("no position could be compared")
    return Parity(
        sums.positions,
        sums.skipped,
        sums.agreed / sums.positions,
        sums.divergence / sums.positions if len(runners) > 1 else None,
        sums.surprise / sums.scored if sums.scored else None,
        sums.alike / len(prompts),
    )


@dataclass(frozen=True, slots=True)
class _Forced:
    """What the reference wrote, and its log-probabilities, one row for each token written."""

    prompt: str
    given: list[int]  # the prompt's tokens, with the begin token
    written: list[int]
    logs: NDArray[np.float64]


def _check_vocabularies(runners: Sequence[ModelRunner]) -> None:
    """Runtimes may pad the vocabulary to a round number; all else has to be the same."""
    first, last = runners[0], runners[-1]
    common = min(first.vocabulary, last.vocabulary)
    larger = max(runners, key=lambda runner: runner.vocabulary)
    if any(first.token_bytes(token) != last.token_bytes(token) for token in range(common)) or any(
        larger.token_bytes(token) for token in range(common, larger.vocabulary)
    ):
        raise ConfigurationError(
            f"the models have different vocabularies ({first.vocabulary} and {last.vocabulary} tokens)",
            hint="compare backends on the weights of one model",
        )


def _write(runner: ModelRunner, prompt: str, tokens: int, rows: int) -> _Forced:
    """The greedy text, which goes on where the model wants to end; then it is read as the backend will read it."""
    given = _tokens(runner, prompt)
    ends = sorted(runner.end_tokens)
    written: list[int] = []
    logits = _read(runner, given, len(given) - 1, rows)[0]
    while True:
        logits[ends] = -math.inf
        written.append(int(logits.argmax()))
        if len(written) == tokens:
            break
        position = len(given) + len(written) - 1
        logits = runner.forward(Batch([0], [position], [written[-1]], [True]))[0]
    return _Forced(prompt, given, written, _logs(runner, given, written, rows))


def _logs(runner: ModelRunner, given: list[int], written: list[int], rows: int) -> NDArray[np.float64]:
    """Log-probabilities of the whole vocabulary at each token written."""
    import numpy as np

    logits = _read(runner, given + written[:-1], len(given) - 1, rows).astype(np.float64)
    runner.kv_remove(0, 0, None)
    if not np.isfinite(logits).all():
        raise GenerationFailed("the model gave logits that are not finite numbers")
    logits -= logits.max(axis=1, keepdims=True)
    return cast("NDArray[np.float64]", logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))


def _read(runner: ModelRunner, tokens: Sequence[int], first: int, rows: int) -> NDArray[np.float32]:
    """Logits after each token from the one at `first` on; afterwards the tokens lie in sequence 0."""
    import numpy as np

    runner.kv_remove(0, 0, None)
    found = []
    for start in range(0, len(tokens), rows):
        batch = Batch()
        for position in range(start, min(start + rows, len(tokens))):
            batch.add(0, position, tokens[position], position >= first)
        found.append(np.array(runner.forward(batch), np.float32))  # copied: the next pass may overwrite it
    return np.concatenate(found)


def _by_logits(backend: ModelRunner, forced: _Forced, found: NDArray[np.float64], sums: _Sums) -> None:
    import numpy as np

    common = min(found.shape[1], forced.logs.shape[1])  # what is padded has no share
    expected, found = forced.logs[:, :common], found[:, :common]
    at = np.arange(len(forced.written))
    sums.positions += len(at)
    sums.agreed += int((expected.argmax(axis=1) == found.argmax(axis=1)).sum())
    sums.divergence += float(np.maximum((np.exp(expected) * (expected - found)).sum(axis=1), 0.0).sum())
    sums.surprise += float((expected[at, forced.written] - found[at, forced.written]).sum())
    sums.scored += len(at)
    sums.alike += forced.given == _tokens(backend, forced.prompt)


def _by_text(reference: ModelRunner, engine: Engine, forced: _Forced, sums: _Sums) -> None:
    """Ask for one token after each beginning of the text whose tokens are those of the reference."""
    requests, expected = {}, {}
    likely = forced.logs.copy()  # by the pass over the text, not by the one that wrote it: rounding differs
    likely[:, sorted(reference.end_tokens)] = -math.inf
    for at, token in enumerate(likely.argmax(axis=1).tolist()):
        before, word = _text(reference, forced.written[:at]), _text(reference, [token])
        if (
            not word
            or before is None
            or _tokens(reference, forced.prompt + before) != forced.given + forced.written[:at]
        ):
            sums.skipped += 1
            continue
        requests[str(at)] = Generate(_raw(forced.prompt + before), 1, GREEDY, ignore_eos=True)
        expected[str(at)] = word
    longest = dict([requests.popitem()] if requests else [])  # first, so that the others find it in a prefix cache
    for request_id, events in (drain(engine, longest) | drain(engine, requests)).items():
        sums.positions += 1
        sums.agreed += getattr(getattr(events[-1], "result", None), "text", None) == expected[request_id]
    counted = answer(engine, Tokenize(prompts=(_raw(forced.prompt),)))
    assert isinstance(counted, Tokenized)
    sums.alike += counted.counts[0] == len(forced.given)
    text = _text(reference, forced.written)
    if Capability.SCORE in engine.capabilities and text:
        result = answer(engine, Score(_raw(forced.prompt), (text,)))
        assert isinstance(result, Scored)
        if result.token_counts[0] == len(forced.written):  # else it is cut in another way, which is another sum
            own = sum(float(row[token]) for row, token in zip(forced.logs, forced.written, strict=True))
            sums.surprise += own - result.logprobs[0]
            sums.scored += len(forced.written)


def _tokens(runner: ModelRunner, prompt: str) -> list[int]:
    return ([] if runner.begin_token is None else [runner.begin_token]) + runner.tokenize([Segment(prompt)])


def _text(runner: ModelRunner, tokens: Sequence[int]) -> str | None:
    """What tokens stand for; None if they end, or begin, within a character."""
    try:
        return runner.detokenize(tokens).decode()
    except UnicodeDecodeError:
        return None


def _raw(text: str) -> Raw:
    return Raw((Segment(text),))
