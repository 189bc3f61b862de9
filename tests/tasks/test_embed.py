"""Embeddings as a flow: with plain values, and no model."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from typing import Any, cast

import pytest

from ondevice_sdk.backends.api import Embed, Embedded, Request, Result, Tokenize, Tokenized
from ondevice_sdk.errors import ConfigurationError, GenerationFailed
from ondevice_sdk.tasks.embed import AT_A_TIME, MARGIN, PER_REQUEST, embed
from ondevice_sdk.tasks.flow import Flow, run_with
from ondevice_sdk.types import Embeddings, Usage

CONTEXT = 100
LIMIT = CONTEXT - MARGIN


class Engine:
    """Answers with a vector that tells a text's first letter, and counts a token for each character."""

    def __init__(self, tokens_per_character: int = 1) -> None:
        self.requests: list[Request] = []
        self.each = tokens_per_character

    def __call__(self, request: Request) -> Result:
        self.requests.append(request)
        if isinstance(request, Tokenize):
            return Tokenized(tuple(self.each * len(text) for text in request.texts))
        assert isinstance(request, Embed)
        assert all(self.each * len(text) <= CONTEXT for text in request.texts)
        vectors = tuple((math.cos(ord(text[0])), math.sin(ord(text[0]))) for text in request.texts)
        return Embedded(vectors, Usage(prompt_tokens=sum(map(len, request.texts))))

    @property
    def embedded(self) -> list[str]:
        return [text for request in self.requests if isinstance(request, Embed) for text in request.texts]


def run(texts: Any, engine: Engine | None = None) -> Embeddings:
    return run_with(embed(texts, context_tokens=CONTEXT), engine or Engine())


def test_a_vector_for_each_text_in_order() -> None:
    found = run(["a", "b", "c"])
    assert [vector[0] for vector in found.vectors] == pytest.approx([math.cos(ord(each)) for each in "abc"])
    assert (found.dimensions, found.usage.prompt_tokens, found.warnings) == (2, 3, ())
    assert all(isinstance(vector, array) for vector in found.vectors)


def test_one_text_is_no_list_of_letters() -> None:
    engine = Engine()
    assert len(run("some text", engine).vectors) == 1
    assert engine.embedded == ["some text"]


@pytest.mark.parametrize("vectors", [((0.0, 0.0),), ((math.inf, 1.0),), ((1.0, 0.0, 0.0),), ((),)])
def test_vectors_that_cannot_be(vectors: tuple[tuple[float, ...], ...]) -> None:
    texts = ["a"] * (PER_REQUEST + 1)  # the last in a request of its own

    def answer(request: Request) -> Result:
        assert isinstance(request, Embed)
        return Embedded(vectors if len(request.texts) == 1 else ((1.0, 0.0),) * len(request.texts), Usage())

    with pytest.raises(GenerationFailed):
        run_with(embed(texts, context_tokens=CONTEXT), answer)


def test_vectors_have_length_one() -> None:
    found = run_with(embed("a", context_tokens=CONTEXT), lambda request: Embedded(((3.0, 4.0),), Usage()))
    assert list(found.vectors[0]) == pytest.approx([0.6, 0.8])


def test_white_space_between_sentences_counts() -> None:
    engine = Engine()
    run("Hello." + "\n" * 400 + "World.", engine)
    assert max(map(len, engine.embedded)) <= LIMIT


def test_nothing_in_nothing_out() -> None:
    assert run([]) == Embeddings(())
    assert run([]).dimensions == 0


@pytest.mark.parametrize("wrong", ["", " \n", 3, None, b"bytes", "half \ud800"])
def test_what_is_no_text_is_named_by_its_number(wrong: Any) -> None:
    engine = Engine()
    with pytest.raises(ConfigurationError, match="text 2") as caught:
        run(["secret", "secret", wrong], engine)
    assert "secret" not in str(caught.value)
    assert not engine.requests  # looked at before anything is done


@pytest.mark.parametrize("wrong", [None, 5, b"bytes", {"a": 1}])
def test_what_is_no_list_of_texts(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="texts must be"):
        run(wrong)


