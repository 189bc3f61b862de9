"""The vocabulary of a model folder: text to tokens and back, from its `tokenizer.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from ondevice_sdk.backends.api import Segment
from ondevice_sdk.errors import ModelCorrupt, ModelUnsupported

SPACE: Final = "\u2581"  # how SentencePiece writes a space
_MOST_TOKENS: Final = 1 << 24  # what a file says decides how much memory is taken
_BYTE: Final = re.compile(r"<0x([0-9A-F]{2})>")


class Vocabulary:
    """Tokenises segments so that only control text becomes special tokens.

    Text that lies between two special tokens is tokenised in one call whatever segments it is made of: a border between
    segments changes no token.
    """

    def __init__(self, description: Mapping[str, Any]) -> None:
        """Take the content of a `tokenizer.json`.

        Raises:
            ModelCorrupt: it is none. ModelUnsupported: it is of a kind that is not known here.
        """
        from tokenizers import Tokenizer

        try:
            added = [(int(each["id"]), str(each["content"]), bool(each.get("special"))) for each in _added(description)]
            words = _words(description)
            if not all(_is_token(token) for token in (*words.values(), *(token for token, _, _ in added))):
                raise ValueError
            # Without the added tokens it sees nothing but text; without the processor it adds nothing.
            plain = {**description, "added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
            self._tokenizer = Tokenizer.from_str(json.dumps(plain, ensure_ascii=False))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelCorrupt("tokenizer.json does not describe a tokeniser") from error
        except Exception as error:  # what the library raises is a bare Exception
            raise ModelCorrupt("tokenizer.json is not what the tokeniser library reads") from error
        self._to_bytes = _to_bytes(description)
        self.size = 1 + max((*words.values(), *(token for token, _, _ in added)), default=-1)
        self._texts: list[str | None] = [None] * self.size
        for word, token in words.items():
            self._texts[token] = word
        self.control: dict[str, int] = {}
        in_data: dict[str, int] = {}  # what is one token in plain text, too
        self._whole: dict[int, bytes] = {}
        for token, content, special in added:
            self._texts[token] = content
            self.control[content] = token
            self._whole[token] = b"" if special else content.encode()
            if not special and not (content.startswith("<") and content.endswith(">")):
                in_data[content] = token
        self.begin = self.control.get(_before(description.get("post_processor")))  # put before a text by the pipeline
        self._in_control = _alternation(self.control)
        self._in_data = _alternation(in_data)

    def tokenize(self, segments: Sequence[Segment]) -> list[int]:
        """Token ids; adds nothing before or after."""
        tokens: list[int] = []
        run: list[str] = []
        for segment in segments:
            pattern = self._in_control if segment.kind == "control" else self._in_data
            start = 0
            for match in pattern.finditer(segment.text):
                run.append(segment.text[start : match.start()])
                tokens += self.plain("".join(run))
                run.clear()
                tokens.append(self.control[match.group()])
                start = match.end()
            run.append(segment.text[start:])
        return tokens + self.plain("".join(run))

    def plain(self, text: str) -> list[int]:
        """Tokens of a text in which nothing is special."""
        if not text:
            return []
        whole = text.encode("utf-8", "replace").decode()  # a lone surrogate has no UTF-8 form
        return list(self._tokenizer.encode(whole, add_special_tokens=False).ids)

    def token_bytes(self, token: int) -> bytes:
        """Bytes of a token in the output; empty for control tokens, and for ids that stand for nothing."""
        known = self._whole.get(token)
        if known is None:
            text = self._texts[token] if 0 <= token < self.size else None
            known = self._whole[token] = b"" if text is None else self._to_bytes(text)
        return known

    def text(self, token: int | None) -> str:
        """A token as it is written in a template; empty for none."""
        return "" if token is None or not 0 <= token < self.size else self._texts[token] or ""

    def for_grammars(self, size: int, end_tokens: Iterable[int], begin: int | None) -> Any:
        """The vocabulary as llguidance wants it, with as many entries as there are logits."""
        from llguidance import LLTokenizer, TokenizerWrapper

        ends = sorted(end_tokens)
        wrapped = TokenizerWrapper(_Wrapped(self, size, ends[0] if ends else 0, begin))
        return LLTokenizer(wrapped, n_vocab=size, eos_token=ends or None)


class _Wrapped:
    """What llguidance asks of a tokeniser."""

    def __init__(self, vocabulary: Vocabulary, size: int, end: int, begin: int | None) -> None:
        self.eos_token_id = end
        self.bos_token_id = begin
        self.special_token_ids = [token for token in vocabulary.control.values() if token < size]
        special = set(self.special_token_ids)
        self.tokens = [
            vocabulary.text(token).encode() if token in special else vocabulary.token_bytes(token)
            for token in range(size)
        ]
        self._vocabulary = vocabulary

    def __call__(self, text: bytes | str) -> list[int]:
        """Tokens of a text; bytes are not text, and llguidance then sends none."""
        if isinstance(text, bytes):
            text = text.decode()
        return self._vocabulary.plain(text)


def byte_characters() -> dict[int, str]:
    """The character by which byte-level vocabularies write each byte: printable ones stand for themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + place) for place, byte in enumerate(others)}


def _added(description: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    added = description.get("added_tokens") or []
    if not isinstance(added, list):
        raise TypeError
    return added


def _words(description: Mapping[str, Any]) -> dict[str, int]:
    model = description["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        return vocabulary
    if model.get("type") == "Unigram":
        return {str(word): token for token, (word, _) in enumerate(vocabulary)}
    raise TypeError


def _is_token(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < _MOST_TOKENS


def _to_bytes(description: Mapping[str, Any]) -> Callable[[str], bytes]:
    decoder = description.get("decoder")
    kinds = set(_kinds(decoder))
    if "ByteLevel" in kinds:
        to_byte = {character: byte for byte, character in byte_characters().items()}

        def byte_level(text: str) -> bytes:
            try:
                return bytes(map(to_byte.__getitem__, text))
            except KeyError:  # a word that was added without being written in this alphabet
                return text.encode()

        return byte_level
    if kinds & {"Metaspace", "ByteFallback", "Replace"}:
        return _sentence_piece
    raise ModelUnsupported("the tokeniser is neither byte-level nor of SentencePiece's kind")


def _before(part: Any) -> str:
    """What a part of the pipeline that adds special tokens puts before a text; empty if nothing."""
    if not isinstance(part, dict):
        return ""
    layout = part.get("single")
    if isinstance(layout, list) and layout and isinstance(layout[0], dict):
        token = layout[0].get("SpecialToken")
        return str(token.get("id")) if isinstance(token, dict) else ""
    parts = part.get("processors")
    return next(filter(None, map(_before, parts if isinstance(parts, list) else ())), "")


def _kinds(part: Any) -> Iterable[str]:
    """Types of a part of the pipeline and of what it is made of."""
    if isinstance(part, dict):
        yield str(part.get("type"))
        for each in part.get("decoders") or ():
            yield from _kinds(each)


def _sentence_piece(text: str) -> bytes:
    match = _BYTE.fullmatch(text)
    return bytes([int(match[1], 16)]) if match else text.replace(SPACE, " ").encode()


def _alternation(texts: Iterable[str]) -> re.Pattern[str]:
    """A pattern for any of the texts, the longest first; one that never matches for none."""
    found = sorted(filter(None, texts), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, found)) or r"(?!)")
