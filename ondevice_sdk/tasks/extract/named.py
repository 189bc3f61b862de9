"""Fields that are known by name: which pieces of the text are their values, which label fits, which lines are rows."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from ondevice_sdk.backends.api import Score
from ondevice_sdk.tasks.extract.ask import NO, NONE, YES, Page, ask_question
from ondevice_sdk.tasks.extract.found import Found, pointer, reading, scored
from ondevice_sdk.tasks.extract.match import LEAST, Match, Scores, assign, ranked
from ondevice_sdk.tasks.extract.outline import Field, Rows
from ondevice_sdk.tasks.flow import Flow
from ondevice_sdk.text.retrieval import Index
from ondevice_sdk.text.spans import find_all
from ondevice_sdk.text.split import sentences
from ondevice_sdk.text.values import dates, numbers, pieces
from ondevice_sdk.types import JsonValue, Span

SPANNED: Final = frozenset({"string", "number", "integer", "date"})  # kinds whose values are pieces of the text

Record = list[tuple[Field, Span]]  # values of one row and where they stand

_LINE = re.compile(r"[^\n\r]*[^\s][^\n\r]*")
_RIVAL = Field((), "other", "", "string", nullable=True, required=False, limits={})
_ITEM_END = re.compile(r"[\n,;]")
_LONG_LIST = 60  # lines and commas of a window: as many as pieces are looked at elsewhere
_PARTS = 3  # pieces of an item of two words
_LINES = 3  # from so many on a text is held to be a list
_WINDOWS = 3  # of a long text that a field is looked for in
_UNITS = 100  # lines or sentences that rows are looked for in; that there are more is told


def read_named(
    fields: Sequence[Field], index: Index, parts: Sequence[Span], page: Page, found: Found
) -> Flow[list[Field]]:
    """Give each field its best piece of the windows where it is looked for; returned are those without any."""
    wanted: dict[int, list[int]] = {}
    for number, each in enumerate(fields):
        for at in _where(each, index, parts):
            wanted.setdefault(at, []).append(number)
    asked = [(parts[at], wanted[at]) for at in sorted(wanted)]
    groups = yield from _matches(fields, asked, page, found)
    matches = sorted((match for group in groups for match in group), key=lambda match: -match.score)
    chosen = assign(fields, matches, LEAST)
    there = chosen
    if any(each.many and len(chosen.get(number, ())) == each.most for number, each in enumerate(fields)):
        there = assign([replace(each, most=len(matches)) for each in fields], matches, LEAST)
    missed: list[Field] = []
    for number, each in enumerate(fields):
        got = list(chosen.get(number, ()))
        if not got and not each.may_lack:
            got = [match for match in matches if match.field == number][:1]
            if got:
                found.doubt(each.path)
        if got:
            found.keep(each, [match.piece for match in sorted(got, key=lambda match: match.piece.start)])
            if each.many:
                found.cut(each.path, len(got), len(there[number]))
        else:
            missed.append(each)
    return missed


def read_closed(
    fields: Sequence[Field], index: Index, parts: Sequence[Span], page: Page, found: Found
) -> Flow[list[Field]]:
    """Choose labels and yes or no: a label that the text names, else the likeliest against a page without a text.

    Evidence is the place of the label, or the sentence that shares words with the field; without either the value is
    none where the schema allows that, and doubtful where not.
    """
    held: list[tuple[Field, list[JsonValue], Span | None]] = []
    requests: list[Score] = []
    missed: list[Field] = []
    for each in fields:
        labels: list[JsonValue] = [True, False] if each.kind == "boolean" else list(each.labels)
        if "const" in each.limits:
            found.put(each, labels[0])
            continue
        places = _named_places(index.text, labels)
        if each.many and places:
            found.put(each, [label for label, _ in places[: each.most]])
            found.prove([((*each.path, str(at)), place) for at, (_, place) in enumerate(places[: each.most])])
            found.cut(each.path, min(len(places), each.most), len(places))
            continue
        if len(places) == 1:
            [(label, place)] = places
            found.put(each, label)
            found.prove([(each.path, place)])
            continue
        said = f"{each.name} {each.description} {' '.join(str(place.text) for _, place in places)}"
        hit = next(iter(index.search(said, 1)), None)
        if hit is None and each.may_lack:
            missed.append(each)
            continue
        window = parts[_window_of(hit.span, parts) if hit is not None else 0].text
        words = [f" {_word(label)}" for label in labels]
        if each.question:
            passage = hit.span.text.encode()[: page.chars].decode(errors="ignore") if hit is not None else window
            requests += ask_question(passage, each.question, [word[1:] for word in words])
        else:
            requests += [
                Score(page.value(window, each), tuple(words)),
                Score(page.valueless(each), tuple(words)),
            ]
        held.append((each, labels, hit.span if hit is not None else None))
    rows = yield from scored(requests, found)
    for number, (each, labels, span) in enumerate(held):
        given, alone = rows[2 * number : 2 * number + 2]
        best = max(range(len(labels)), key=lambda at: given[at] - alone[at])
        found.put(each, [labels[best]] if each.many else labels[best])
        path = (*each.path, "0") if each.many else each.path
        if span is None:
            found.doubt(path)
        else:
            found.prove([(path, span)])
    return missed


def read_rows(rows: Rows, parts: Sequence[Span], page: Page, found: Found) -> Flow[list[Record]]:
    """A record for each line that holds values of the fields; of a text of one line for each sentence.

    Lines that other fields have their values from are none of the list, unless there are no others.
    """
    every = [unit for part in parts for unit in _units(part)]
    taken = sorted(proof.start for proof in found.evidence)
    units = [unit for unit in every if bisect_left(taken, unit.start) == bisect_left(taken, unit.end)] or every
    if len(units) > _UNITS:
        found.warnings.append(f"{pointer(rows.path)}: looked for in the first {_UNITS} of {len(units)} lines only")
    fields = rows.fields
    asked = [(unit, range(len(fields))) for unit in units[:_UNITS]]
    groups = yield from _matches(fields, asked, page, found)
    records: list[Record] = []
    for group in groups:
        chosen = {number: got[0] for number, got in assign(fields, group, LEAST).items()}
        if not chosen:
            continue
        for number, each in enumerate(fields):
            if number not in chosen and not each.may_lack:
                free = (match for match in group if match.field == number and not _overlaps(match, chosen.values()))
                best = next(free, None)
                if best is not None:
                    chosen[number] = best
        if all(number in chosen or each.may_lack for number, each in enumerate(fields)):
            records.append([(fields[number], chosen[number].piece) for number in sorted(chosen)])
    found.cut(rows.path, min(len(records), rows.most), len(records))
    return records[: rows.most]


def _units(part: Span) -> list[Span]:
    """The lines of a window, or its sentences where it has one line only."""
    places = [match.span() for match in _LINE.finditer(part.text)]
    if len(places) < _LINES:
        places = [(span.start, span.end) for span in sentences(part.text)]
    return [Span(part.start + start, part.start + end, part.text[start:end]) for start, end in places]


def _overlaps(match: Match, others: Iterable[Match]) -> bool:
    return any(match.piece.start < other.piece.end and other.piece.start < match.piece.end for other in others)


def _matches(
    fields: Sequence[Field], asked: Sequence[tuple[Span, Sequence[int]]], page: Page, found: Found
) -> Flow[list[list[Match]]]:
    """For each window all that may be values of the fields asked for there, best first."""
    held: list[tuple[Span, Sequence[int], list[Span]]] = []
    requests: list[Score] = []
    for window, numbers_of in asked:
        many = any(fields[number].many for number in numbers_of)
        spans = [piece for piece in _pieces(window, many=many) if page.fits(piece)]
        if not spans:
            held.append((window, [], []))
            continue
        continuations = (*(f" {' '.join(span.text.split())}" for span in spans), f" {NONE}")
        asked_for = [*(fields[number] for number in numbers_of), _RIVAL]
        requests += [Score(page.value(window.text, each), continuations) for each in asked_for]
        held.append((window, numbers_of, spans))
    rows = yield from scored(requests, found)
    groups: list[list[Match]] = []
    for window, numbers_of, spans in held:
        if not spans:
            groups.append([])
            continue
        mine, rival, rows = rows[: len(numbers_of)], rows[len(numbers_of)], rows[len(numbers_of) + 1 :]
        there = [fields[number] for number in numbers_of]
        scores = Scores(spans, [row[:-1] for row in mine], [row[-1] for row in mine], rival[:-1])
        groups.append(
            [
                Match(numbers_of[match.field], match.piece, match.score)
                for match in ranked(there, scores, window)
                if reading(there[match.field], match.piece) is not None
            ]
        )
    return groups


def _pieces(window: Span, *, many: bool) -> list[Span]:
    """What may be a value there. Of a long list, where a list is wanted, no item is left out for its length."""
    text = window.text
    items = len(_ITEM_END.findall(text))
    parts = pieces(text, _PARTS * items) if many and items >= _LONG_LIST else pieces(text)
    found = [*parts, *(span for span, _ in numbers(text)), *(span for span, _ in dates(text))]
    places = sorted({(span.start, span.end) for span in found})
    return [Span(window.start + start, window.start + end, text[start:end]) for start, end in places]


def _where(each: Field, index: Index, parts: Sequence[Span]) -> list[int]:
    """The windows where a field is looked for: all of a short text, else those with words of its name, or the first."""
    if len(parts) <= _WINDOWS:
        return list(range(len(parts)))
    hits = index.search(f"{each.name} {each.description}", 4 * _WINDOWS)
    return list(dict.fromkeys(_window_of(hit.span, parts) for hit in hits))[:_WINDOWS] or [0]


def _window_of(span: Span, parts: Sequence[Span]) -> int:
    low, high = 0, len(parts) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if parts[middle].start <= span.start else (low, middle - 1)
    return low


def _named_places(text: str, labels: Sequence[JsonValue]) -> list[tuple[JsonValue, Span]]:
    """The labels that the text names, each with its first place."""
    found: list[tuple[JsonValue, Span]] = []
    for label in labels:
        if isinstance(label, str) and label.strip():
            places = find_all(text, label.replace("_", " "), 1)
            found += [(label, place) for place in places]
    return found


def _word(label: JsonValue) -> str:
    if isinstance(label, bool):
        return YES if label else NO
    return str(label).replace("_", " ")
