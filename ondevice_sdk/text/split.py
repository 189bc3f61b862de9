"""Sentences, paragraphs and words of any text, with exact offsets, in linear time.

Rules only, no language model and no data files: sentence ends of the Latin, Cyrillic, Greek, Arabic, Indic, Armenian,
Ethiopic and CJK scripts; abbreviations, initials, decimals, list items, headings and hard-wrapped lines. A rule that
guesses wrong moves a border; it never loses a character.
"""

# ruff: noqa: RUF001, SIM905  (look-alike marks of other scripts are the point here; word lists read best as words)

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.types import Span

__all__ = [
    "CLOSERS",
    "SENTENCE_ENDS",
    "check_encodable",
    "check_text",
    "count_words",
    "cover",
    "paragraphs",
    "sentences",
    "touched",
    "words",
]

LONGEST = 1000  # characters; a "sentence" that is longer is split at white space, or else hard

CLOSERS = "\"'”’»›)]}」』）】》〉"
# Possessive quantifiers: a run of marks is read once, so that a megabyte of full stops stays linear.
_END = re.compile(rf"[.!?…‥։።။។؟۔।॥。！？｡]++[{re.escape(CLOSERS)}]*+")
_NO_SPACE_NEEDED = frozenset("。！？｡؟۔।॥።။։។")
_ALWAYS = frozenset("!?…‥") | _NO_SPACE_NEEDED
SENTENCE_ENDS = _ALWAYS | {"."}
_LINE = re.compile(r"[^\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]++")
_BREAK = re.compile(r"\r\n|[\n\r\x1c-\x1e\x85\u2028]")
_PARAGRAPH_MARKS = frozenset("\x0b\x0c\u2029")
_ITEM = re.compile(r"(?:[-*+•–—·▪◦‣#>|]|\(?\d{1,3}[.)、．]|\(?[a-zA-Z][.)])\s")
_SPEAKER = re.compile(r"[^\W\d_][\w.'’-]{0,30}(?: [^\W\d_][\w.'’-]{0,30}){0,3}:\s")
_ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof rev hon st sr jr gen col lt sgt capt cpt maj gov sen rep pres vs etc approx dept est "
    "ed eds al inc ltd co corp cf e.g i.e eg ie viz u.s u.k u.n a.m p.m jan feb mar apr jun jul aug sep "
    "sept oct nov dec z.b d.h u.a bzw ca evtl ggf inkl usw vgl str bd hr fr mme mlle av sra srta dra pág núm "
    "tel т.е т.д т.п г ул им стр рис см".split()
)
_BEFORE_NUMBERS = frozenset("no nos nr núm vol p pp s fig figs art ch sec".split())  # "no. 5", but: "He said no."
_BEFORE = re.compile(r"[\w.]{1,24}\Z")  # the word in front of a full stop

# Scripts that put no space between words: they are compared by pairs of characters.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff"
    "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_LETTER = rf"(?:(?![{_UNSPACED}])\w)"
# No possessive groups, here and elsewhere: Python before 3.11.5 matches them wrongly (single characters it does not).
_WORD = re.compile(rf"[{_UNSPACED}]++|\d++(?:[.,]\d++)+|{_LETTER}+(?:['’]{_LETTER}+)*")
_UNSPACED_RUN = re.compile(rf"[{_UNSPACED}]++")


def check_text(text: str, name: str = "text") -> None:
    """Refuse what is no text: a value of another type, nothing but white space, a lone surrogate.

    Raises:
        ConfigurationError: names the position of the fault, never the text.
    """
    if not isinstance(text, str):
        raise ConfigurationError(f"{name} must be a str, not {type(text).__name__}")
    if not text.strip():
        raise ConfigurationError(f"{name} is empty")
    check_encodable(text, name)


def check_encodable(text: str, name: str = "text") -> None:
    """Refuse a lone surrogate, which no UTF-8 encoder accepts.

    Raises:
        ConfigurationError: names the position.
    """
    position: int | None = None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        position = error.start
    # Raised outside the handler: the foreign error carries the whole text.
    if position is not None:
        raise ConfigurationError(
            f"{name} has a lone surrogate at position {position}",
            hint="decode bytes with errors='replace' before they get here",
        )


def sentences(text: str, longest: int = LONGEST) -> list[Span]:
    """The sentences in order, without the white space between them; none only if there is nothing but white space."""
    found: list[Span] = []
    for paragraph in paragraphs(text):
        for start, end in _split_paragraph(text, paragraph.start, paragraph.end):
            found.extend(_hard_split(text, start, end, longest))
    return found


def paragraphs(text: str) -> list[Span]:
    """Blocks of lines between blank lines, form feeds or paragraph marks, stripped."""
    found: list[Span] = []
    start = end = -1
    for line in _LINE.finditer(text):
        if not line.group().strip():
            continue
        gap = text[end : line.start()] if end >= 0 else ""
        if end >= 0 and _is_blank_line(gap):
            found.append(_stripped(text, start, end))
            start = -1
        if start < 0:
            start = line.start()
        end = line.end()
    if start >= 0:
        found.append(_stripped(text, start, end))
    return found


