"""Postal addresses that can be told by their form: streets with numbers, units, boxes, military addresses, postcodes.

Each part is a finding of its own: where a whole address begins and ends cannot be told by its form. All patterns are
bounded, so that no text makes them slow.
"""

# ruff: noqa: RUF001  (apostrophes; word lists read best as words)

from __future__ import annotations

import re
from collections.abc import Iterator

from ondevice_sdk.types import Span

__all__ = ["find_addresses"]


def _any_of(words: str) -> str:
    return "|".join(re.escape(word).replace(r"\ ", " ") for word in sorted(words.split(), key=len, reverse=True))


_AFTER = _any_of(  # the English way: after the name
    "Street St Road Rd Avenue Ave Lane Ln Drive Dr Boulevard Blvd Way Court Ct Place Pl Terrace Square Sq Crescent "
    "Cres Close Highway Hwy Parkway Pkwy Trail Row Grove Gardens Mews Quay Parade"
)
_BEFORE = _any_of(  # the Romance and Slavic way: before it
    "rue avenue av. boulevard chemin allée allee impasse quai calle c/ avda. avda avenida carrer paseo plaza camino "
    "carretera via viale vicolo piazza piazzetta corso strada rua rúa praça travessa largo ul. ulica ulice al. aleja "
    "pl. os. nám. náměstí trg улица ул. проспект пр. пер."
)
_INSIDE = (  # the Germanic, Nordic and Finnic way: the end of the name
    "stra(?:ss|ß)e|str\\.?|weg|gasse|platz|allee|ufer|damm|laan|straat|plein|gracht|dreef|gade|vej|vejen|vænget|stræde|"
    "vegen|veien|gata|gaten|gatan|vägen|gränd|stien|bakken|katu|kuja|tie|tie|polku|maantee|tänav|utca|út|tér"
)

_NAME = r"[^\W\d_][\w.'’\-]{0,30}"
_CAPITAL = r"[A-ZÀ-ÖØ-ÞĀŁŃŒŘŚŠŹŻŽČĆĐА-ЯΑ-Ω][\w.'’\-]{0,30}"
_HOUSE = r"\d{1,5}(?:[a-zA-Z]\b|[-/]\d{1,4})?"
_GAP = r"[ \t]{1,2}"

# The confidences are the shares that were exactly what people had marked in development texts. A part that has its line
# to itself was always marked as it is, in running text often the whole address was.
_OWN_LINE, _INLINE = 0.9, 0.5

# (pattern, confidence, None where it depends on the line; whether a number before it belongs to the address).
_PATTERNS: tuple[tuple[re.Pattern[str], float | None, bool], ...] = (
    (
        re.compile(r"\b(?:PSC|CMR|Unit) \d{1,5},? Box \d{1,5}\s{1,3}(?:APO|FPO|DPO) A[AEP] \d{5}\b", re.I),
        0.9,
        False,
    ),
    (re.compile(r"\bUS[A-Z]{2} [A-Z][a-z]{1,20}\s{1,3}(?:APO|FPO|DPO) A[AEP] \d{5}\b", re.I), 0.9, False),
    (
        re.compile(rf"\b{_HOUSE}{_GAP}(?:{_CAPITAL}{_GAP}){{1,4}}(?:{_AFTER})\b(?:{_GAP}(?:North|South|East|West)\b)?"),
        None,
        True,
    ),
    (re.compile(rf"(?<!\w)(?:{_BEFORE}){_GAP}(?:{_NAME}{_GAP}){{1,6}}?{_HOUSE}(?!\w)", re.I), None, True),
    (
        re.compile(
            rf"\b\d{{1,5}},?{_GAP}(?:{_BEFORE}){_GAP}(?:(?:de|des|du|la|le|di|del|da|do){_GAP}){{0,2}}{_NAME}", re.I
        ),
        None,
        True,
    ),
    (re.compile(r"\b(?:P\.? ?O\.? ?Box|Postbox|Postboks|Postfach|Apartado|Box) \d{1,6}\b", re.I), None, True),
    (
        re.compile(
            rf"\b(?:{_CAPITAL}{_GAP}){{0,2}}?(?=[A-ZÀ-ÞĀ-Ž])[\w'’.\-]{{0,24}}?(?i:{_INSIDE}){_GAP}{_HOUSE}(?!\w)"
        ),
        None,
        True,
    ),
    (re.compile(rf"\b{_CAPITAL}{_GAP}(?:tér|út|utca|u\.|köz){_GAP}\d{{1,4}}\.?"), None, True),
    # A name and a number, after another number: streets of countries without a word for them.
    (
        re.compile(rf"(?<=\d[ ]){_CAPITAL}(?:{_GAP}{_CAPITAL}){{0,3}}{_GAP}\d{{1,4}}[a-zA-Z]?(?![\w.]\d|\w)"),
        None,
        True,
    ),
    (re.compile(r"\b(?:Apt|Apartment|Suite|Ste|Flat)\b\.? ?#? ?\d{1,5}[A-Za-z]?\b", re.I), None, False),
    (re.compile(r"\b[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}\b"), 0.8, False),  # United Kingdom
    (re.compile(r"\b[ABCEGHJ-NPRSTVXY]\d[A-Z] \d[A-Z]\d\b"), 0.8, False),  # Canada
    (re.compile(r"(?<=\b[A-Z]{2}[ ])\d{5}(?:-\d{4})?\b"), 0.7, False),  # United States, after the state
)
_LEADING = re.compile(r"(?<![\w.,/-])(\d{2,5})[ ]\Z")
_LINE_BEFORE = re.compile(r"(?:\A|\n)[ \t]{0,8}(?:\d{1,5} )?\Z")
_LINE_AFTER = re.compile(r"[ \t,.]{0,8}(?:\n|\Z)")


def find_addresses(text: str) -> Iterator[tuple[Span, float]]:
    """Parts of addresses, each with how likely it is one; they may overlap, better patterns come first."""
    for pattern, confidence, led in _PATTERNS:
        for match in pattern.finditer(text):
            start, end = match.span()
            alone = _LINE_BEFORE.search(text, max(0, start - 16), start) and _LINE_AFTER.match(text, end)
            sure = confidence or (_OWN_LINE if alone else _INLINE)
            yield Span(start, end, match.group()), sure
            leading = _LEADING.search(text, max(0, start - 8), start) if led else None
            if leading is not None:
                yield Span(*leading.span(1), leading[1]), sure
