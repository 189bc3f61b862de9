"""Small vocabularies in GGUF files, for comparisons with llama.cpp."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import gguf
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from ondevice_mlc.gguf_tokenizer import _PATTERNS as PATTERNS
from ondevice_mlc.tokenizer import SPACE, byte_characters

from .texts import PLAIN, mixed

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def write_byte_level(path: Path, name: str, size: int = 900) -> None:
    """Learn a byte-level vocabulary with the words that a pattern cuts, and write it without any weights."""
    writer = gguf.GGUFWriter(path, "llama")
    add_byte_level(writer, name, size)
    _finish(writer)


def add_byte_level(writer: Any, name: str, size: int = 900) -> dict[str, int]:
    """Put such a vocabulary into a file that is being written; gives its words but for the control tokens."""
    words, merges = _learn(name, size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(name)
    writer.add_token_list([*words, *CONTROL])
    writer.add_token_types([1] * len(words) + [3] * len(CONTROL))
    writer.add_token_merges(merges)
    writer.add_eos_token_id(len(words) + 2)
    writer.add_bos_token_id(len(words) + 1)
    return {word: token for token, word in enumerate(words)}


def fragments(words: Mapping[str, int]) -> list[int]:
    """Tokens of a byte-level vocabulary that are no whole characters; a random model that wrote them wrote no text."""
    to_byte = {character: byte for byte, character in byte_characters().items()}
    return [token for word, token in words.items() if not _is_text(bytes(map(to_byte.__getitem__, word)))]


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@lru_cache
def _learn(name: str, size: int) -> tuple[list[str], list[str]]:
    """Words and merges."""
    splits: list[Any] = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in PATTERNS[name]]
    learner = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    learner.pre_tokenizer = pre_tokenizers.Sequence([*splits, level])
    alphabet = list(byte_characters().values())
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    learner.train_from_iterator([*PLAIN, *mixed(400, seed=1), __doc__ or ""], trainer)
    model = json.loads(learner.to_str())["model"]
    words = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return words, [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]


def write_sentence_piece(path: Path) -> None:
    """A vocabulary of SentencePiece's kind: bytes, characters, and words with scores."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=1500, show_progress=False, limit_alphabet=150)
    learner.train_from_iterator([*PLAIN, *mixed(400, seed=1)], trainer)
    vocabulary = learner.get_vocab()
    words = sorted(vocabulary, key=vocabulary.__getitem__)
    control = ["<unk>", "<s>", "</s>"]
    spelled = [f"<0x{value:02X}>" for value in range(256)]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*control, *spelled, *words])
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * len(words))
    writer.add_token_scores([0.0] * 259 + [-float(place) for place in range(len(words))])
    writer.add_eos_token_id(2)
    writer.add_bos_token_id(1)
    _finish(writer)


def fields(path: Path) -> dict[str, Any]:
    """The metadata of a GGUF file."""
    return {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items()}


def _finish(writer: Any) -> None:
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_head_count(1)
    writer.add_feed_forward_length(32)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
