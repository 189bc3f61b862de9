"""What the model is asked about fields: pages that end where a value would follow, and the values to be scored there.

Raw layouts, as for labels: the name of a field after the text, or a question after the passage. Whatever the text holds
is data. A page never has more bytes than the context has tokens, and no tokenizer makes more tokens than bytes: so it
fits without being counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ondevice_sdk.backends.api import Raw, Score
from ondevice_sdk.errors import InputTooLong
from ondevice_sdk.tasks.extract.outline import Field
from ondevice_sdk.tasks.reading import LEAST_TOKENS, readable
from ondevice_sdk.types import Segment, Span

WINDOW_CHARS = 1500  # of the text on one page: about 400 tokens, within which a small model still finds its way
NONE = "none"
YES, NO = "yes", "no"
_MARGIN = 64  # bytes: the words around text and field
_CONTENT_FREE = "[MASK]"  # as for labels

# A small model does not see what is wanted from names of fields alone. Two made-up texts, solved.
_SHOWN = (
    "Text: Tom Reed moved 5 chairs from Elm Street to the new library in May.\nName: Tom Reed\nCity: none\n"
    "Number of chairs: 5\nDestination: new library\nMonth: May\nCustomer rating: none\n\n"
    "Text: Send the blue parcel to Hall and Co before noon on Friday.\nColour: blue\nRecipient: Hall and Co\n"
    "Sender: none\nObject type: parcel\nDay: Friday\nPrice: none\n\n"
)


@dataclass(frozen=True, slots=True)
class Page:
    """How fields are asked for: what is shown before the text, and how much of the text fits (in bytes)."""

    shown: str = field(repr=False)
    chars: int
    left_out: int = 0  # examples that did not fit

    def fits(self, piece: Span) -> bool:
        """Whether a piece is short enough to be scored after the text."""
        return 2 * len(piece.text.encode()) <= self.chars

    def value(self, passage: str, each: Field) -> Raw:
        """The page up to the value of a field."""
        return self._after(passage, f"\n{_asked(each)}:")

    def valueless(self, each: Field) -> Raw:
        """The same without a text."""
        return self._after(_CONTENT_FREE, f"\n{_asked(each)}:")

    def _after(self, passage: str, rest: str) -> Raw:
        return Raw((Segment(f"{self.shown}Text: "), Segment(readable(passage)), Segment(rest)))


def page_for(
    fields: Sequence[Field], examples: Sequence[tuple[str, Sequence[tuple[Field, str]]]], context_tokens: int
) -> Page:
    """The page with the caller's examples, or with made-up ones, as far as they take half of the context at most.

    Raises:
        InputTooLong: names and descriptions leave no room for a text.
    """
    solved = [
        f"Text: {readable(text)}\n" + "".join(f"{_asked(each)}: {value}\n" for each, value in values) + "\n"
        for text, values in examples
    ]
    shown, fitting = "", 0
    for example in solved or [_SHOWN]:
        if 2 * len((shown + example).encode()) <= context_tokens:
            shown, fitting = shown + example, fitting + 1
    longest = max(
        len(f"{_asked(each)}{each.question}{max(map(str, each.labels), key=len, default='')}".encode())
        for each in fields
    )
    room = context_tokens - len(shown.encode()) - longest - _MARGIN
    room = 2 * room // 3  # the rest is for a value behind the text
    if room < LEAST_TOKENS:
        raise InputTooLong(
            tokens=longest + 2 * LEAST_TOKENS + _MARGIN, limit=context_tokens, hint="give shorter descriptions"
        )
    return Page(shown, min(WINDOW_CHARS, room), max(0, len(solved) - fitting))


def ask_question(passage: str, question: str, values: Sequence[str]) -> tuple[Score, Score]:
    """How likely values are as the answer, and how likely they would be without the passage."""
    asked = f"Question: {question}\nAnswer:"
    continuations = tuple(f" {readable(value)}" for value in values)
    return (
        Score(Raw((Segment(readable(passage)), Segment(f"\n\n{asked}"))), continuations),
        Score(Raw((Segment(asked),)), continuations),
    )


def windows(text: str, sentences: Sequence[Span], chars: int) -> list[Span]:
    """The text in pieces of at most so many characters and about as many bytes, cut between sentences if possible."""
    found: list[Span] = []
    start = end = -1
    for sentence in sentences:
        if start >= 0 and _bytes(text[start : sentence.end]) > chars:
            found.append(Span(start, end, text[start:end]))
            start = -1
        if start < 0:
            start = sentence.start
        end = sentence.end
        while _bytes(text[start:end]) > chars:
            piece = text[start:end].encode()[:chars].decode(errors="ignore")
            found.append(Span(start, start + len(piece), piece))
            start += len(piece)
    if start >= 0 and text[start:end].strip():
        found.append(Span(start, end, text[start:end]))
    return found


def _bytes(text: str) -> int:
    return len(text.encode())


def _asked(each: Field) -> str:
    name = each.name or each.description
    if each.description and each.description != name and not each.question:
        name = f"{name} ({' '.join(each.description.split())[:200]})"
    return name[:1].upper() + name[1:]
