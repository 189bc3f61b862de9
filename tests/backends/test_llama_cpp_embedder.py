"""The llama.cpp embedder on a tiny BERT with random weights, beside a forward pass in numpy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ondevice_sdk.backends.api import (
    Capability,
    Chat,
    Done,
    Embed,
    Embedded,
    Engine,
    Event,
    Failed,
    Generate,
    LoadOptions,
    LocalModel,
    PromptProgress,
    Raw,
    Request,
    Score,
    Tokenize,
    Tokenized,
)
from ondevice_sdk.backends.llama_cpp import LlamaCppBackend
from ondevice_sdk.errors import ConfigurationError, ModelUnsupported
from ondevice_sdk.store import gguf_writer
from tests import bert

TEXTS = ("The cat sat on the mat.", "a dog ran home!", "unmoney, 12 banks?", "x", "Café CATS…", "語 ?")


def load(path: Path, **change: Any) -> Engine:
    options = LoadOptions(threads=1, batch_tokens=128)
    made = LlamaCppBackend().load(LocalModel("tiny", "f16", "gguf", str(path), ""), replace(options, **change))
    assert isinstance(made, Engine)
    return made


def answers(engine: Engine, *requests: Request, budget: int = 64) -> list[Any]:
    """The results, or errors, of requests that run together."""
    for number, request in enumerate(requests):
        engine.add_request(str(number), request)
    found: dict[str, Any] = {}
    while engine.busy:
        for event in engine.step(budget):
            if isinstance(event, Done):
                found[event.request_id] = event.result
            elif isinstance(event, Failed):
                found[event.request_id] = event.error
    return [found[str(number)] for number in range(len(requests))]


def vectors(engine: Engine, texts: Sequence[str], **options: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    (result,) = answers(engine, Embed(tuple(texts)), **options)
    assert isinstance(result, Embedded), result
    return np.array(result.vectors)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert.make_embedder(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    made = load(path)
    yield made
    made.close()


@pytest.mark.parametrize("pooling", ["mean_tokens", "cls_token"])
def test_vectors_are_those_of_the_paper(tmp_path: Path, pooling: str) -> None:
    engine = load(bert.make_embedder(tmp_path / "model", pooling=pooling))
    weights = bert.read_safetensors(tmp_path / "model" / "model.safetensors")
    vocabulary = bert.read_vocabulary(tmp_path / "model")
    found = vectors(engine, TEXTS)
    for text, vector in zip(TEXTS, found, strict=True):
        expected = bert.forward(weights, bert.word_pieces(text, vocabulary), heads=2, pooling=pooling)
        assert vector @ expected > 0.999, text
    engine.close()


def test_vectors_have_length_1_and_the_words_are_counted(engine: Engine) -> None:
    embedded, counted = answers(engine, Embed(TEXTS), Tokenize(TEXTS))
    assert np.linalg.norm(np.array(embedded.vectors), axis=1) == pytest.approx(1, abs=1e-5)
    assert isinstance(counted, Tokenized)
    assert embedded.usage.prompt_tokens == sum(counted.counts) + 2 * len(TEXTS)
    assert embedded.usage.prefill_s > 0


def test_batched_is_as_alone(engine: Engine) -> None:
    alone = np.concatenate([vectors(engine, [text]) for text in TEXTS])
    assert np.allclose(vectors(engine, TEXTS), alone, atol=2e-3)
    together = answers(engine, *(Embed((text,)) for text in TEXTS))
    assert np.allclose(np.concatenate([result.vectors for result in together]), alone, atol=2e-3)
    assert np.allclose(vectors(engine, TEXTS * 60, budget=512)[-len(TEXTS) :], alone, atol=2e-3)


def test_a_pass_keeps_to_the_budget_and_tells_how_far_it_is(engine: Engine) -> None:
    engine.add_request("r", Embed(TEXTS * 20))
    events: list[Event] = []
    steps = 0
    while engine.busy:
        events += engine.step(16)
        steps += 1
    assert steps >= 40
    progress = [event for event in events if isinstance(event, PromptProgress)]
    assert [event.done for event in progress] == sorted(event.done for event in progress)
    assert progress[-1].done == progress[-1].total


def test_a_cancelled_request_ends_and_the_others_go_on(engine: Engine) -> None:
    engine.add_request("first", Embed(TEXTS * 20))
    engine.add_request("second", Embed(TEXTS[:1]))
    engine.step(16)
    engine.abort_request("first")
    engine.abort_request("unknown")
    events: list[Event] = []
    while engine.busy:
        events += engine.step(16)
    ends = {event.request_id: event for event in events if isinstance(event, Done | Failed)}
    assert isinstance(failed := ends["first"], Failed)
    assert failed.error.code == "cancelled"
    assert isinstance(ends["second"], Done)


def test_what_it_refuses(engine: Engine) -> None:
    asked = Raw(())
    long, none, empty, generate, score, prompt, good = answers(
        engine,
        Embed(("a",) * 3 + ("a b " * 40,)),
        Embed(()),
        Embed(("",)),
        Generate(asked, 5),
        Score(asked, ("a",)),
        Tokenize(prompts=(Chat(()),)),
        Embed(("a",)),
    )
    assert (long.code, long.data) == ("input_too_long", {"tokens": 82, "limit": 64})
    assert none.code == "configuration_error"
    assert isinstance(empty, Embedded)  # what stands around a text is there without one
    assert [each.code for each in (generate, score, prompt)] == ["unsupported"] * 3
    assert generate.data["capability"] == "generate"
    assert isinstance(good, Embedded)
    assert engine.capabilities == {Capability.EMBED, Capability.BATCH}


def test_ids_are_used_once_and_a_closed_engine_takes_nothing(path: Path) -> None:
    engine = load(path)
    engine.add_request("r", Embed(("a",)))
    with pytest.raises(ConfigurationError):
        engine.add_request("r", Embed(("a",)))
    engine.close()
    engine.close()
    assert not engine.busy
    with pytest.raises(ConfigurationError):
        engine.add_request("s", Embed(("a",)))


def test_the_context_is_what_was_asked_for_and_no_more_than_the_models(path: Path) -> None:
    for asked, given in ((None, 64), (48, 48), (4096, 64)):
        engine = load(path, context_tokens=asked)
        assert engine.context_tokens == given
        engine.close()


def test_a_model_that_ranks_gives_no_embeddings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = gguf_writer.write
    monkeypatch.setattr(
        gguf_writer, "write", lambda path, meta, *rest: write(path, {**meta, "bert.pooling_type": 4}, *rest)
    )
    with pytest.raises(ModelUnsupported):
        load(bert.make_embedder(tmp_path / "model"))
