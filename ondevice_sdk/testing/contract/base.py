"""What all parts of the contract share: the fixtures that a plugin overrides, and short ways to ask an engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import pytest

from ondevice_sdk.backends.api import (
    Backend,
    Capability,
    DeviceProfile,
    Done,
    Embed,
    Engine,
    Event,
    Generate,
    Generated,
    LoadOptions,
    LocalAdapter,
    LocalModel,
    Raw,
    Score,
    Scored,
    Segment,
    TextDelta,
    Tokenize,
    Tokenized,
)
from ondevice_sdk.errors import OnDeviceError, Unsupported
from ondevice_sdk.runtime.environment import OFFLINE
from ondevice_sdk.testing import answer, as_engine
from ondevice_sdk.testing.contract.guard import Guarded, part

DEVICE = DeviceProfile("linux", "x86_64", "any", (), 1, 1, 1 << 34, 1 << 33)


def raw(text: str) -> Raw:
    """A prompt as it stands."""
    return Raw((Segment(text),))


@part("engine", "_quiet")
class ContractBase(Guarded):
    """Fixtures and settings.

    Attributes:
        options: how the model is loaded; a model of fewer tokens needs a smaller context, of at least 512.
        prompt: what the model goes on with; it should write some words after it.
        unread_files: names of files in the model's folder that the backend does not need, and so cannot find damaged;
            each with the reason. The first file is needed.
    """

    options: ClassVar[LoadOptions] = LoadOptions(context_tokens=1024, max_sequences=4, threads=1, batch_tokens=128)
    prompt: ClassVar[Raw] = raw("The quick brown fox jumps over the lazy dog. The quick brown")
    unread_files: ClassVar[Mapping[str, str]] = {}

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _quiet(cls) -> Iterator[None]:
        """Ask libraries to stay offline: most tests run outside of a sealed worker."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in OFFLINE.items():
                patch.setenv(name, value)
            yield

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls) -> Backend:
        """The backend under test."""
        raise NotImplementedError("override the fixture `backend`")

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> LocalModel:
        """A small model that the backend can load and that writes text."""
        raise NotImplementedError("override the fixture `model`")

    @pytest.fixture(scope="class")
    @classmethod
    def embedding_model(cls) -> LocalModel | None:
        """A small model that gives embeddings, for a backend that claims them and needs another model for it."""
        return None

    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls) -> LocalAdapter | None:
        """An adapter that fits the model and changes what it writes after `prompt`, for a backend that claims them."""
        return None

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, backend: Backend, model: LocalModel, adapter: LocalAdapter | None) -> Iterator[Engine]:
        """The model, loaded once for all tests."""
        adapters = () if adapter is None else (adapter,)
        engine = as_engine(backend.load(model, replace(cls.options, adapters=adapters)))
        yield engine
        engine.close()


def last(events: Sequence[Event]) -> Generated:
    """What was generated.

    Raises:
        AssertionError: it failed, or was not a generation.
    """
    end = events[-1]
    assert isinstance(end, Done), end
    assert isinstance(end.result, Generated)
    return end.result


def streamed(events: Sequence[Event]) -> str:
    """All deltas together."""
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def generated(engine: Engine, request: Generate) -> Generated:
    """Run a generation to its end."""
    result = answer(engine, request)
    assert isinstance(result, Generated)
    return result


def scored(engine: Engine, prompt: Raw, *continuations: str) -> Scored:
    """Score continuations of one prompt."""
    result = answer(engine, Score(prompt, continuations))
    assert isinstance(result, Scored)
    assert len(result.logprobs) == len(result.token_counts) == len(continuations)
    return result


def counts(engine: Engine, request: Tokenize) -> tuple[int, ...]:
    """Count tokens."""
    result = answer(engine, request)
    assert isinstance(result, Tokenized)
    return result.counts


def prompt_of(engine: Engine, tokens: int, word: str = "word ") -> Raw:
    """A prompt of about so many tokens, at most; of another word where it must not be in a cache yet."""
    (ten,) = counts(engine, Tokenize(texts=(word * 10,)))
    return raw(word * (10 * tokens // (ten + 1)))


def exact(engine: Engine) -> bool:
    """Whether the same bytes can be asked for."""
    return Capability.DETERMINISTIC in engine.capabilities


def assert_refused(engine: Engine, request: Generate | Score | Embed, capability: Capability) -> None:
    """What is not claimed is refused, by name."""
    with pytest.raises(OnDeviceError) as caught:
        answer(engine, request)
    assert isinstance(caught.value, Unsupported), caught.value.code
    assert caught.value.capability == capability.value