def test_an_endless_source_is_taken_bit_by_bit() -> None:
    taken = 0

    def source() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield f"text {taken}"

    flow = embed(source(), context_tokens=CONTEXT)
    step = next(flow)
    assert taken == AT_A_TIME
    assert sum(len(request.texts) for request in step.requests if isinstance(request, Embed)) == AT_A_TIME
    assert max(len(request.texts) for request in step.requests if isinstance(request, Embed)) == PER_REQUEST
    flow.close()


def test_progress_counts_texts_of_all() -> None:
    texts = ["abc"] * (AT_A_TIME + 10)
    flow, engine = embed(texts, context_tokens=CONTEXT), Engine()
    first = next(flow)
    second = flow.send([engine(request) for request in first.requests])
    assert (first.done, first.gain, first.total, first.unit) == (0, AT_A_TIME, len(texts), "texts")
    assert (second.done, second.gain) == (AT_A_TIME, 10)
    flow.close()


def test_a_long_text_is_read_in_full_and_says_so() -> None:
    sentences = [f"{letter} sentence that has about forty letters." for letter in "ABCDEFGH"]
    text, engine = " ".join(sentences), Engine()
    found = run(["short", text], engine)
    assert found.warnings == (
        f"1 text is longer than the {LIMIT} tokens that the model reads at once, and read in parts",
    )
    parts = engine.embedded[1:]
    assert all(len(part) <= LIMIT for part in parts)
    assert " ".join(parts).split() == text.split()  # nothing left out, nothing twice
    weighted = [(len(part), ord(part[0])) for part in parts]
    x, y = (sum(weight * side(letter) for weight, letter in weighted) for side in (math.cos, math.sin))
    assert list(found.vectors[1]) == pytest.approx([x / math.hypot(x, y), y / math.hypot(x, y)], abs=0.05)
    assert math.hypot(*found.vectors[1]) == pytest.approx(1)


@pytest.mark.parametrize("text", ["x" * 5000, "語" * 5000, "a b " * 2000, "." * 3000, "\u0301" * 3000 + "."])
def test_long_texts_without_sentences(text: str) -> None:
    engine = Engine(tokens_per_character=3)
    found = run([text, "b"], engine)
    assert len(found.vectors) == 2
    assert "".join("".join(engine.embedded[:-1]).split()) == "".join(text.split())


def test_a_megabyte() -> None:
    engine = Engine()
    text = "This is one of very many sentences. " * 30_000
    assert len(run(text, engine).vectors) == 1
    assert sum(len(part.split()) for part in engine.embedded) == len(text.split())


def test_a_foreign_answer() -> None:
    with pytest.raises(GenerationFailed):
        run_with(embed(["a"], context_tokens=CONTEXT), lambda request: Tokenized((1,)))


def test_nearest() -> None:
    found = Embeddings(((1.0, 0.0), (0.0, 1.0), (0.6, 0.8), (1.0, 0.0)))
    assert found.nearest((1.0, 0.0), 3) == ((0, 1.0), (3, 1.0), (2, 0.6))
    assert found.nearest((1.0, 0.0), 0) == ()
    assert Embeddings(()).nearest((1.0, 0.0)) == ()
    with pytest.raises(ValueError, match="numbers"):
        found.nearest((1.0,))
    assert "0.6" not in repr(found)


def test_the_parts_of_a_very_long_text_are_asked_for_step_by_step() -> None:
    engine, sizes, gains = Engine(), [], []
    flow = embed(["This is one of very many sentences. " * 5_000, "b"], context_tokens=CONTEXT)

    def watched() -> Flow[Embeddings]:
        results: Any = None
        while True:
            try:
                step = flow.send(results)
            except StopIteration as stop:
                return cast("Embeddings", stop.value)
            sizes.append(sum(len(each.texts) for each in step.requests if isinstance(each, Embed)))
            gains.append(step.gain)
            results = yield step

    run_with(watched(), engine)
    assert max(sizes) == AT_A_TIME
    assert sum(gains) == 2  # texts
