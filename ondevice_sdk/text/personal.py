"""Personal data that can be told by its form alone: addresses, numbers with check digits, dates, ages.

Patterns are bounded, so that no text makes them slow; check digits keep chance numbers out. They find what they
describe, not everything personal: names have no form.
"""

from __future__ import annotations

import ipaddress
import re
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ondevice_sdk.text.addresses import find_addresses
from ondevice_sdk.text.dates import MONTHS, NUMERIC_DATE, is_day
from ondevice_sdk.types import Span

__all__ = ["Finding", "find_personal", "iban", "luhn"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A piece of personal data; `confidence` is how often its pattern is right, roughly."""

    kind: str
    span: Span
    confidence: float


_DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](?:\d{2}|\d{4})")


def luhn(number: str) -> bool:
    """Check digit of payment cards (ISO/IEC 7812-1): 12 to 19 digits, separators ignored."""
    digits = [int(sign) for sign in number if sign.isdigit()]
    if not 12 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def iban(number: str) -> bool:
    """Check digits of an account number (ISO 13616): the remainder by 97 is 1."""
    plain = number.replace(" ", "").upper()
    if not 15 <= len(plain) <= 34:
        return False
    return int("".join(str(int(sign, 36)) for sign in plain[4:] + plain[:4])) % 97 == 1


def _address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _phone(text: str) -> bool:
    """Grouped, or begun, as phone numbers are; a book's number (ISBN) is grouped too."""
    digits = "".join(sign for sign in text if sign.isdigit())
    grouped = text.startswith(("+", "(", "0")) or len(re.findall(r"[ \-.]\(?\d", text)) >= 2
    book = len(digits) == 13 and digits.startswith(("978", "979"))
    return 7 <= len(digits) <= 15 and grouped and not book and _DATE.fullmatch(text.strip()) is None


def _called(text: str) -> bool:
    """A number that stands beside a word for a phone."""
    return 7 <= sum(sign.isdigit() for sign in text) <= 15 and _DATE.fullmatch(text.strip()) is None


def _security_number(text: str) -> bool:
    """Social security number of the United States: areas 000, 666 and from 900, and parts of zeros, are not given."""
    area, group, serial = re.split(r"[- ]", text)
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def _any(text: str) -> bool:
    return bool(text)


def _age(text: str) -> bool:
    return 0 < int(text) <= 120


_PHONE_WORD = r"(?:phone|mobile|cell|tel|fax|office|call|sms|whatsapp|messages?)"
_NUMBER = r"\+?\(?\d(?:[\d ().\-]{4,20})\d"

# kind, pattern (its first group is the finding where it has one), check, confidence: how often it was right in
# development texts, rounded, and never certain.
_PATTERNS: tuple[tuple[str, re.Pattern[str], Callable[[str], bool], float], ...] = (
    ("url", re.compile(r"\b(?:https?://|www\.)[^\s<>\"']{1,2000}(?<![.,;:!?)\]}])", re.ASCII | re.I), _any, 0.98),
    (
        "email",
        re.compile(
            r"(?<![\w.+%-])[\w.+%-]{1,64}+@(?:[a-z0-9](?:[a-z0-9-]{0,62})\.){1,8}[a-z]{2,24}(?![\w-])", re.I | re.ASCII
        ),
        _any,
        0.99,
    ),
    (
        "url",
        re.compile(
            r"(?<![\w.@/-])(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.){1,4}(?:com|org|net|edu|gov|info|biz|io|dev|app)"
            r"(?:\.[a-z]{2})?(?:/[^\s<>\"']{0,200}(?<![.,;:!?)\]}]))?(?![\w-]|\.\w)",
            re.ASCII | re.I,
        ),
        _any,
        0.9,
    ),
    ("iban", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{2,4}){3,8}(?!\w)", re.ASCII), iban, 0.99),
    ("iban", re.compile(r"\b[a-z]{2}\d{2}[a-z0-9]{11,30}(?!\w)", re.ASCII), iban, 0.99),
    ("card", re.compile(r"(?<![\w.+-])\d(?:[ -]?\d){11,18}(?![\w-])", re.ASCII), luhn, 0.97),
    (
        "ip",
        re.compile(r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f:]{2,39})(?![\w:]|\.\d)", re.I | re.ASCII),
        _address,
        0.97,
    ),
    ("identity number", re.compile(r"(?<![\w-])\d{3}([- ])\d{2}\1\d{4}(?![\w-])", re.ASCII), _security_number, 0.96),
    (
        "birth date",
        re.compile(
            rf"\b(?:born|birth|birthday|d\.?o\.?b\.?)\b[^\n\d]{{0,24}}?"
            rf"(\d{{1,4}}[-/.]\d{{1,2}}[-/.]\d{{1,4}}|\d{{1,2}} {MONTHS},? \d{{4}}|{MONTHS} \d{{1,2}},? \d{{4}})(?!\w)",
            re.I | re.ASCII,
        ),
        _any,
        0.95,
    ),
    (
        "date",
        re.compile(
            NUMERIC_DATE,
            re.ASCII,
        ),
        is_day,
        0.95,
    ),
    (
        "date",
        re.compile(
            rf"\b(?:\d{{1,2}}(?:st|nd|rd|th)?(?: of)? {MONTHS}|{MONTHS} \d{{1,2}}(?:st|nd|rd|th)?)(?:,? \d{{4}})?(?!\w)"
        ),
        _any,
        0.9,
    ),
    (
        "phone",
        re.compile(rf"(?<![\w.+/-])({_NUMBER})(?=[ -]{{1,2}}{_PHONE_WORD}\b)", re.I | re.ASCII),
        _called,
        0.95,
    ),
    (
        "phone",
        re.compile(
            rf"\b{_PHONE_WORD}\b\.?(?: number| no\.?)?(?: is| to| at)?[:# ]{{0,3}}({_NUMBER})(?![\w-]|[.,]\d)",
            re.I | re.ASCII,
        ),
        _called,
        0.95,
    ),
    ("phone", re.compile(rf"(?<![\w.+/-]){_NUMBER}(?![\w]|-\d|[.,]\d)", re.ASCII), _phone, 0.9),
    (
        "age",
        re.compile(r"\b(\d{1,3})(?=[- ]years?[- ]old\b| ?y/?o\b| ?yrs? old\b)", re.I | re.ASCII),
        _age,
        0.97,
    ),
    (
        "age",
        re.compile(
            r"\b(?:aged?|age:|age of|turn(?:s|ed|ing)|(?:when|while) (?:he|she|they|I) (?:was|were)) (\d{1,3})"
            r"(?![\w%]|[.,:]\d| percent)",
            re.I | re.ASCII,
        ),
        _age,
        0.93,
    ),
)


def find_personal(text: str) -> list[Finding]:
    """Everything found, in order, without overlaps: of two that overlap, the one of the earlier pattern stays."""
    kept: list[Finding] = []
    taken: list[tuple[int, int]] = []
    for finding in _all(text):
        at = bisect_left(taken, (finding.span.start, finding.span.end))
        free_left = at == 0 or taken[at - 1][1] <= finding.span.start
        if free_left and (at == len(taken) or taken[at][0] >= finding.span.end):
            insort(taken, (finding.span.start, finding.span.end))
            kept.append(finding)
    return sorted(kept, key=lambda finding: finding.span.start)


def _all(text: str) -> Iterator[Finding]:
    for kind, pattern, valid, confidence in _PATTERNS:
        group = 1 if pattern.groups == 1 and kind != "identity number" else 0
        for match in pattern.finditer(text):
            start, end = match.span(group)
            if valid(text[start:end]):
                yield Finding(kind, Span(start, end, text[start:end]), confidence)
    for span, confidence in find_addresses(text):
        yield Finding("address", span, confidence)
