"""The arithmetic, on runners whose logits are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from ondevice_sdk.backends.api import Batch, ModelRunner, Segment
from ondevice_sdk.errors import ConfigurationError, GenerationFailed
from ondevice_sdk.quantise.logits import check_vocabularies, scored, split, window_sums, working_bytes

LN2 = math.log(2)
SOURCE = (1 / 2, 1 / 4, 1 / 8, 1 / 8)


class Known(ModelRunner):
    """Gives the same distribution at every position, or one row for each, and writes down what it was asked."""

    context_tokens = cache_tokens = 1024
    max_sequences = 1
    end_tokens = frozenset[int]()

    def __init__(
        self, *rows: Sequence[float], batch: int = 512, logits: int = 64, shift: float = 0.0, words: bytes = b"abcd"
    ) -> None:
        self.rows = np.array(rows, np.float64)
        self.vocabulary = self.rows.shape[1]
        self.max_batch_tokens, self.max_logits = batch, logits
        self.shift = shift
        self.words = words
        self.cached: list[int] = []
        self.wanted: list[int] = []

    def tokenize(self, segments: Sequence[Segment]) -> list[int]:
        assert all(segment.kind == "data" for segment in segments)
        return [self.words.index(byte) for segment in segments for byte in segment.text.encode()]

    def token_bytes(self, token: int) -> bytes:
        return self.words[token : token + 1]

    def forward(self, batch: Batch) -> NDArray[np.float32]:
        assert len(batch) <= self.max_batch_tokens
        assert sum(batch.logits) <= self.max_logits
        assert batch.positions == list(range(len(self.cached), len(self.cached) + len(batch)))
        self.cached += batch.tokens
        wanted = [at for at, logits in zip(batch.positions, batch.logits, strict=True) if logits]
        self.wanted += wanted
        with np.errstate(divide="ignore"):
            logs = np.log(self.rows[[at % len(self.rows) for at in wanted]])
        return (logs.reshape(-1, self.vocabulary) + self.shift).astype(np.float32)

    def kv_copy(self, source: int, target: int, start: int, end: int) -> None:
        raise AssertionError

    def kv_remove(self, sequence: int, start: int, end: int | None) -> None:
        assert (sequence, start, end) == (0, 0, None)
        self.cached.clear()

    def close(self) -> None: ...


def test_likelihood_divergence_and_agreement_by_hand() -> None:
    tokens = [0, 1, 2, 3, 0, 1, 2, 3]  # the tokens 1, 2 and 3 are scored: those at positions 5, 6 and 7
    sums = window_sums(Known((1 / 8, 1 / 2, 1 / 4, 1 / 8)), Known(SOURCE), tokens)
    assert sums.tokens == scored(8) == 3
    assert sums.nll == pytest.approx((1 + 2 + 3) * LN2)
    assert sums.source_nll == pytest.approx((2 + 3 + 3) * LN2)
    # 1/2 log 4 + 1/4 log 1/2 + 1/8 log 1/2 + 1/8 log 1, three times
    assert sums.kl == pytest.approx(3 * 0.625 * LN2)
    assert sums.agreed == 0


def test_a_model_beside_itself() -> None:
    sums = window_sums(Known(SOURCE), Known(SOURCE), [3] * 32)
    assert sums.kl == 0
    assert sums.agreed == sums.tokens == 15
    assert sums.nll == sums.source_nll


def test_without_a_source() -> None:
    sums = window_sums(Known(SOURCE), None, [2] * 9)
    assert (sums.source_nll, sums.kl, sums.agreed) == (0, 0, 0)
    assert sums.nll == pytest.approx(sums.tokens * 3 * LN2)


def test_logits_of_any_size_overflow_nothing() -> None:
    near, far = Known(SOURCE), Known(SOURCE, shift=50_000.0)
    sums = window_sums(far, near, [1] * 8)
    assert sums.nll == pytest.approx(sums.source_nll, abs=0.02)  # single precision is that coarse up there
    assert sums.kl < 1e-4


@pytest.mark.parametrize(("batch", "logits"), [(512, 64), (64, 64), (7, 3), (5, 64), (1, 1)])
def test_rows_asked_for_within_the_limits(batch: int, logits: int) -> None:
    rows = np.random.default_rng(1).dirichlet(np.ones(4), 50)
    tokens = [int(token) for token in np.random.default_rng(2).integers(0, 4, 50)]
    model = Known(*rows, batch=batch, logits=logits)
    sums = window_sums(model, Known(*rows), tokens)
    assert model.wanted == list(range(25, 49))
    assert model.cached == []
    assert sums.nll == pytest.approx(-sum(math.log(rows[at][tokens[at + 1]]) for at in range(25, 49)), rel=1e-6)
    assert sums.kl == pytest.approx(0, abs=1e-9)
    assert sums.tokens == 24


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0])  # of a probability 0 the logit is -inf
def test_logits_that_are_not_finite_are_refused(bad: float) -> None:
    broken = [SOURCE] * 7 + [(bad, *SOURCE[1:])]
    window_sums(Known(*broken), None, [0] * 8)  # the last position is only predicted, never asked
    with pytest.raises(GenerationFailed):
        window_sums(Known(*broken), None, [0] * 32)
    with pytest.raises(GenerationFailed):
        window_sums(Known(SOURCE), Known(*broken), [0] * 32)


def test_windows_begin_with_the_begin_token_and_leave_out_the_rest() -> None:
    runner = Known(SOURCE)
    assert split(runner, "abcdabcdab", 10, 4) == [[0, 1, 2, 3], [0, 1, 2, 3]]
    runner.begin_token = 9
    assert split(runner, "abcdabcdab", 8, 4) == [[9, 1, 2, 3], [9, 1, 2, 3]]
    assert len(split(runner, "abcd" * 10, 12, 4)) == 3


def test_a_text_that_is_too_short_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="7 tokens") as caught:
        split(Known(SOURCE), "abcdabc", 100, 4)
    assert "abc" not in str(caught.value)


def test_vocabularies_have_to_be_the_same() -> None:
    check_vocabularies(Known(SOURCE), Known(SOURCE))
    for other in (Known(SOURCE, words=b"abdc"), Known((*SOURCE, 0.5), words=b"abcde")):
        with pytest.raises(ConfigurationError, match="different vocabularies"):
            check_vocabularies(other, Known(SOURCE))


def test_the_arithmetic_needs_little_memory() -> None:
    assert working_bytes(128_256) < 100e6
