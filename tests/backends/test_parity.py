"""The measure itself: nothing differs from itself, and what is wrong shows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ondevice_sdk.backends.api import Backend, Batch, LoadOptions, LocalModel, ModelRunner
from ondevice_sdk.backends.llama_cpp import LlamaCppBackend
from ondevice_sdk.errors import ConfigurationError, GenerationFailed
from ondevice_sdk.testing import as_engine
from ondevice_sdk.testing.contract.parity import ParityContract
from ondevice_sdk.testing.parity import PROMPTS, compare

OPTIONS = LoadOptions(context_tokens=512, max_sequences=4, threads=1, batch_tokens=64)


@pytest.fixture
def model(toy: ModuleType, tmp_path: Path) -> LocalModel:
    path = tmp_path / "sample.toy_chip"
    toy.model_file.write(path, (toy.folder / "tests" / "sample.txt").read_text())
    return LocalModel("sample", "other", "toy_chip", str(path), "")


@pytest.fixture
def runners(toy: ModuleType, model: LocalModel) -> Iterator[list[Any]]:
    made = [toy.ToyChipBackend().load(model, OPTIONS) for _ in range(2)]
    yield made
    for runner in made:
        runner.close()


def test_nothing_differs_from_itself(runners: list[Any]) -> None:
    found = compare(runners[0], runners[1], tokens=16)
    assert found.positions == 16 * len(PROMPTS)
    assert (found.agreement, found.divergence, found.surprise, found.tokenised_alike) == (1, 0, 0, 1)
    assert found.skipped == 0


def test_an_engine_is_compared_by_what_it_writes_and_scores(runners: list[Any]) -> None:
    found = compare(runners[0], as_engine(runners[1]), PROMPTS[:6], tokens=12)
    assert found.positions + found.skipped == 6 * 12
    assert found.positions > found.skipped
    assert found.agreement == 1
    assert found.divergence is None
    assert found.surprise == pytest.approx(0, abs=1e-6)
    assert found.tokenised_alike == 1


def test_another_model_shows_in_every_figure(runners: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    reference, other = runners
    right = other._logits
    monkeypatch.setattr(other, "_logits", lambda cached: right(cached[:-2] + cached[-1:]))
    found = compare(reference, other, tokens=16)
    assert found.agreement < 0.9
    assert found.divergence is not None
    assert found.divergence > 0.1
    assert found.surprise is not None
    assert found.surprise > 0.1
    by_text = compare(reference, as_engine(other), PROMPTS[:6], tokens=12)
    assert by_text.agreement < 0.9
    assert by_text.surprise is not None
    assert by_text.surprise > 0.1


def test_divergence_is_that_of_the_distributions(runners: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """With logits that do not depend on anything it can be worked out by hand."""
    reference, other = runners
    for runner, share in ((reference, 0.5), (other, 0.25)):
        logits = np.full(runner.vocabulary, -100.0, np.float32)
        logits[65], logits[66] = math.log(share), math.log(1 - share)
        monkeypatch.setattr(runner, "_logits", lambda cached, logits=logits: logits.copy())
    found = compare(reference, other, ["x"], tokens=4)
    assert found.divergence == pytest.approx(0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75))
    assert found.agreement in (0, 1)
    assert found.surprise == pytest.approx(math.log(0.5 / 0.25))


def test_a_padded_vocabulary_is_the_same_and_another_one_is_not(
    runners: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, padded = runners
    forward, size = padded.forward, padded.vocabulary

    def wider(batch: Batch) -> Any:
        logits = forward(batch)
        return np.concatenate([logits, np.full((len(logits), 3), -1e9, np.float32)], axis=1)

    monkeypatch.setattr(padded, "forward", wider)
    monkeypatch.setattr(padded, "vocabulary", size + 3)
    assert compare(reference, padded, PROMPTS[:2], tokens=4).divergence == 0
    monkeypatch.setattr(padded, "token_bytes", lambda token: b"?")
    with pytest.raises(ConfigurationError, match="different vocabularies"):
        compare(reference, padded, PROMPTS[:2], tokens=4)


def test_what_cannot_be_compared(runners: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for prompts, tokens in (((), 4), (("x",), 0)):
        with pytest.raises(ConfigurationError):
            compare(runners[0], runners[1], prompts, tokens=tokens)
    monkeypatch.setattr(runners[1], "_logits", lambda cached: np.full(runners[1].vocabulary, np.nan, np.float32))
    with pytest.raises(GenerationFailed):
        compare(runners[0], runners[1], ("x",), tokens=2)


class TestToyParity(ParityContract):
    """The toy beside itself, with tokens of one byte."""

    tokens = 8

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls, toy: ModuleType) -> Backend:
        made: Backend = toy.ToyChipBackend()
        return made

    @pytest.fixture(scope="class")
    @classmethod
    def reference_backend(cls, backend: Backend) -> Backend:
        return backend

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, toy: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
        path = tmp_path_factory.mktemp("model") / "sample.toy_chip"
        toy.model_file.write(path, (toy.folder / "tests" / "sample.txt").read_text())
        return LocalModel("sample", "other", "toy_chip", str(path), "")

    @pytest.fixture(scope="class")
    @classmethod
    def reference_model(cls, model: LocalModel) -> LocalModel:
        return model


@pytest.mark.parametrize(
    "figure", [{"agreement": 0.5}, {"divergence": 1.0}, {"surprise": 0.5}, {"tokenised_alike": 0.9}, {"skipped": 99}]
)
def test_the_contract_fails_beyond_its_thresholds(runners: list[Any], figure: dict[str, float]) -> None:
    good = compare(runners[0], runners[1], PROMPTS[:2], tokens=4)
    contract = ParityContract()

    def check(measured: Any) -> None:
        contract.test_the_same_token_is_most_likely(measured)
        contract.test_distributions_are_near(measured)
        contract.test_tokens_are_the_same(measured)

    check(good)
    with pytest.raises(AssertionError):
        check(replace(good, **figure))  # type: ignore[arg-type]


@pytest.mark.model
@pytest.mark.slow
def test_llama_cpp_beside_itself(model_path: Path) -> None:
    made = LocalModel("smollm2-135m-instruct", "int4", "gguf", str(model_path), "")
    loaded = [LlamaCppBackend().load(made, OPTIONS) for _ in range(2)]
    reference, other = loaded
    assert isinstance(reference, ModelRunner)
    assert isinstance(other, ModelRunner)
    engine = as_engine(other)
    try:
        alone = compare(reference, other, PROMPTS[:4], tokens=32)
        assert alone.agreement == alone.tokenised_alike == 1
        assert alone.divergence == pytest.approx(0, abs=1e-6)
        asked = compare(reference, engine, PROMPTS[:4], tokens=32)
        assert asked.agreement >= 0.95  # other chunks, other last bits
        assert asked.skipped <= 12
        assert asked.surprise == pytest.approx(0, abs=0.02)
    finally:
        reference.close()
        engine.close()
