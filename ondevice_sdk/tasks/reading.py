"""Reading a text of any length: pieces that fit into the context, cut at sections and sentences, none left out."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ondevice_sdk.backends.api import Prompt, Tokenize, Tokenized
from ondevice_sdk.errors import GenerationFailed, InputTooLong
from ondevice_sdk.tasks.flow import Flow, Step
from ondevice_sdk.text.split import CLOSERS, SENTENCE_ENDS, cover, paragraphs, sentences
from ondevice_sdk.types import Span

CHUNK_TOKENS = 1200  # small models lose the thread in more, however large their context
LEAST_TOKENS = 24  # room for the text itself, below which reading makes no sense
_MARGIN = 8  # tokens; pieces counted alone and together differ by a few
_PIECE_CHARS = 300  # short sentences are counted together
_LEAST_PIECE_CHARS = 100  # of a piece that ends at a paragraph: a megabyte of empty ones stays few pieces
_REQUEST_CHARS = 100_000  # characters of one counting request
_HEADING_CHARS = 120  # of a paragraph that may be a heading
_NEARLY = 0.7  # share of its goal from which a chunk may end at a section instead of at the goal itself

_NEW_LINE, _PARAGRAPH, _SECTION = 1, 2, 3  # what a chunk had better start with, the best last

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
    pieces, borders = _pieces(text)
    counts, frames = yield from count_tokens([readable(piece.text) for piece in pieces], [r.frame for r in rooms])
    budget = min(most, room_for_text(rooms, frames, context_tokens))
    return pack(pieces, counts, budget, borders)


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


def pack(pieces: Sequence[Span], counts: Sequence[int], budget: int, borders: Sequence[int] = ()) -> list[Chunk]:
    """Join neighbouring pieces into chunks of at most `budget` tokens and about equal size.

    Args:
        pieces: the text in order.
        counts: tokens of each.
        budget: most tokens of a chunk.
        borders: how good a place the start of each piece is to begin a chunk, from `_borders`; empty: all the same.
    """
    parts: list[Chunk] = []
    ranks: list[int] = []
    for index, (piece, count) in enumerate(zip(pieces, counts, strict=True)):
        split = [Chunk(piece, count + 1)] if count < budget else _hard_split(piece, budget)
        parts.extend(split)
        ranks.extend([borders[index] if borders else 0, *([0] * (len(split) - 1))])
    return [_join(parts[first:last]) for first, last in _cuts([part.tokens for part in parts], ranks, budget)]


def even_groups(notes: Sequence[str], counts: Sequence[int], budget: int) -> list[list[str]]:
    """Neighbouring notes that fit together, in groups of about equal size.

    A note that fills the budget alone is shortened to a safe size.
    """
    fitting = [
        note if count <= budget else note[: max(1, budget // 4)] for note, count in zip(notes, counts, strict=True)
    ]
    sizes = [min(count, budget) for count in counts]
    return [fitting[first:last] for first, last in _cuts(sizes, [0] * len(sizes), budget)]


def _cuts(sizes: Sequence[int], ranks: Sequence[int], budget: int) -> list[tuple[int, int]]:
    """Ranges of neighbours of at most `budget` in sum: even ones, each ended at the best border near its goal."""
    left = sum(sizes)
    cuts: list[tuple[int, int]] = []
    first = 0
    while first < len(sizes):
        goal = left / max(1, math.ceil(left / budget))
        filled, best, at, taken = 0, (-1, 0.0), first + 1, sizes[first]
        for index in range(first, len(sizes)):
            if index > first and filled + sizes[index] > budget:
                break
            filled += sizes[index]
            end = index + 1
            rank = ranks[end] if end < len(sizes) else _SECTION
            # Near its goal the best border counts, elsewhere only the nearness.
            worth = (rank if filled >= _NEARLY * goal else -1, -abs(filled - goal))
            if best == (-1, 0.0) or worth > best:
                best, at, taken = worth, end, filled
            if filled > (2 - _NEARLY) * goal:
                break
        cuts.append((first, at))
        left -= taken
        first = at
    return cuts


def _join(group: Sequence[Chunk]) -> Chunk:
    first, last = group[0].span, group[-1].span
    joined = Span(first.start, last.end, "".join(part.span.text for part in group))
    return Chunk(joined, sum(part.tokens for part in group))


def _pieces(text: str) -> tuple[list[Span], list[int]]:
    """Sentences with the white space after them, short neighbours joined; and the borders before them."""
    spans = cover(text, sentences(text))
    ranks = _borders(text, spans)
    pieces: list[Span] = []
    kept: list[int] = []
    group: list[Span] = []
    size = 0
    for span, rank in zip(spans, ranks, strict=True):
        full = size + len(span.text) > _PIECE_CHARS
        if group and (full or (rank >= _PARAGRAPH and size >= _LEAST_PIECE_CHARS)):
            pieces.append(_join_spans(group))
            group, size = [], 0
        if not group:
            kept.append(rank)
        group.append(span)
        size += len(span.text)
    if group:
        pieces.append(_join_spans(group))
    return pieces, kept


def _borders(text: str, spans: Sequence[Span]) -> list[int]:
    """How good the start of each sentence is to begin a chunk: a heading, a paragraph, a line or turn, or none.

    A paragraph under a heading is no border: the heading belongs to it.
    """
    starts = {block.start: block for block in paragraphs(text)}
    ranks: list[int] = []
    after_heading = False
    for span in spans:
        start = span.start + len(span.text) - len(span.text.lstrip())
        block = starts.get(start)
        heading = block is not None and _is_heading(block.text)
        if after_heading:
            rank = 0
        elif heading:
            rank = _SECTION
        elif block is not None:
            rank = _PARAGRAPH
        else:
            rank = _NEW_LINE if text[max(0, start - 1) : start] in ("\n", "\r") else 0
        ranks.append(rank)
        after_heading = heading and not after_heading
    return ranks


def _is_heading(block: str) -> bool:
    """Whether a paragraph is one short line that does not end like a sentence, or is marked as a heading."""
    line = block.rstrip(CLOSERS)
    if "\n" in block or len(block) > _HEADING_CHARS:
        return False
    return block.startswith("#") or line[-1:] not in {*SENTENCE_ENDS, ",", ";", ":"}


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
