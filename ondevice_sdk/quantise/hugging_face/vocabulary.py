"""Vocabularies as GGUF's metadata, and those of a `tokenizer.json` that write bytes and merge pair by pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypedDict

from ondevice_sdk.errors import ModelCorrupt, ModelUnsupported
from ondevice_sdk.quantise.hugging_face import pretokenisers
from ondevice_sdk.store.gguf_writer import Value

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # ggml's kinds of tokens
_PLAIN: Final = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))  # bytes that stand for themselves
_OTHERS: Final = tuple(byte for byte in range(256) if byte not in _PLAIN)
# The characters that byte-level vocabularies write bytes with, by byte: https://github.com/openai/gpt-2 (encoder.py).
_LETTERS: Final = {**{byte: chr(byte) for byte in _PLAIN}, **{byte: chr(0x100 + n) for n, byte in enumerate(_OTHERS)}}
ALPHABET: Final = frozenset(_LETTERS.values())
# No text needs these: control characters but tab and line ends, what is not in UTF-8, and planes with no characters.
# SmolLM2 lacks 21 of them. llama.cpp leaves out such a byte, and so do tokenisers without a token for the unknown.
_SPARE: Final = frozenset(
    _LETTERS[byte] for byte in (*range(9), 11, 12, *range(14, 32), 127, 0xC0, 0xC1, 0xF1, 0xF2, *range(0xF4, 0x100))
)
_STRIPPING: Final = ("lstrip", "rstrip", "single_word")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by number, their kinds, and the tokens (by text) that belong before and after every text.

    Bytes are merged pair by pair in the order of `merges`, characters by `scores`: one of the two is there.
    """

    pre: str
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]
    merges: tuple[str, ...] = ()
    scores: tuple[float, ...] | None = None

    def metadata(self) -> dict[str, Value]:
        """GGUF's metadata, without the special tokens."""
        common: dict[str, Value] = {
            "tokenizer.ggml.pre": self.pre,
            "tokenizer.ggml.tokens": self.tokens,
            "tokenizer.ggml.token_type": self.kinds,
        }
        if self.scores is None:
            return {"tokenizer.ggml.model": "gpt2", **common, "tokenizer.ggml.merges": self.merges}
        return {
            "tokenizer.ggml.model": "llama",
            **common,
            "tokenizer.ggml.scores": self.scores,
            "tokenizer.ggml.add_space_prefix": True,
        }


class Around(TypedDict):
    """The tokens that the template of a text has before and after it."""

    before: tuple[str, ...]
    after: tuple[str, ...]


def read(tokenizer: Mapping[str, Any], size: int) -> Vocabulary:
    """The vocabulary.

    Args:
        tokenizer: the content of `tokenizer.json`.
        size: rows of the embedding; numbers that no token has are filled up.

    Raises:
        ModelUnsupported: another kind of vocabulary, or one that llama.cpp would read in another way. ModelCorrupt: it
            contradicts itself.
    """
    model, added = tokenizer.get("model"), tokenizer.get("added_tokens") or []
    if not isinstance(model, dict) or not isinstance(added, list):
        raise ModelCorrupt("tokenizer.json is damaged", expected="a model and tokens")
    _require_byte_level(tokenizer, model)
    pre = pretokenisers.name_of(tokenizer)
    special = added_tokens(added)
    words = _words(model.get("vocab"), special)
    tokens, kinds = numbered(words, special, size)
    merges = _merges(model.get("merges"), words)
    return Vocabulary(pre, tokens, kinds, merges=merges, **around(tokenizer.get("post_processor")))


