"""Vocabularies of SentencePiece: `tokenizer.model` written by hand, and the `tokenizer.json` that goes with it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import toys

Piece = tuple[str, float, int]  # text, score, kind
PLAIN: dict[int, int | bytes] = {
    2: b"",
    3: 1,
    4: 0,
    5: 1,
}  # of a normaliser: no table, a space before, spaces kept, as marks
BPE: dict[int, int | bytes] = {3: 2, 35: 1}  # of a trainer: merged by scores, bytes for what is unknown


def vocabulary(words: Sequence[str] = ("▁", "t", "h", "e", "▁t", "he", "▁the")) -> list[Piece]:
    """Special pieces, all bytes, and words that are merged in this order."""
    special = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    every = [(f"<0x{number:02X}>", 0.0, 6) for number in range(256)]
    return [*special, *every, *((word, -float(rank), 1) for rank, word in enumerate(words))]


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    return bytes([*made, value])


def _message(fields: dict[int, int | bytes]) -> bytes:
    made = b""
    for number, value in fields.items():
        if isinstance(value, int):
            made += _varint(number << 3) + _varint(value)
        else:
            made += _varint(number << 3 | 2) + _varint(len(value)) + value
    return made


def model(
    pieces: Sequence[Piece], *, trainer: dict[int, int | bytes] | None = None, normaliser: dict[int, Any] | None = None
) -> bytes:
    """The content of a `tokenizer.model`."""
    made = b""
    for text, score, kind in pieces:
        inner = _message({1: text.encode()}) + b"\x15" + struct.pack("<f", score) + _message({3: kind})
        made += _message({1: inner})
    return made + _message({2: _message(BPE | (trainer or {})), 3: _message(PLAIN | (normaliser or {}))})


def tokenizer(pieces: Sequence[Piece]) -> dict[str, Any]:
    """The `tokenizer.json`: a merge for every way in which a word falls into two, by the score of the word."""
    known = {text for text, _, kind in pieces if kind == 1}
    ranked = sorted((score, text) for text, score, kind in pieces if kind == 1)[::-1]
    merges = [
        [text[:cut], text[cut:]]
        for _, text in ranked
        for cut in range(1, len(text))
        if {text[:cut], text[cut:]} <= known
    ]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    back = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": number, "content": text, "special": True, **flags}
            for number, (text, _, kind) in enumerate(pieces)
            if kind in (2, 3)
        ],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, space]},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {text: number for number, (text, _, _) in enumerate(pieces)},
            "merges": merges,
        },
    }


def folder(path: Path, pieces: Sequence[Piece]) -> Path:
    """A whole folder of the Mistral architecture."""
    toys.folder(path, "mistral", vocab_size=len(pieces) + 2)
    (path / "tokenizer.model").write_bytes(model(pieces))
    toys.dump(path / "tokenizer.json", tokenizer(pieces))
    toys.dump(path / "tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    return path
