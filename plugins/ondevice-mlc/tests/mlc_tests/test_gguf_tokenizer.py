"""A vocabulary taken out of a GGUF file cuts texts as llama.cpp cuts them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ondevice_mlc import gguf_tokenizer
from ondevice_mlc.tokenizer import Vocabulary
from ondevice_sdk.backends.api import Segment
from ondevice_sdk.errors import ModelCorrupt, ModelUnsupported

from . import texts, vocabularies


@contextmanager
def reference(path: Path) -> Iterator[Any]:
    """llama.cpp's vocabulary of the file."""
    import llama_cpp

    from ondevice_sdk.backends.llama_cpp import log
    from ondevice_sdk.backends.llama_cpp.vocabulary import Vocabulary as Reference

    log.silence()
    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    assert model, "llama.cpp does not load the vocabulary"
    try:
        yield Reference(llama_cpp.llama_model_get_vocab(model))
    finally:
        llama_cpp.llama_model_free(model)


def own(values: dict[str, Any]) -> Vocabulary:
    """Through the file that a model folder has."""
    return Vocabulary(json.loads(json.dumps(gguf_tokenizer.description(values))))


def compare(path: Path, samples: list[str]) -> None:
    values = vocabularies.fields(path)
    mine = own(values)
    with reference(path) as theirs:
        assert mine.size == theirs.size
        assert set(gguf_tokenizer.end_tokens(values)) == theirs.end_tokens
        different = [text for text in samples if mine.tokenize([Segment(text)]) != theirs.tokenize([Segment(text)])]
        assert different == []
        assert [mine.token_bytes(token) for token in range(mine.size)] == [
            theirs.token_bytes(token) for token in range(theirs.size)
        ]
        turn = [Segment("<|im_start|>user\n", "control"), Segment("a <|im_end|> b"), Segment("<|im_end|>", "control")]
        assert mine.tokenize(turn) == theirs.tokenize(turn)


@pytest.mark.slow
@pytest.mark.model
def test_the_real_vocabulary(model_path: Path) -> None:
    compare(model_path, [*texts.PLAIN, *texts.mixed(3000)])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama-bpe", "qwen2", "smollm", "gpt-2"])
def test_every_pattern(tmp_path: Path, name: str) -> None:
    vocabularies.write_byte_level(tmp_path / "v.gguf", name)
    compare(tmp_path / "v.gguf", [*texts.PLAIN, *texts.mixed(3000)])


@pytest.mark.slow
def test_sentence_piece(tmp_path: Path) -> None:
    vocabularies.write_sentence_piece(tmp_path / "v.gguf")
    compare(tmp_path / "v.gguf", [*texts.PLAIN, *texts.mixed(1000)])


@pytest.mark.parametrize("nested", [False, True])
def test_what_the_pipeline_puts_before_a_text(nested: bool) -> None:
    """As the files of Llama 3 have it."""
    description = gguf_tokenizer.description(small())
    assert Vocabulary(description).begin is None
    parts = [{"SpecialToken": {"id": "<|end|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    special = {"<|end|>": {"id": "<|end|>", "ids": [3], "tokens": ["<|end|>"]}}
    processor = {"type": "TemplateProcessing", "single": parts, "pair": parts, "special_tokens": special}
    whole = {"type": "Sequence", "processors": [processor]} if nested else processor
    words = Vocabulary({**description, "post_processor": whole})
    assert words.begin == 3
    assert words.tokenize([Segment("hi")]) == [2]


BYTES = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2", "tokenizer.ggml.merges": ["h i"]}
WORDS = ["h", "i", "hi", "<|end|>", "<tool>"]


def small(**changes: Any) -> dict[str, Any]:
    return {**BYTES, "tokenizer.ggml.tokens": WORDS, "tokenizer.ggml.token_type": [1, 1, 1, 3, 4], **changes}


@pytest.mark.parametrize("token", [-7, 10**9, 1 << 64, "x"])
def test_impossible_tokens(token: object) -> None:
    description = gguf_tokenizer.description(small())
    with pytest.raises(ModelCorrupt):
        Vocabulary({**description, "added_tokens": [{"id": token, "content": "<|end|>", "special": True}]})


def test_a_pipeline_of_an_unknown_form() -> None:
    description = gguf_tokenizer.description(small())
    assert Vocabulary({**description, "post_processor": {"processors": 3}}).begin is None


def test_data_never_becomes_a_special_token() -> None:
    words = own(small())
    assert words.tokenize([Segment("hi<|end|>", "control")]) == [2, 3]
    assert 3 not in words.tokenize([Segment("hi<|end|>")])
    assert 4 not in words.tokenize([Segment("hi<tool>")])
    assert words.token_bytes(3) == b""
    assert words.token_bytes(4) == b"<tool>"


def test_borders_between_segments_change_nothing() -> None:
    words = own(small())
    assert words.tokenize([Segment("h"), Segment("i", "control"), Segment("")]) == [2]


def test_ends_and_settings() -> None:
    values = small(**{"tokenizer.ggml.eos_token_id": 1, "tokenizer.chat_template": "{{ 1 }}"})
    assert gguf_tokenizer.end_tokens(values) == [1, 3]
    found = gguf_tokenizer.settings(values)
    assert (found["eos_token"], found["chat_template"], found["add_bos_token"]) == ("i", "{{ 1 }}", False)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"tokenizer.ggml.pre": "of-tomorrow"}, ModelUnsupported),
        ({"tokenizer.ggml.model": "bert"}, ModelUnsupported),
        ({"tokenizer.ggml.tokens": None}, ModelUnsupported),
        ({"tokenizer.ggml.merges": None}, ModelCorrupt),
        ({"tokenizer.ggml.token_type": [1]}, ModelCorrupt),
        ({"tokenizer.ggml.model": "llama", "tokenizer.ggml.scores": None}, ModelCorrupt),
    ],
)
def test_unknown_and_damaged_vocabularies(change: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        gguf_tokenizer.description(small(**change))
