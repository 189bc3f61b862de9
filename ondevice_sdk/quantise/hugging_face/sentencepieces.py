"""Vocabularies of SentencePiece, merged by scores: these stand in `tokenizer.model` only, in protocol buffers.

Source of the fields: https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ondevice_sdk.errors import ModelCorrupt, ModelUnsupported
from ondevice_sdk.quantise.hugging_face import pretokenisers
from ondevice_sdk.quantise.hugging_face.vocabulary import (
    NORMAL,
    Vocabulary,
    added_tokens,
    around,
    numbered,
)

MOST: Final = 1 << 26  # bytes; a vocabulary of 256,000 pieces has 5 MB
_UNKNOWN, _BYTE = 2, 6
_PIECES, _TRAINER, _NORMALISER, _DENORMALISER = 1, 2, 3, 5
_BPE: Final = 2
_BYTES: Final = frozenset(f"<0x{number:02X}>" for number in range(256))
_SPACE: Final = "▁"
# What a `tokenizer.json` has to say of such a vocabulary for llama.cpp to read text in the same way: a space goes
# before a text, and before what follows a special token; nothing cuts it into words.
_NORMALISERS: Final = (
    {"type": "Prepend", "prepend": _SPACE},
    {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE},
)

_Field = int | bytes


def read(data: bytes, tokenizer: Mapping[str, Any], size: int) -> Vocabulary:
    """The vocabulary.

    Args:
        data: the content of `tokenizer.model`.
        tokenizer: that of `tokenizer.json`, which adds tokens and must agree.
        size: rows of the embedding.

    Raises:
        ModelUnsupported: it is not merged by scores, or its text is prepared in a way that llama.cpp does not know.
            ModelCorrupt: it is damaged, or the two files contradict each other.
    """
    pieces, scores = _model(data)
    model, added = tokenizer.get("model"), tokenizer.get("added_tokens") or []
    if not isinstance(model, dict) or not isinstance(added, list):
        raise ModelCorrupt("tokenizer.json is damaged", expected="a model and tokens")
    _require_plain(tokenizer)
    special = added_tokens(added)
    numbers, kinds_of = {text: number for number, (text, _) in enumerate(pieces)}, dict(pieces)
    words = {text: number for text, number in numbers.items() if text not in special}
    vocab = model.get("vocab")
    listed = {text: number for text, number in vocab.items() if text not in special} if isinstance(vocab, dict) else {}
    if listed != words or any(numbers.get(text, number) != number for text, (number, _) in special.items()):
        raise ModelCorrupt("tokenizer.json and tokenizer.model have different vocabularies")
    tokens, kinds = numbered(words, special, size)
    kinds = tuple(
        kinds_of[text] if kind == NORMAL or kinds_of.get(text) == _UNKNOWN else kind
        for text, kind in zip(tokens, kinds, strict=True)
    )
    if {text for text, kind in zip(tokens, kinds, strict=True) if kind == _BYTE} != _BYTES:
        raise ModelUnsupported("the model cannot be converted: its vocabulary does not have every byte")
    return Vocabulary(
        pre="default",
        tokens=tokens,
        kinds=kinds,
        scores=tuple(scores.get(text, 0.0) for text in tokens),
        **around(tokenizer.get("post_processor")),
    )


def _require_plain(tokenizer: Mapping[str, Any]) -> None:
    try:
        steps = pretokenisers.flat(tokenizer.get("normalizer"), "normalizers")
    except (KeyError, TypeError, RecursionError):
        steps = []
    if tuple(steps) != _NORMALISERS or tokenizer.get("pre_tokenizer") is not None:
        raise ModelUnsupported(
            "the model cannot be converted: its tokeniser puts spaces in a way that is not known here",
            hint="a GGUF file of the model may be found ready-made",
        )


def _model(data: bytes) -> tuple[list[tuple[str, int]], dict[str, float]]:
    """Pieces with their kinds, in order, and scores by piece."""
    pieces: list[tuple[str, int]] = []
    scores: dict[str, float] = {}
    trainer: dict[int, _Field] = {}
    normaliser: dict[int, _Field] = {}
    for number, value in _fields(data):
        if number == _PIECES:
            text, kind, score = _piece(value)
            if text in scores:
                raise ModelCorrupt("tokenizer.model: a piece comes twice")
            pieces.append((text, kind))
            scores[text] = score
        elif number == _TRAINER:
            trainer.update(_fields(value))
        elif number == _NORMALISER:
            normaliser.update(_fields(value))
        elif number == _DENORMALISER and dict(_fields(value)).get(2):
            raise ModelUnsupported("the model cannot be converted: its tokeniser rewrites what was generated")
    # Model type, whitespace at the end of words; table of replacements, a space before, spaces together, and as marks.
    known = (trainer.get(3, 1), trainer.get(24, 0))
    prepared = tuple(normaliser.get(field, default) for field, default in ((2, b""), (3, 1), (4, 1), (5, 1)))
    if known != (_BPE, 0) or prepared != (b"", 1, 0, 1):
        raise ModelUnsupported(
            "the model cannot be converted: its tokeniser prepares or merges text in a way that is not known here"
        )
    return pieces, scores


def _piece(value: _Field) -> tuple[str, int, float]:
    said = dict(_fields(value))
    text, score, kind = said.get(1), said.get(2, bytes(4)), said.get(3, NORMAL)
    if not isinstance(text, bytes) or not text or not isinstance(score, bytes) or len(score) != 4:
        raise ModelCorrupt("tokenizer.model: a piece is damaged")
    number = struct.unpack("<f", score)[0]
    if not isinstance(kind, int) or not NORMAL <= kind <= _BYTE or not math.isfinite(number):
        raise ModelCorrupt("tokenizer.model: a piece is damaged")
    try:
        return text.decode("utf-8"), kind, number
    except UnicodeDecodeError as error:
        raise ModelCorrupt("tokenizer.model: a piece is no text") from error


def _fields(data: _Field) -> Iterator[tuple[int, _Field]]:
    """The fields of a message: whole numbers, or bytes (also for numbers of a fixed width)."""
    if not isinstance(data, bytes):
        raise ModelCorrupt("tokenizer.model is damaged", expected="a message")
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        match tag & 7:
            case 0:
                value, at = _varint(data, at)
                yield tag >> 3, value
                continue
            case 1:
                length = 8
            case 2:
                length, at = _varint(data, at)
            case 5:
                length = 4
            case _:
                raise ModelCorrupt("tokenizer.model is damaged", expected="protocol buffers")
        if at + length > len(data):
            raise ModelCorrupt("tokenizer.model is cut")
        yield tag >> 3, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = 0
    for place, byte in enumerate(data[at : at + 10]):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise ModelCorrupt("tokenizer.model is damaged or cut")