def cover(text: str, spans: list[Span]) -> list[Span]:
    """Stretch spans so that they join back to the whole text: each takes the white space up to the next one."""
    if not spans:
        return [Span(0, len(text), text)] if text else []
    starts = [0, *(span.start for span in spans[1:]), len(text)]
    return [Span(start, end, text[start:end]) for start, end in pairwise(starts)]


def touched(spans: Sequence[Span], others: Iterable[Span]) -> list[int]:
    """Which of some spans in order, without overlaps, share a character with one of the others."""
    ends = [span.end for span in spans]
    found: set[int] = set()
    for other in others:
        index = bisect_right(ends, other.start)
        while index < len(spans) and spans[index].start < other.end:
            found.add(index)
            index += 1
    return sorted(found)


def words(text: str) -> list[str]:
    """Words in lower case; runs of a script without spaces (Chinese, Japanese, Thai...) as overlapping pairs."""
    found: list[str] = []
    for match in _WORD.finditer(text):
        word = match.group()
        if not _UNSPACED_RUN.match(word):
            found.append(word.casefold())
        elif len(word) == 1:
            found.append(word)
        else:
            found.extend(word[i : i + 2] for i in range(len(word) - 1))
    return found


def count_words(text: str) -> int:
    """How many words a reader counts: parts between white space; each character of a script without spaces."""
    total = 0
    for part in text.split():
        unspaced = sum(len(run) for run in _UNSPACED_RUN.findall(part))
        total += unspaced + (1 if unspaced < len(part) and _rest_has_word(part) else 0) if unspaced else 1
    return total


def _rest_has_word(part: str) -> bool:
    return any(character.isalnum() for character in _UNSPACED_RUN.sub("", part))


def _is_blank_line(gap: str) -> bool:
    if any(mark in gap for mark in _PARAGRAPH_MARKS):
        return True
    return len(_BREAK.findall(gap)) > 1


def _stripped(text: str, start: int, end: int) -> Span:
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    piece = piece.strip()
    return Span(start, start + len(piece), piece)


def _split_paragraph(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    begin = start
    for border in _borders(text, start, end):
        if text[begin:border].strip():
            yield begin, border
            begin = border
    if text[begin:end].strip():
        yield begin, end


def _borders(text: str, start: int, end: int) -> Iterator[int]:
    """Offsets where a sentence may end, in order: marks inside each line, then the line's own end."""
    lines = list(_LINE.finditer(text, start, end))
    for index, line in enumerate(lines):
        for mark in _END.finditer(text, line.start(), line.end()):
            if mark.end() < line.end() and _ends_sentence(text, line.start(), mark):
                yield mark.end()
        following = lines[index + 1].group().lstrip() if index + 1 < len(lines) else ""
        if not following or _breaks(line.group().strip(), following):
            yield line.end()


def _breaks(line: str, following: str) -> bool:
    """Whether the newline after `line` ends a sentence, or only wraps it."""
    if not line or _ITEM.match(following):
        return True
    if following[0].isupper() and _SPEAKER.match(following):
        return True  # the next turn of a conversation
    last = line.rstrip(CLOSERS)[-1:]
    if last in _ALWAYS or last in ".:":
        return not (last == "." and following[0].islower())
    return not (following[0].islower() or 40 <= len(line) <= 110 or last in ",;-–")


def _ends_sentence(text: str, line_start: int, mark: re.Match[str]) -> bool:
    signs = mark.group().rstrip(CLOSERS)
    if signs[-1] in _NO_SPACE_NEEDED:
        return True
    if not text[mark.end()].isspace():
        return False
    rest = text[mark.end() : mark.end() + 40].lstrip()
    following = rest.lstrip("\"'“‘«‹([{¿¡")[:1]
    if following.islower():
        return False
    if signs != ".":
        return True
    before = _BEFORE.search(text, max(line_start, mark.start() - 24), mark.start())
    if before is None:
        return True
    word = before.group()
    alone = text[max(line_start, mark.start() - 8) : mark.start()].strip() == word
    if alone and (word.isdigit() or len(word) == 1):
        return False  # the number of a list item
    if len(word) == 1 and word.isalpha() and word.isupper():
        return False  # an initial
    if word.casefold() in _BEFORE_NUMBERS:
        return not following.isdigit()
    return word.casefold() not in _ABBREVIATIONS


def _hard_split(text: str, start: int, end: int, longest: int) -> Iterator[Span]:
    """Split a range into stripped pieces of at most `longest`, at the last white space of each where there is some."""
    while True:
        while start < end and text[start].isspace():
            start += 1
        if end - start <= longest:
            break
        window = text[start : start + longest + 1]
        cut = max(window.rfind(sign) for sign in (" ", "\n", "\t", "\u3000"))
        if cut < longest // 2:
            cut = longest
        yield _stripped(text, start, start + cut)
        start += cut
    if start < end:
        yield _stripped(text, start, end)
