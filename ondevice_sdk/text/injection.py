"""Passages of a document that try to steer the model that reads it.

A document is data; a small model may take an order in it for its own all the same. Many weak cues are added up by
sentence: who is spoken to, what is to be left or changed, what markup imitates a prompt, what is to be sent or told.
What is hidden from people (tag characters, comments, encodings) is made plain first. Rules only: they know the common
forms of such attacks, not all of them, and no rule tells a plain question in a document from an order to the reader.
"""

# ruff: noqa: RUF001  (look-alikes of other scripts are the point here)

from __future__ import annotations

import base64
import codecs
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Final

from ondevice_sdk.text.injection_cues import PLAIN, SteeringKind, cues
from ondevice_sdk.text.split import paragraphs, sentences, touched
from ondevice_sdk.types import Span

__all__ = ["STEERING", "Passage", "SteeringKind", "find_steering", "set_aside", "steering_warning", "without"]

STEERING: Final = "the text contains instructions to the reader's assistant; they were treated as text"
_LEFT_OUT = "[...]"

# All four chosen by eye.
_WEAK = 0.3  # a sentence with this much, beside one that is plain, belongs to it
_TOGETHER = 1.3  # two sentences in a row, none of them plain
_HIDDEN_FROM = 0.6  # what is hidden from people needs less: its authors had a reason
_MOST_ASIDE = 0.75  # share of a text; of one with more, the instructions are what it is about (an attack may be long)

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\u206a-\u206f\ufeff\U000e0100-\U000e01ef]")
_BITS = re.compile("[\u200b-\u200d\u2060-\u2064\ufeff]{8,}")
_TAGS = re.compile("[\U000e0020-\U000e007f]{3,}")
_FLAG = "\U0001f3f4"
_TURNED = re.compile("[\u202d\u202e]")
_UNSEEN = re.compile(
    r"<[a-z]{1,10}\s[^<>]{0,300}(?:display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0|opacity\s*:\s*0(?![.\d]*[1-9])|"
    r"color\s*:\s*(?:white|#fff(?:fff)?)\b|\bhidden\b)[^<>]{0,300}>([^<>]{4,2000})",
    re.IGNORECASE,
)
# Possessive, and without a border: a long run is read once.
_BASE64 = re.compile(r"[\w+/-]{24,}+={0,2}", re.ASCII)
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}[ :]?+){16,}")
_SPACED = re.compile(r"(?<!\w)(?:\w([ .\-_*]))(?:\w\1){6,200}\w(?!\w)")
_LETTERS = re.compile(r"(?<!\w)\w(?:[ .\-_*]\w)+(?![ .\-_*]?\w)")
_BACKWARDS = ("erongi", "dragersid", "tegrof", "tpmorp", "snoitcurtsni", "drowssap")
_ROT13 = ("vtaber", "qvfertneq", "sbetrg", "cebzcg", "vafgehpgvba", "cnffjbeq")
_LEET = str.maketrans("013457@$", "oieastas")
_MIXED = re.compile(r"(?<![\w@$])(?=[a-z0-9@$]{4,20}(?![\w@$]))[0-9@$]{0,19}[a-z]++[0-9@$]")
_LOOKALIKES = str.maketrans("аеіјорсухѕԁѵκονρτυι", "aeijopcyxsdvkovptui")
_OPENED = re.compile(r"<(information|important|system|instructions?|prompt|secret|admin|hidden)\b[^<>]{0,40}>")
_FAR = 4000  # characters of a block between tags, a comment or an encoding that are looked at
_BESIDE = 400  # bytes of an encoding that two pieces share, so that no order is cut in two
_MOST_TURNS = 50  # marks that turn the direction of writing

