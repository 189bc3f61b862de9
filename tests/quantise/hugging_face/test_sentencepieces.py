"""Vocabularies of SentencePiece: both of their files have to agree, and to say what llama.cpp does."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest

from ondevice_sdk.errors import ModelCorrupt, ModelUnsupported
from ondevice_sdk.quantise.hugging_face import sentencepieces
from ondevice_sdk.quantise.hugging_face.vocabulary import Vocabulary

from . import pieces, toys

WORDS = pieces.vocabulary()
SIZE = len(WORDS) + 2


def read(data: bytes | None = None, said: dict[str, Any] | None = None) -> Vocabulary:
    return sentencepieces.read(
        pieces.model(WORDS) if data is None else data, pieces.tokenizer(WORDS) if said is None else said, SIZE
    )


def test_what_the_file_says(tmp_path: Path) -> None:
    folder, target = pieces.folder(tmp_path / "model", WORDS), tmp_path / "made.gguf"
    toys.convert(folder, target)
    fields = {
        key.removeprefix("tokenizer.ggml."): field.contents() for key, field in gguf.GGUFReader(target).fields.items()
    }
    assert (fields["model"], fields["pre"], fields["add_space_prefix"]) == ("llama", "default", True)
    assert (fields["bos_token_id"], fields["eos_token_id"], fields["unknown_token_id"]) == (1, 2, 0)
    assert (fields["add_bos_token"], fields["add_eos_token"]) == (True, False)
    assert fields["tokens"] == [text for text, _, _ in WORDS] + ["[PAD266]", "[PAD267]"]
    assert fields["scores"] == [score for _, score, _ in WORDS] + [0, 0]
    assert fields["token_type"] == [kind for _, _, kind in WORDS] + [5, 5]
    (folder / "tokenizer.model").unlink()
    with pytest.raises(ModelUnsupported, match=r"tokenizer\.model"):
        toys.convert(folder, tmp_path / "other.gguf")


def test_added_tokens_get_their_kind() -> None:
    said = pieces.tokenizer(WORDS)
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    said["added_tokens"] += [{"id": SIZE - 2, "content": "[INST]", "special": True, **flags},
                             {"id": SIZE - 1, "content": "<tool>", "special": False, **flags}]  # fmt: skip
    assert read(said=said).kinds[-2:] == (3, 4)
    assert read(said=said).kinds[:4] == (2, 3, 3, 6)


OTHERS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no space before": lambda made: made["normalizer"]["normalizers"].pop(0),
    "no marks": lambda made: made["normalizer"]["normalizers"].pop(1),
    "no normaliser": lambda made: made.update(normalizer=None),
    "composed": lambda made: made["normalizer"]["normalizers"].append({"type": "NFKC"}),
    "a space at the begin only": lambda made: made.update(
        normalizer=None,
        pre_tokenizer={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False},
    ),
    "strips": lambda made: made["added_tokens"][0].update(lstrip=True),
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_llama_cpp_would_read_otherwise_is_refused(case: str) -> None:
    said = pieces.tokenizer(WORDS)
    OTHERS[case](said)
    with pytest.raises(ModelUnsupported):
        read(said=said)


def test_other_kinds_of_models_are_refused() -> None:
    for changes in (
        {"trainer": {3: 1}},
        {"trainer": {24: 1}},
        {"normaliser": {2: b"table"}},
        {"normaliser": {3: 0}},
        {"normaliser": {4: 1}},
        {"normaliser": {5: 0}},
    ):
        with pytest.raises(ModelUnsupported):
            read(pieces.model(WORDS, **changes))
    without = [piece for piece in WORDS if piece[0] != "<0x41>"]
    with pytest.raises(ModelUnsupported, match="every byte"):
        read(pieces.model(without), pieces.tokenizer(without))


def test_files_that_contradict_each_other() -> None:
    for other in (WORDS[:-1], [*WORDS, ("x", -9.0, 1)], [*WORDS[:-2], WORDS[-1], WORDS[-2]]):
        with pytest.raises(ModelCorrupt, match="different vocabularies"):
            read(pieces.model(other))
    said = pieces.tokenizer(WORDS)
    said["added_tokens"][1]["id"] = SIZE - 1
    with pytest.raises(ModelCorrupt, match="different vocabularies"):
        read(said=said)


@pytest.mark.parametrize(
    "piece", [("", 0.0, 1), ("x", math.nan, 1), ("x", math.inf, 1), ("x", 0.0, 7), ("x", 0.0, 0), ("▁the", 0.0, 1)]
)
def test_damaged_pieces(piece: pieces.Piece) -> None:
    with pytest.raises(ModelCorrupt):
        read(pieces.model([*WORDS, piece]))


def test_bent_by_chance() -> None:
    good, said, chance = pieces.model(WORDS), pieces.tokenizer(WORDS), random.Random(5)
    for data in (b"", b"\xff" * 30, good[:-1], good[:100], b"\x0a\xff\xff\xff\xff\x0f", b"\x80\x02cposix\nsystem\n."):
        with pytest.raises((ModelCorrupt, ModelUnsupported)):
            read(data, said)
    noticed = 0
    for _ in range(200):
        bent = bytearray(good)
        bent[chance.randrange(len(bent))] ^= 1 << chance.randrange(8)
        try:
            read(bytes(bent), said)
        except (ModelCorrupt, ModelUnsupported):
            noticed += 1
    assert noticed > 100  # what is left is, say, a digit of a score
