"""The vocabulary of a GGUF model: text to tokens and back."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator, Sequence
from typing import Any

from ondevice_sdk.backends.api import Segment
from ondevice_sdk.errors import GenerationFailed

_PIECE_BYTES = 4096


class Vocabulary:
    """Tokenises segments so that only control text becomes special tokens.

    Text that lies between two special tokens is tokenised in one call whatever segments it is made of: a border between
    segments changes no token, and the space that SentencePiece vocabularies put before a text comes only where
    llama.cpp's own tokeniser would put it.
    """

    def __init__(self, vocab: Any) -> None:
        import llama_cpp

        self._lib = llama_cpp
        self._vocab = vocab
        self.size: int = llama_cpp.llama_vocab_n_tokens(vocab)
        self._bytes: list[bytes | None] = [None] * self.size
        self._buffer = ctypes.create_string_buffer(_PIECE_BYTES)
        control, defined = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL, llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED
        special: dict[str, int] = {}
        markers: list[str] = []
        end = {llama_cpp.llama_vocab_eos(vocab), llama_cpp.llama_vocab_eot(vocab)} - {-1}
        for token in range(self.size):
            attributes = llama_cpp.llama_vocab_get_attr(vocab, token)
            if not attributes & (control | defined):
                continue
            if llama_cpp.llama_vocab_is_eog(vocab, token):
                end.add(token)
            text = self._piece(token, special=True).decode("utf-8", "replace")
            if not text:
                continue
            if attributes & control:
                special[text] = token
            elif text.startswith("<") and text.endswith(">"):
                special[text] = token
                markers.append(text)  # llama.cpp recognises these in plain text too
        self.end_tokens = frozenset(end)
        self._special = special
        self._special_pattern = _alternation(list(special))
        self._marker_pattern = _alternation(markers)

    def tokenize(self, segments: Sequence[Segment]) -> list[int]:
        """Token ids; adds nothing before or after."""
        tokens: list[int] = []
        run: list[str] = []
        for piece in self._pieces(segments):
            if isinstance(piece, str):
                run.append(piece)
                continue
            tokens += self._plain("".join(run))
            run.clear()
            if piece is not None:
                tokens.append(piece)
        return tokens + self._plain("".join(run))

    def around(self) -> tuple[list[int], list[int]]:
        """The tokens that the model wants before and after a text."""
        plain, whole = self._plain("a"), self._plain("a", special=True)
        starts = (at for at in range(len(whole)) if whole[at : at + len(plain)] == plain)
        start = next(starts, 0)
        return whole[:start], whole[start + len(plain) :]

    def token_bytes(self, token: int) -> bytes:
        """Bytes of a token in the output; empty for control tokens."""
        known = self._bytes[token]
        if known is None:
            known = self._bytes[token] = self._piece(token, special=False)
        return known

    def text(self, token: int) -> str:
        """A token as it is written in a template; empty for no token (-1)."""
        return "" if token < 0 else self._piece(token, special=True).decode("utf-8", "replace")

    def _pieces(self, segments: Sequence[Segment]) -> Iterator[str | int | None]:
        """Text, special tokens, and None where a marker in data has to be broken up."""
        for segment in segments:
            text, start = segment.text, 0
            if segment.kind == "control":
                for match in self._special_pattern.finditer(text):
                    yield text[start : match.start()]
                    yield self._special[match.group()]
                    start = match.end()
            else:
                for match in self._marker_pattern.finditer(text):
                    yield text[start : match.start() + 1]
                    yield None
                    start = match.start() + 1
            yield text[start:]

    def _plain(self, text: str, *, special: bool = False) -> list[int]:
        if not text:
            return []
        data = text.encode("utf-8", "replace")  # a lone surrogate has no UTF-8 form
        room = len(data) + 8
        for _ in range(2):
            tokens = (ctypes.c_int32 * room)()
            count = self._lib.llama_tokenize(self._vocab, data, len(data), tokens, room, special, False)
            if count >= 0:
                return tokens[:count]
            room = -count
        raise GenerationFailed("the text could not be tokenised")

    def _piece(self, token: int, *, special: bool) -> bytes:
        buffer = self._buffer
        length = self._lib.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, special)
        if length < 0:
            self._buffer = ctypes.create_string_buffer(-length)
            return self._piece(token, special=special)
        return ctypes.string_at(buffer, length)


def _alternation(texts: list[str]) -> re.Pattern[str]:
    """A pattern for any of the texts, the longest first; one that never matches for none."""
    if not texts:
        return re.compile(r"(?!)")
    return re.compile("|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True)))
