"""The vocabulary of a model as OpenVINO GenAI's tokeniser has it: text to tokens, and tokens to bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from ondevice_sdk.backends.api import Segment
from ondevice_sdk.errors import ModelUnsupported

# A tokeniser may keep only the last thousands of tokens, silently: that of a GGUF file does whatever it is told.
_NO_LIMIT: Final = 2**31 - 1
_MORE: Final = 9000  # tokens by which a limit shows; GGUF's is 8192
_BORDER: Final = re.compile(r"(?<=\S) (?=[^\W\d_])")  # words are tokenised apart, with the space before them
_PROBE: Final = 'Ab é 日本 🦊 {"x": 12}'
_LINES: Final = frozenset(b"\n\r\t")
_BYTE: Final = re.compile(rb"<0x([0-9A-Fa-f]{2})>")
_WORD_BREAK: Final = "▁".encode()  # SentencePiece's space
# What ends a turn or a text, in the words of the model families that the pipelines run.
_ENDS: Final = (
    *("<|im_end|>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "</s>", "<eos>", "<end_of_turn>"),
    *("<|end|>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "<|return|>", "<|endofturn|>"),
)


class Vocabulary:
    """Tokenises segments so that only control text becomes special tokens.

    Text between two special tokens is tokenised in one piece whatever segments it is made of: a border between segments
    changes no token.
    """

    def __init__(self, tokenizer: Any, *, begin: bool | None = None) -> None:
        """Read the vocabulary.

        Args:
            tokenizer: OpenVINO GenAI's.
            begin: whether the model wants its begin token before a raw prompt; None: as the tokeniser does.

        Raises:
            ModelUnsupported: it is not told which tokens are special, or what bytes they stand for.
        """
        self._tokenizer = tokenizer
        self._limit = _NO_LIMIT
        longest = len(self.encode(["a " * _MORE])[0])
        if longest < _MORE:
            self._limit = longest
        known: Mapping[bytes, int] = tokenizer.get_vocab()
        if not known:
            raise ModelUnsupported("the model's tokeniser does not show its vocabulary")
        self.size = max(known.values()) + 1
        raw = [b""] * self.size
        for word, token in known.items():
            raw[token] = word
        self._special = self._find_special(raw)
        self._pattern = _alternation(list(self._special))
        self._written = self._as_bytes(raw)  # also of control tokens, as a grammar sees them
        # Tokens with a line break or a tab, which JSON has between its parts only.
        self.lines = frozenset(token for token, word in enumerate(self._written) if not _LINES.isdisjoint(word))
        control = set(self._special.values())
        self._shown = [b"" if token in control else word for token, word in enumerate(self._written)]
        self.chat_template: str | None = tokenizer.get_original_chat_template() or tokenizer.chat_template or None
        self.begin_token = self._find_begin(begin)
        bos, eos = tokenizer.get_bos_token(), tokenizer.get_eos_token()
        self.template_variables: Mapping[str, str] = MappingProxyType({"bos_token": bos, "eos_token": eos})
        self.end_tokens = frozenset(self._special[name] for name in (eos, *_ENDS) if name in self._special)

    def tokenize(self, segments: Sequence[Segment]) -> list[int]:
        """Token ids; adds nothing before or after."""
        plan: list[str | int] = []
        run: list[str] = []
        for piece in self._pieces(segments):
            if isinstance(piece, str):
                run.append(piece)
                continue
            plan += self._broken("".join(run))
            run.clear()
            plan.append(piece)
        plan += self._broken("".join(run))
        texts = iter(self.encode([piece for piece in plan if isinstance(piece, str)]))
        tokens: list[int] = []
        for piece in plan:
            tokens += next(texts) if isinstance(piece, str) else [piece]
        return tokens

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, special tokens in it recognised; nothing is added or cut off."""
        if not texts:
            return []
        clean = [text.encode("utf-8", "replace").decode() for text in texts]  # half a character has no UTF-8 form
        pieces = [list(self._cut(text)) for text in clean]
        found = self._tokenizer.encode(
            [piece for each in pieces for piece in each], add_special_tokens=False, max_length=_NO_LIMIT
        )
        rows = (
            row[mask != 0].tolist() for row, mask in zip(found.input_ids.data, found.attention_mask.data, strict=True)
        )
        return [[token for _ in each for token in next(rows)] for each in pieces]

    def _cut(self, text: str) -> Iterator[str]:
        """Parts that have no more tokens than the tokeniser gives at a time: no more bytes, that is."""
        while len(text) > self._limit or len(text.encode()) > self._limit:
            most = len(text.encode()[: self._limit].decode("utf-8", "ignore"))
            borders = [match.start() for match in _BORDER.finditer(text, 0, most)]
            end = borders[-1] if borders else most
            yield text[:end]
            text = text[end:]
        yield text

    def shown(self, token: int) -> bytes:
        """The bytes a token stands for in the output; empty for control tokens."""
        return self._shown[token] if token < self.size else b""

    def written(self, token: int) -> bytes:
        """The bytes of a token as a grammar takes it: those of a control token are its name."""
        return self._written[token] if token < self.size else b""

    def _pieces(self, segments: Sequence[Segment]) -> Iterator[str | int]:
        """Text, and the special tokens of control segments."""
        for segment in segments:
            text, start = segment.text, 0
            for match in self._pattern.finditer(text) if segment.kind == "control" else ():
                yield text[start : match.start()]
                yield self._special[match.group()]
                start = match.end()
            yield text[start:]

    def _broken(self, text: str) -> Iterator[str]:
        """Plain text in parts, so that the tokeniser sees no name of a special token in it: cut behind its first sign.

        Names are looked for in what lies together, since a border between segments is none for the tokeniser.
        """
        start = at = 0
        while match := self._pattern.search(text, at):
            at = match.start() + 1
            yield text[start:at]
            start = at
        if text[start:]:
            yield text[start:]

    def _find_special(self, raw: Sequence[bytes]) -> dict[str, int]:
        """Names of the tokens that the tokeniser recognises in any text."""
        alone = [[token] for token in range(self.size)]
        shown = self._tokenizer.decode(alone, skip_special_tokens=True)
        whole = self._tokenizer.decode(alone, skip_special_tokens=False)
        named: dict[str, int] = {}
        for token, word in enumerate(raw):
            if whole[token] and not shown[token] and (text := word.decode("utf-8", "ignore")):
                named[text] = token
        if self._tokenizer.get_eos_token() not in named:
            raise ModelUnsupported("the model's tokeniser does not say which of its tokens are special")
        texts = list(named)
        return {
            text: named[text] for text, tokens in zip(texts, self.encode(texts), strict=True) if tokens == [named[text]]
        }

    def _as_bytes(self, raw: list[bytes]) -> list[bytes]:
        """The bytes of all tokens, of a byte-level vocabulary or of SentencePiece's, whichever gives a text back."""
        pieces = [
            _BYTE.sub(lambda match: bytes.fromhex(match[1].decode()), word.replace(_WORD_BREAK, b" ")) for word in raw
        ]
        (tokens,) = self.encode([_PROBE])
        for table in (raw, pieces):
            if b"".join(table[token] for token in tokens).removeprefix(b" ") == _PROBE.encode():
                return table
        raise ModelUnsupported("the tokens of this model's tokeniser cannot be told as bytes")

    def _find_begin(self, wanted: bool | None) -> int | None:
        if wanted is not None:
            token = int(self._tokenizer.get_bos_token_id())
            return token if wanted and token >= 0 else None
        (plain,) = self.encode(["a"])
        whole = self._tokenizer.encode(["a"]).input_ids.data[0].tolist()
        return int(whole[0]) if len(whole) > len(plain) and whole[1 : 1 + len(plain)] == plain else None


def _alternation(texts: list[str]) -> re.Pattern[str]:
    """A pattern for any of the texts, the longest first; one that never matches for none."""
    if not texts:
        return re.compile(r"(?!)")
    return re.compile("|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True)))
