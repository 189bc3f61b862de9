"""The same weights as a reference backend: a part of the contract for those that have one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest

from ondevice_sdk.backends.api import Backend, Engine, LoadOptions, LocalModel, ModelRunner
from ondevice_sdk.testing import parity
from ondevice_sdk.testing.contract.guard import Guarded, part
from ondevice_sdk.testing.parity import Parity

__all__ = ["ParityContract"]


@part("measured")
class ParityContract(Guarded):
    """Compares the backend with a reference, over 20 prompts of 64 tokens each.

    The thresholds are for weights of 8 bits made from the reference's: rounding there moves about one near tie in a
    hundred. Override them with what was measured, and say so beside them.

    Attributes:
        tokens: that the reference writes after each prompt.
        prompts: what it goes on with.
        options: for both.
        least_agreement: share of the tokens at which both find the same one most likely.
        most_divergence: mean KL(reference || backend) in nats, where there are logits.
        most_surprise: by how much the reference's text may be less likely, in nats a token.
    """

    tokens: ClassVar[int] = 64
    prompts: ClassVar[tuple[str, ...]] = parity.PROMPTS
    options: ClassVar[LoadOptions] = LoadOptions(context_tokens=512, max_sequences=4, threads=1, batch_tokens=128)
    least_agreement: ClassVar[float] = 0.97
    most_divergence: ClassVar[float] = 0.01
    most_surprise: ClassVar[float] = 0.02

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls) -> Backend:
        """The backend under test."""
        raise NotImplementedError("override the fixture `backend`")

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> LocalModel:
        """Its model."""
        raise NotImplementedError("override the fixture `model`")

    @pytest.fixture(scope="class")
    @classmethod
    def reference_backend(cls) -> Backend:
        """The backend that is right; it gives a model runner."""
        raise NotImplementedError("override the fixture `reference_backend`")

    @pytest.fixture(scope="class")
    @classmethod
    def reference_model(cls) -> LocalModel:
        """A model of the reference with the same weights."""
        raise NotImplementedError("override the fixture `reference_model`")

    @pytest.fixture(scope="class")
    @classmethod
    def measured(
        cls, backend: Backend, model: LocalModel, reference_backend: Backend, reference_model: LocalModel
    ) -> Iterator[Parity]:
        """Both are loaded, compared once, and closed."""
        loaded: list[Engine | ModelRunner] = []
        try:
            loaded.append(reference_backend.load(reference_model, cls.options))
            loaded.append(backend.load(model, cls.options))
            reference = loaded[0]
            assert isinstance(reference, ModelRunner), "the reference has to give logits"
            yield parity.compare(reference, loaded[1], cls.prompts, tokens=cls.tokens)
        finally:
            for each in loaded:
                each.close()

    def test_the_same_token_is_most_likely(self, measured: Parity) -> None:
        """Teacher-forced top-1 agreement; and what could not be compared is the exception."""
        assert measured.agreement >= self.least_agreement, measured
        assert measured.skipped <= measured.positions // 10, measured

    def test_distributions_are_near(self, measured: Parity) -> None:
        """The whole distribution where there are logits, else the likelihood of the text."""
        if measured.divergence is not None:
            assert measured.divergence <= self.most_divergence, measured
        if measured.surprise is not None:
            assert abs(measured.surprise) <= self.most_surprise, measured

    def test_tokens_are_the_same(self, measured: Parity) -> None:
        """Both split every prompt alike."""
        assert measured.tokenised_alike == 1, measured