def as_utf8(text: str, label: str) -> bytes:
    """The bytes of a text that comes from JSON, where it may hold half a character.

    Raises:
        ModelCorrupt: it does.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ModelCorrupt(f"{label} is no text") from error


def _require_byte_level(tokenizer: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    decoder = tokenizer.get("decoder")
    fine = (
        model.get("type") == "BPE"
        and not model.get("dropout")
        and not model.get("continuing_subword_prefix")
        and not model.get("end_of_word_suffix")
        and not model.get("byte_fallback")
        and isinstance(decoder, dict)
        and decoder.get("type") == "ByteLevel"
    )
    if not fine:
        raise ModelUnsupported(
            "the model cannot be converted: only byte-level vocabularies with merges are",
            hint="a GGUF file of the model may be found ready-made",
        )


def added_tokens(entries: list[Any]) -> dict[str, tuple[int, int]]:
    """Number and kind of the tokens that are cut out of a text before anything else, by their text.

    Raises:
        ModelCorrupt: an entry is damaged. ModelUnsupported: a token takes more of a text than itself.
    """
    made: dict[str, tuple[int, int]] = {}
    for entry in entries:
        text, number = (entry.get("content"), entry.get("id")) if isinstance(entry, dict) else (None, None)
        if not isinstance(text, str) or not text or type(number) is not int or text in made:
            raise ModelCorrupt("tokenizer.json: an added token is impossible")
        as_utf8(text, "an added token")
        if any(entry.get(flag) for flag in _STRIPPING):
            raise ModelUnsupported(
                "the model cannot be converted: one of its special tokens swallows the spaces beside it"
            )
        made[text] = number, CONTROL if entry.get("special") is True else USER_DEFINED
    return made


def _words(entries: object, special: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    """Numbers of the words that merges make, all written in the alphabet of bytes."""
    if not isinstance(entries, dict) or not all(type(number) is int for number in entries.values()):
        raise ModelCorrupt("tokenizer.json: the vocabulary is damaged")
    for text, (number, _) in special.items():
        if entries.get(text, number) != number:
            raise ModelCorrupt("tokenizer.json: a token has two numbers")
    words: dict[str, int] = {text: number for text, number in entries.items() if text not in special}
    if not words.keys() >= ALPHABET - _SPARE or not all(text and ALPHABET.issuperset(text) for text in words):
        raise ModelUnsupported("the model cannot be converted: its vocabulary is not one of bytes")
    return words


def numbered(
    words: Mapping[str, int], special: Mapping[str, tuple[int, int]], size: int
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Tokens and their kinds by number; gaps are filled with tokens that are not used.

    Raises:
        ModelCorrupt: a number is not one of a row, or two tokens have the same.
    """
    tokens: list[str | None] = [None] * size
    kinds = [UNUSED] * size
    for text, (number, kind) in ({text: (number, NORMAL) for text, number in words.items()} | dict(special)).items():
        if not 0 <= number < size:
            raise ModelCorrupt("tokenizer.json has a token that the model has no row for", expected=f"at most {size}")
        if tokens[number] is not None:
            raise ModelCorrupt("tokenizer.json: two tokens have one number")
        tokens[number], kinds[number] = text, kind
    named = tuple(f"[PAD{number}]" if text is None else text for number, text in enumerate(tokens))
    if len(set(named)) != size:
        raise ModelCorrupt("tokenizer.json: a token is called like one that is not used")
    return named, tuple(kinds)


def _merges(entries: object, words: Mapping[str, int]) -> tuple[str, ...]:
    """Merges in GGUF's form; both parts and what they make are words."""
    if not isinstance(entries, list):
        raise ModelCorrupt("tokenizer.json has no merges")
    made = []
    for entry in entries:
        pair = entry.split(" ") if isinstance(entry, str) else entry
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise ModelCorrupt("tokenizer.json: a merge is damaged")
        if pair[0] not in words or pair[1] not in words or pair[0] + pair[1] not in words:
            raise ModelCorrupt("tokenizer.json: a merge makes no word of the vocabulary")
        made.append(f"{pair[0]} {pair[1]}")
    if len(set(made)) != len(made):
        raise ModelCorrupt("tokenizer.json: a merge comes twice")
    return tuple(made)


def around(processor: Any) -> Around:
    """What a post-processor puts around a text.

    Raises:
        ModelCorrupt: it is damaged. ModelUnsupported: it does something else.
    """
    before: list[str] = []
    after: list[str] = []
    try:
        for part in pretokenisers.flat(processor, "processors"):
            if part["type"] == "ByteLevel":
                continue
            if part["type"] != "TemplateProcessing" or before or after:
                raise ModelUnsupported("the model cannot be converted: its tokeniser adds tokens in an unknown way")
            texts = [place for place, each in enumerate(part["single"]) if "Sequence" in each]
            names = [each["SpecialToken"]["id"] if "SpecialToken" in each else "" for each in part["single"]]
            (middle,) = texts
            before, after = names[:middle], names[middle + 1 :]
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ModelCorrupt("tokenizer.json: its post-processor is damaged") from error
    return {"before": tuple(before), "after": tuple(after)}
