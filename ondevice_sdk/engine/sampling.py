"""Choosing the next token from logits."""

from __future__ import annotations

import math
import secrets

import numpy as np
from numpy.typing import NDArray

from ondevice_sdk.backends.api import Sampling
from ondevice_sdk.errors import ConfigurationError, GenerationFailed

_BLOCK = 128  # logits whose maximum is looked at in the search for a threshold


def check_sampling(sampling: Sampling) -> None:
    """Refuse values without a meaning.

    Raises:
        ConfigurationError: naming the parameter.
    """
    finite = all(
        math.isfinite(value)
        for value in (sampling.temperature, sampling.top_p, sampling.min_p, sampling.repetition_penalty)
    )
    if not finite:
        raise ConfigurationError("sampling parameters must be finite numbers")
    if sampling.temperature < 0:
        raise ConfigurationError("temperature must not be negative")
    if not 0 < sampling.top_p <= 1:
        raise ConfigurationError("top_p must be above 0 and at most 1")
    if sampling.top_k < 0:
        raise ConfigurationError("top_k must not be negative; 0 switches it off")
    if not 0 <= sampling.min_p <= 1:
        raise ConfigurationError("min_p must be from 0 to 1")
    if sampling.repetition_penalty <= 0:
        raise ConfigurationError("repetition_penalty must be above 0; 1 switches it off")
    if sampling.seed is not None and not 0 <= sampling.seed < 2**64:
        raise ConfigurationError("seed must be from 0 to 2**64 - 1")


class Sampler:
    """Draws the tokens of one request; the same seed and logits give the same tokens.

    Repetition penalty (Keskar et al. 2019, https://arxiv.org/abs/1909.05858; on the tokens generated so far in this
    request, not on the prompt), then top-k, top-p (Holtzman et al. 2020, https://arxiv.org/abs/1904.09751), min-p
    (Nguyen et al. 2024, https://arxiv.org/abs/2407.01082), each renormalising what the one before kept, then
    temperature.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._options = sampling
        self._seen: dict[int, None] = {}
        seed = secrets.randbits(64) if sampling.seed is None else sampling.seed
        self._random = np.random.Generator(np.random.PCG64(seed))

    def accept(self, token: int) -> None:
        """Take note of a generated token."""
        if self._options.repetition_penalty != 1.0:
            self._seen[token] = None

    @property
    def greedy(self) -> bool:
        """Whether it always takes the largest logit."""
        return self._options.temperature == 0 or self._options.top_k == 1

    def pick(self, logits: NDArray[np.float32]) -> int:
        """`penalise`, then `draw`."""
        self.penalise(logits)
        return self.draw(logits)

    def penalise(self, logits: NDArray[np.float32]) -> None:
        """Lower the logits of tokens that were generated before, in place; once for every token to be drawn."""
        if not self._seen:
            return
        seen = np.fromiter(self._seen, np.intp, len(self._seen))
        penalty = np.float32(self._options.repetition_penalty)
        values = logits[seen]
        logits[seen] = np.where(values > 0, values / penalty, values * penalty)

    def draw(self, logits: NDArray[np.float32]) -> int:
        """The next token; `-inf` excludes a token.

        Raises:
            GenerationFailed: the logits are not numbers, or exclude every token.
        """
        best = int(np.argmax(logits))  # a NaN counts as the largest
        if not math.isfinite(logits[best]):
            raise GenerationFailed("the model gave logits that are not numbers")
        options = self._options
        if self.greedy:
            return best
        tokens, values = self._kept(logits, float(logits[best]))
        if options.min_p > 0:
            likely = values >= math.log(options.min_p)
            tokens, values = tokens[likely], values[likely]
        mass = np.cumsum(np.exp(values / options.temperature))
        drawn = int(np.searchsorted(mass, self._random.random() * mass[-1], side="right"))
        return int(tokens[min(drawn, len(tokens) - 1)])

    def _kept(self, logits: NDArray[np.float32], top: float) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """What top-k and top-p keep: tokens, and their logits less the highest. Never sorts the whole vocabulary."""
        options = self._options
        limited, nucleus = 0 < options.top_k < len(logits), options.top_p < 1
        total = 0.0
        threshold = -math.inf
        if limited:
            threshold = _below_kth(logits, options.top_k)
        elif nucleus:
            # Tokens of less than (1 - top_p) / n lie outside the nucleus: together they have less than 1 - top_p.
            total = float(np.exp(logits.astype(np.float64) - top).sum())
            threshold = top + math.log((1 - options.top_p) * total / len(logits)) - 1e-3
        tokens = np.flatnonzero((logits >= threshold) & (logits > -np.inf))
        values = logits[tokens].astype(np.float64) - top
        if limited or nucleus:
            order = np.lexsort((tokens, -values))
            if limited:
                order = order[: options.top_k]
            tokens, values = tokens[order], values[order]
        if nucleus:
            mass = np.cumsum(np.exp(values))
            keep = int(np.searchsorted(mass, options.top_p * (total or mass[-1]))) + 1
            tokens, values = tokens[:keep], values[:keep]
        return tokens, values


def _below_kth(logits: NDArray[np.float32], k: int) -> float:
    """A value that at least k logits reach, near the k-th largest: the k-th largest of the maxima of small blocks."""
    blocks = len(logits) // _BLOCK
    if blocks < 2 * k:
        return float(np.partition(logits, len(logits) - k)[len(logits) - k])
    maxima = logits[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)
    return float(np.partition(maxima, blocks - k)[blocks - k])


def log_sum_exp(logits: NDArray[np.float32]) -> float:
    """Natural logarithm of the sum of exponentials, in double precision.

    Raises:
        GenerationFailed: the logits are not numbers.
    """
    values = logits.astype(np.float64)
    top = float(values.max())
    if not math.isfinite(top):
        raise GenerationFailed("the model gave logits that are not numbers")
    return top + math.log(float(np.exp(values - top).sum()))
