from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ondevice_sdk.backends.api import Sampling
from ondevice_sdk.engine.sampling import Sampler, check_sampling, log_sum_exp
from ondevice_sdk.errors import ConfigurationError, GenerationFailed

OFF = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}


def logits_of(size: int, seed: int = 0) -> NDArray[np.float32]:
    return (3 * np.random.default_rng(seed).standard_normal(size)).astype(np.float32)


def sampler(**change: Any) -> Sampler:
    return Sampler(Sampling(**{**OFF, "seed": 1, **change}))


def support_of(logits: NDArray[np.float32], draws: int, **change: Any) -> set[int]:
    drawn = sampler(**change)
    return {drawn.pick(logits.copy()) for _ in range(draws)}


def reference(logits: NDArray[np.float32], options: Sampling) -> dict[int, float]:
    """The definition, with full sorts."""
    order = sorted(range(len(logits)), key=lambda token: (-float(logits[token]), token))
    if options.top_k:
        order = order[: options.top_k]
    weights = np.exp(logits[order].astype(np.float64))
    keep, mass = 0, 0.0
    while keep < len(order) and (options.top_p == 1 or mass < options.top_p):
        mass += weights[keep] / weights.sum()
        keep += 1
    order = [token for token in order[:keep] if logits[token] >= logits[order[0]] + math.log(options.min_p or 1e-300)]
    weights = np.exp(logits[order].astype(np.float64) / options.temperature)
    return dict(zip(order, (weights / weights.sum()).tolist(), strict=True))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"temperature": 0.5},
        {"top_k": 5},
        {"top_p": 0.7},
        {"min_p": 0.2},
        {"top_k": 40, "top_p": 0.9, "min_p": 0.05, "temperature": 1.3},
    ],
)
@pytest.mark.parametrize("size", [50, 2000])
def test_draws_follow_the_definition(change: dict[str, float], size: int) -> None:
    logits = logits_of(size)
    options = Sampling(**{**OFF, "seed": 3, **change})  # type: ignore[arg-type]
    wanted = reference(logits, options)
    drawing, draws = Sampler(options), 4000
    counts = np.zeros(size)
    for _ in range(draws):
        counts[drawing.pick(logits)] += 1
    assert set(np.flatnonzero(counts).tolist()) <= set(wanted)
    for token, probability in wanted.items():
        spread = 5 * math.sqrt(draws * probability * (1 - probability)) + 1
        assert abs(counts[token] - draws * probability) <= spread


@given(st.integers(1, 60), st.integers(1, 6000), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_top_k_keeps_the_k_largest(top_k: int, size: int, seed: int) -> None:
    logits = (np.random.default_rng(seed).integers(0, 30, size) / 8).astype(np.float32)
    options = Sampling(**{**OFF, "top_k": top_k, "temperature": 50.0, "seed": seed})  # type: ignore[arg-type]
    allowed = set(reference(logits, options))
    assert len(allowed) == min(top_k, size)
    drawing = Sampler(options)
    assert {drawing.pick(logits) for _ in range(100)} <= allowed


def test_greedy_is_the_maximum() -> None:
    logits = logits_of(49152)
    assert sampler(temperature=0.0).pick(logits) == int(logits.argmax())
    assert sampler(top_k=1).pick(logits) == int(logits.argmax())


def test_seed_repeats() -> None:
    logits = logits_of(1000)
    one, two, other = sampler(seed=9), sampler(seed=9), sampler(seed=10)
    drawn = [one.pick(logits) for _ in range(30)]
    assert drawn == [two.pick(logits) for _ in range(30)]
    assert drawn != [other.pick(logits) for _ in range(30)]


def test_without_seed_draws_differ() -> None:
    logits = np.zeros(5000, np.float32)
    first, second = sampler(seed=None), sampler(seed=None)
    assert [first.pick(logits) for _ in range(20)] != [second.pick(logits) for _ in range(20)]


def test_penalty_counts_generated_tokens_only() -> None:
    logits = np.array([2.0, 1.9, -1.0], np.float32)
    picking = sampler(temperature=0.0, repetition_penalty=1.5)
    assert picking.pick(logits.copy()) == 0
    picking.accept(0)
    assert picking.pick(logits.copy()) == 1
    picking.accept(1)
    assert picking.pick(logits.copy()) == 0


def test_excluded_tokens_are_never_drawn() -> None:
    logits = np.full(300, -np.inf, np.float32)
    logits[[3, 200]] = 0.0
    assert support_of(logits, 60) == support_of(logits, 60, top_k=40, top_p=0.95) == {3, 200}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_numbers(value: float) -> None:
    logits = logits_of(100)
    logits[50] = value
    for temperature in (0.0, 1.0):
        with pytest.raises(GenerationFailed):
            sampler(temperature=temperature).pick(logits.copy())


def test_nothing_allowed() -> None:
    with pytest.raises(GenerationFailed):
        sampler().pick(np.full(10, -np.inf, np.float32))


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": -0.1},
        {"temperature": math.inf},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"min_p": -0.1},
        {"min_p": 1.5},
        {"repetition_penalty": 0.0},
        {"seed": -1},
        {"seed": 2**64},
    ],
)
def test_values_without_meaning(change: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        check_sampling(Sampling(**change))  # type: ignore[arg-type]


def test_log_sum_exp() -> None:
    assert log_sum_exp(np.array([1000.0, 1000.0], np.float32)) == pytest.approx(1000 + math.log(2))
    with pytest.raises(GenerationFailed):
        log_sum_exp(np.array([math.nan], np.float32))
