"""Days, months and years that can be told by their form."""

from __future__ import annotations

import re

from ondevice_sdk.types import Span

__all__ = ["MONTHS", "NUMERIC_DATE", "find_dates", "is_day"]

MONTHS = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December|"
    r"(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\b\.?)"
)
NUMERIC_DATE = r"(?<![\w./-])(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2}))(?![\w/-]|\.\d)"
_ORDINAL = r"\d{1,2}(?:st|nd|rd|th)?"
_YEAR = r"(?:1[5-9]|20)\d{2}"
_RUSSIAN = "января|февраля|марта|апреля|мая|июня|июля|августа|сентября|октября|ноября|декабря"
_WRITTEN = re.compile(
    rf"\b(?:{_ORDINAL}(?: of)? {MONTHS}(?:,? {_YEAR})?|{MONTHS} {_ORDINAL}(?:,? {_YEAR})?|{MONTHS},? {_YEAR})(?!\w)"
    rf"|\b(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)\b"
    rf"|(?<=\b[Ii]n )(?:January|February|March|April|June|July|August|September|October|November|December)\b"
    rf"|(?:(?<=\b[Ii]n )|(?<=\b[Ss]ince )|(?<=\b[Uu]ntil )|(?<=\b[Bb]y )|(?<=\b[Ff]rom )){_YEAR}\b(?![%.]\d)"
    rf"|\d{{4}}年(?:\d{{1,2}}月(?:\d{{1,2}}日)?)?|\d{{1,2}}月\d{{1,2}}日"
    rf"|\b\d{{1,2}} (?:{_RUSSIAN})(?: \d{{4}})?\b",
)
_NUMERIC = re.compile(NUMERIC_DATE, re.ASCII)


def find_dates(text: str) -> list[Span]:
    """Dates in order, without overlaps: days, days of the week, months with a year, years after "in" and the like."""
    found = [match for match in _NUMERIC.finditer(text) if is_day(match.group())]
    dates = [Span(match.start(), match.end(), match.group()) for match in (*found, *_WRITTEN.finditer(text))]
    kept: list[Span] = []
    for date in sorted(dates, key=lambda date: (date.start, -date.end)):
        if not kept or date.start >= kept[-1].end:
            kept.append(date)
    return kept


def is_day(text: str) -> bool:
    """Whether three numbers can be a day of the calendar, in any order of its parts."""
    parts = [int(part) for part in re.findall(r"\d+", text)]
    return min(parts) >= 1 and any(part <= 12 for part in parts) and sum(part > 31 for part in parts) <= 1
