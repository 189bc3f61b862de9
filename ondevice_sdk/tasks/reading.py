"""Reading a text of any length: pieces that fit into the context, cut at sentence borders, none left out."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ondevice_sdk.backends.api import Prompt, Tokenize, Tokenized
from ondevice_sdk.errors import GenerationFailed, InputTooLong
from ondevice_sdk.tasks.flow import Flow, Step
from ondevice_sdk.text.split import cover, sentences
from ondevice_sdk.types import Span

CHUNK_TOKENS = 1200  # small models lose the thread in more, however large their context
LEAST_TOKENS = 24  # room for the text itself, below which reading makes no sense
_MARGIN = 8  # tokens; pieces counted alone and together differ by a few
_PIECE_CHARS = 300  # short sentences are counted together
_REQUEST_CHARS = 100_000  # characters of one counting request

_GAP = re.compile(r"\s{3,}+")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of the document. Chunks join back to the whole text; `tokens` may count a few too many."""

    span: Span
    tokens: int

    @property
    def text(self) -> str:
        """The piece as the model gets it: without outer and without repeated white space."""
        return readable(self.span.text)


@dataclass(frozen=True, slots=True)
class Room:
    """What a prompt leaves for the text: `frame` is the prompt around an empty text, `answer` the tokens to come."""

    frame: Prompt = field(repr=False)
    answer: int


def readable(text: str) -> str:
    """Long runs of white space made short, which carry no meaning but cost tokens."""
    return _GAP.sub(lambda gap: "\n\n" if "\n" in gap.group() else " ", text.strip())


def count_tokens(texts: Sequence[str], prompts: Sequence[Prompt] = ()) -> Flow[tuple[list[int], list[int]]]:
    """Count tokens of texts and of prompts, in requests of bounded size."""
    requests = []
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and size + len(text) > _REQUEST_CHARS:
            requests.append(Tokenize(texts=tuple(batch)))
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    requests.append(Tokenize(texts=tuple(batch), prompts=tuple(prompts)))
    results = yield Step(tuple(requests), "measuring")
    counts: list[int] = []
    for result in results:
        if not isinstance(result, Tokenized):
            raise GenerationFailed("the engine answered a token count with something else")
        counts.extend(result.counts)
    if len(counts) != len(texts) + len(prompts):
        raise GenerationFailed("the engine counted other texts than it was asked for")
    return counts[: len(texts)], counts[len(texts) :]


def split_to_fit(text: str, rooms: Sequence[Room], context_tokens: int, most: int = CHUNK_TOKENS) -> Flow[list[Chunk]]:
    """Split a text into chunks that each fit into every one of the prompts, with room for the answer.

    Raises:
        InputTooLong: the prompt alone leaves no room for text.
    """
    pieces = _pieces(text)
    counts, frames = yield from count_tokens([readable(piece.text) for piece in pieces], [r.frame for r in rooms])
    budget = min(most, room_for_text(rooms, frames, context_tokens))
    return pack(pieces, counts, budget)


def room_for_text(rooms: Sequence[Room], frames: Sequence[int], context_tokens: int) -> int:
    """Tokens that the tightest of some prompts leaves for the text.

    Raises:
        InputTooLong: less than `LEAST_TOKENS`.
    """
    needed = max(frame + room.answer for room, frame in zip(rooms, frames, strict=True)) + _MARGIN
    if context_tokens - needed < LEAST_TOKENS:
        raise InputTooLong(
            tokens=needed + LEAST_TOKENS,
            limit=context_tokens,
            hint="give shorter instructions or examples, or load the model with a larger context",
        )
    return context_tokens - needed


def pack(pieces: Sequence[Span], counts: Sequence[int], budget: int) -> list[Chunk]:
    """Join neighbouring pieces into chunks of at most `budget` tokens and about equal size."""
    parts = [
        part
        for piece, count in zip(pieces, counts, strict=True)
        for part in ([Chunk(piece, count + 1)] if count < budget else _hard_split(piece, budget))
    ]
    total = sum(part.tokens for part in parts)
    goal = total / max(1, math.ceil(total / budget))
    chunks: list[Chunk] = []
    group: list[Chunk] = []
    filled = 0
    for part in parts:
        if group and (filled >= goal or filled + part.tokens > budget):
            chunks.append(_join(group))
            group, filled = [], 0
        group.append(part)
        filled += part.tokens
    if group:
        chunks.append(_join(group))
    return chunks


def _join(group: Sequence[Chunk]) -> Chunk:
    first, last = group[0].span, group[-1].span
    joined = Span(first.start, last.end, "".join(part.span.text for part in group))
    return Chunk(joined, sum(part.tokens for part in group))


def _pieces(text: str) -> list[Span]:
    """Sentences with the white space after them, short neighbours joined: together the whole text."""
    pieces: list[Span] = []
    group: list[Span] = []
    size = 0
    for sentence in cover(text, sentences(text)):
        if group and size + len(sentence.text) > _PIECE_CHARS:
            pieces.append(_join_spans(group))
            group, size = [], 0
        group.append(sentence)
        size += len(sentence.text)
    if group:
        pieces.append(_join_spans(group))
    return pieces


def _join_spans(group: Sequence[Span]) -> Span:
    return Span(group[0].start, group[-1].end, "".join(span.text for span in group))


def _hard_split(piece: Span, budget: int) -> list[Chunk]:
    """Split by characters. No tokenizer makes more tokens of a text than its UTF-8 bytes, plus one for a start mark."""
    if len(readable(piece.text).encode()) < budget:
        return [Chunk(piece, budget)]
    step = max(1, (budget - 1) // 4)
    if piece.text.isascii():
        step = max(1, budget - 1)
    return [
        Chunk(
            Span(start, min(start + step, piece.end), piece.text[start - piece.start : start - piece.start + step]),
            budget,
        )
        for start in range(piece.start, piece.end, step)
    ]