# Sentences that speak to the reader, which go with a plain one beside them.
_DIRECTED = re.compile(
    r"\b(?:you|your|yourself)\b|\?\W*\Z|\A\W*(?:please|do|don['’]t|never|always|also|then|next|first|instead|add|send|give|"
    r"tell|say|write|use|make|include|create|translate|print|output|reply|respond|answer|explain|describe|determine|"
    r"analy[sz]e|summari[sz]e|list|find|get|post|visit|check|share|email|forward|transfer|delete|book|invite|schedule|"
    r"generate|provide|suggest|recommend|encode|convert|begin|start|end|finish|signed|thanks|subject)\b"
)


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage that steers: sentences of the text, the strongest kind of cue, and how much speaks for it, from 1."""

    span: Span
    kind: SteeringKind
    score: float


def steering_warning(text: str) -> str | None:
    """A warning for the result of a task whose text tries to steer the model; it quotes nothing."""
    return STEERING if find_steering(text) else None


def set_aside(text: str, passages: Sequence[Passage]) -> list[Span]:
    """What a task that need not answer for every sentence may leave out: the passages, unless they are most of it."""
    spans = [passage.span for passage in passages]
    most = _MOST_ASIDE * len(text.strip())
    return spans if sum(span.end - span.start for span in spans) <= most else []


def without(text: str, spans: Sequence[Span]) -> str:
    """A text with a mark in the place of each span."""
    parts: list[str] = []
    at = 0
    for span in spans:
        parts += [text[at : span.start], _LEFT_OUT]
        at = span.end
    return "".join([*parts, text[at:]])


def find_steering(text: str) -> list[Passage]:
    """All passages in the order of the text, without overlaps, in linear time."""
    spans = sentences(text)
    found = [_weighed(span.text) for span in spans]
    steers = [score >= PLAIN for score, _ in found]
    blocks = _blocks(text, spans)
    for index, (before, after) in enumerate(pairwise(found)):
        if before[0] > 0 and after[0] > 0 and before[0] + after[0] >= _TOGETHER:
            steers[index] = steers[index + 1] = True
    hidden: defaultdict[SteeringKind, list[Span]] = defaultdict(list)
    for place, kind in _hidden(text):
        hidden[kind].append(place)
    for kind, places in hidden.items():
        for index in touched(spans, places):
            found[index] = (max(PLAIN, found[index][0]), kind)
            steers[index] = True
    if not any(steers):
        return []
    _widen(spans, blocks, found, steers)
    _close(text, spans, steers)
    return _joined(text, spans, found, steers)


def _weighed(sentence: str) -> tuple[float, SteeringKind]:
    """The sum of the cues of a sentence, in whichever reading has most, and the kind that gives most of it."""
    plain = _INVISIBLE.sub("", unicodedata.normalize("NFKC", sentence)).lower()
    best = _sum(plain)
    if best[0] >= PLAIN:
        return best
    for reading in _readings(plain):
        score, _ = _sum(reading)
        if score >= PLAIN > best[0]:
            best = (score, "encoded")
    return best


def _sum(plain: str) -> tuple[float, SteeringKind]:
    total = 0.0
    by_kind: dict[SteeringKind, float] = {}
    for cue in cues():
        if any(literal in plain for literal in cue.literals) and cue.pattern.search(plain):
            total += cue.weight
            by_kind[cue.kind] = by_kind.get(cue.kind, 0.0) + cue.weight
    if not by_kind:
        return 0.0, "override"
    return round(total, 3), max(by_kind, key=by_kind.__getitem__)


def _readings(plain: str) -> Iterator[str]:
    """Other ways to read a sentence whose words were made unreadable to a search."""
    if any(word in plain for word in _BACKWARDS):
        yield plain[::-1]
    if any(word in plain for word in _ROT13):
        yield codecs.decode(plain, "rot13")
    if _SPACED.search(plain):
        yield " ".join(_LETTERS.sub(_close_up, part) for part in re.split(r"\s{2,}", plain))
    if len(_MIXED.findall(plain)) > 1:
        yield plain.translate(_LEET)
    lookalike = plain.translate(_LOOKALIKES)
    if lookalike != plain and any("a" <= sign <= "z" for sign in plain):
        yield lookalike


def _close_up(match: re.Match[str]) -> str:
    return match.group()[::2]


def _hidden(text: str) -> Iterator[tuple[Span, SteeringKind]]:
    """What people do not see or cannot read, where it steers, or can only be meant for a machine."""
    if not text.isascii():
        for match in _TAGS.finditer(text):
            if text[match.start() - 1 : match.start()] != _FLAG:  # flags of regions are written with them
                yield _span(match), "hidden"
        for match in _BITS.finditer(text):
            yield _span(match), "hidden"
        for match in islice(_TURNED.finditer(text), _MOST_TURNS):
            if _steers(text[match.end() : match.end() + 1000][::-1]):
                yield _span(match), "hidden"
    for start, end in _comments(text):
        if _steers(text[start:end]):
            yield Span(start, end, text[start:end]), "hidden"
    for match in _UNSEEN.finditer(text):
        if _steers(match.group(1)):
            yield _span(match), "hidden"
    for pattern, decode in ((_BASE64, _from_base64), (_HEX, _from_hex)):
        for match in pattern.finditer(text):
            if any(map(_steers, _decoded(match.group(), decode))):
                yield _span(match), "encoded"


def _span(match: re.Match[str]) -> Span:
    return Span(match.start(), match.end(), match.group())


def _comments(text: str) -> Iterator[tuple[int, int]]:
    """What stands between the marks of HTML comments; one that is not closed ends with the text."""
    end = 0
    while (start := text.find("<!--", end)) >= 0:
        end = text.find("-->", start)
        end = len(text) if end < 0 else end
        yield start + 4, min(end, start + _FAR)


def _steers(hidden: str) -> bool:
    return any(_weighed(span.text)[0] >= _HIDDEN_FROM for span in sentences(hidden))


def _decoded(code: str, decode: Callable[[str], bytes]) -> Iterator[str]:
    """The text of an encoding, piece by piece, since some of it may be no text."""
    try:
        plain = decode(code)
    except ValueError:  # of base64 and of hexadecimal digits
        return
    for start in range(0, len(plain), _FAR):
        piece = plain[start : start + _FAR + _BESIDE].decode(errors="replace")
        if sum((sign.isprintable() and sign != "\ufffd") or sign.isspace() for sign in piece) > 0.9 * len(piece):
            yield piece


def _from_base64(code: str) -> bytes:
    bare = code.rstrip("=").replace("-", "+").replace("_", "/")
    bare = bare[: len(bare) - (len(bare) % 4 == 1)]
    return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)


def _from_hex(code: str) -> bytes:
    return bytes.fromhex(code.replace(":", " "))


def _blocks(text: str, spans: Sequence[Span]) -> list[int]:
    """The paragraph of every sentence."""
    starts = [block.start for block in paragraphs(text)]
    found: list[int] = []
    block = 0
    for span in spans:
        while block + 1 < len(starts) and starts[block + 1] <= span.start:
            block += 1
        found.append(block)
    return found


def _widen(
    spans: Sequence[Span],
    blocks: Sequence[int],
    found: Sequence[tuple[float, SteeringKind]],
    steers: list[bool],
) -> None:
    """Take in the sentences of the same paragraph that go on in the same tone; all of it where they are most of it."""

    def goes_on(index: int) -> bool:
        return found[index][0] >= _WEAK or _DIRECTED.search(spans[index].text.lower()) is not None

    for step in (1, -1):
        order = range(len(spans)) if step == 1 else range(len(spans) - 1, -1, -1)
        for index in order:
            beside = index - step
            if 0 <= beside < len(spans) and steers[beside] and blocks[beside] == blocks[index] and goes_on(index):
                steers[index] = True
    members: dict[int, list[int]] = {}
    for index, block in enumerate(blocks):
        members.setdefault(block, []).append(index)
    for indexes in members.values():
        if 2 * sum(steers[index] for index in indexes) >= len(indexes):
            for index in indexes:
                steers[index] = True


def _close(text: str, spans: Sequence[Span], steers: list[bool]) -> None:
    """Take in what stands between an opening tag that imitates a prompt and the one that closes it."""
    until = -1
    for index, span in enumerate(spans):
        if span.start < until:
            steers[index] = True
        elif steers[index]:
            opened = _OPENED.search(span.text.lower())
            if opened is not None:
                rest = text[span.start : span.start + _FAR]
                closed = re.search(f"</{opened.group(1)}", rest, re.IGNORECASE)
                until = max(until, span.start + closed.start()) if closed is not None else until


def _joined(
    text: str, spans: Sequence[Span], found: Sequence[tuple[float, SteeringKind]], steers: Sequence[bool]
) -> list[Passage]:
    passages: list[Passage] = []
    run: list[int] = []
    for index in range(len(spans) + 1):
        if index < len(spans) and steers[index]:
            run.append(index)
        elif run:
            start, end = spans[run[0]].start, spans[run[-1]].end
            score, kind = max((found[member] for member in run), key=lambda each: each[0])
            passages.append(Passage(Span(start, end, text[start:end]), kind, max(PLAIN, score)))
            run = []
    return passages
