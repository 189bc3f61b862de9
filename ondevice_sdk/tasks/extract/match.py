"""Which piece of a text goes to which field: the model's scores, and what names of fields and kinds of pieces tell."""

# ruff: noqa: SIM905  (word lists read best as words)

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ondevice_sdk.tasks.extract.outline import Field
from ondevice_sdk.text.terms import stem
from ondevice_sdk.text.values import has_number, is_number_phrase, names_time, words_of
from ondevice_sdk.types import Span

_NUMBERS = frozenset(
    "number count amount quantity size value rating score age price cost total percent points year".split()
)
_TIMES = frozenset("time date day when year month deadline start end due hour birthday schedule".split())
_NAMES = frozenset(
    "name city country state artist person author company owner place location town street organisation organization "
    "near restaurant service customer".split()
)
_UNITS = frozenset("unit units currency".split())

# Weights beside that of the score against other fields, chosen on 30 + 10 development rows of two sets (commands, notes
# on restaurants): F1 0.39 and 0.69. Half or double of any of them costs 0.05 at most.
_OWN = 0.3  # of the score against other pieces
_HINTS = 1.0
_WORDS = 0.2  # a word more: against the short values that are likely everywhere
LEAST = -1.0  # score from which on a match is an answer; from -1.5 to -0.5 F1 hardly changes


@dataclass(frozen=True, slots=True)
class Scores:
    """Log-probabilities of pieces as the value of a field (a row each), and of the answer that there is none.

    `rival` is the row of a made-up field: what is likelier for "other" than for any field is likely nothing's value.
    """

    pieces: Sequence[Span] = field(repr=False)
    rows: Sequence[Sequence[float]] = field(repr=False)
    none: Sequence[float] = field(repr=False)
    rival: Sequence[float] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Match:
    """A piece for a field, and how well it fits."""

    field: int
    piece: Span
    score: float


def ranked(fields: Sequence[Field], scores: Scores, window: Span) -> list[Match]:
    """All pieces that the fields allow, best first.

    A piece is weighed by how likely it is for the field beside the other pieces, by how much likelier than for the
    other fields (so that a piece which is likely everywhere tells nothing), and by hints of form and place.
    """
    columns = [_log_sum([*(row[at] for row in scores.rows), scores.rival[at]]) for at in range(len(scores.pieces))]
    matches: list[Match] = []
    for number, each in enumerate(fields):
        row = scores.rows[number]
        among = _log_sum([*row, scores.none[number]])
        for at, piece in enumerate(scores.pieces):
            own = row[at] - among
            beside = row[at] - columns[at]
            told = _HINTS * hint(each, piece, window) + _WORDS * len(piece.text.split())
            matches.append(Match(number, piece, beside + _OWN * own + told))
    return sorted(matches, key=lambda match: (-match.score, match.field, match.piece.start))


def assign(fields: Sequence[Field], matches: Sequence[Match], least: float) -> Mapping[int, list[Match]]:
    """The best pieces that do not overlap: one for a field, several for a list."""
    taken: list[Span] = []
    chosen: dict[int, list[Match]] = {}
    for match in matches:
        if match.score < least:
            break
        each = fields[match.field]
        if len(chosen.get(match.field, ())) >= (each.most if each.many else 1):
            continue
        if any(match.piece.start < other.end and other.start < match.piece.end for other in taken):
            continue
        taken.append(match.piece)
        chosen.setdefault(match.field, []).append(match)
    return chosen


def hint(each: Field, piece: Span, window: Span) -> float:
    """What form and place of a piece say for a field, on the scale of log-odds."""
    named = each.name.split()
    stems = {stem(word) for word in named}
    start, end = piece.start - window.start, piece.end - window.start
    before = [stem(word.text.casefold()) for word in words_of(window.text[max(0, start - 60) : start])][-2:]
    after = [stem(word.text.casefold()) for word in words_of(window.text[end : end + 40])][:1]
    score = 1.0 * bool(stems.intersection(after)) + 1.0 * bool(stems.intersection(before[-1:]))
    only_number = is_number_phrase(piece.text)
    if each.kind in {"number", "integer"} or not _NUMBERS.isdisjoint(named):
        score += 1.5 * only_number
    elif _TIMES.isdisjoint(named) and each.kind != "date":
        score -= 1.5 * only_number
    if names_time(piece.text):
        score += 1.5 if not _TIMES.isdisjoint(named) or each.kind == "date" else -1.5
    if not _NAMES.isdisjoint(named):
        score += 0.5 * (piece.text[:1].isupper() and start > 0)
    if not _UNITS.isdisjoint(named):
        score += 2.0 * (bool(before) and has_number(before[-1]) and not only_number) - 1.0 * only_number
    return score


def _log_sum(values: Sequence[float]) -> float:
    highest = max(values)
    return highest + math.log(math.fsum(math.exp(value - highest) for value in values))
