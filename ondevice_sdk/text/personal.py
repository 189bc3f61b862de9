"""Personal data that can be told by its form alone: addresses of mail and machines, numbers with check digits.

Patterns are bounded, so that no text makes them slow; check digits keep chance numbers out. They find what they
describe, not everything personal.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

from ondevice_sdk.types import Span

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
    digits = sum(sign.isdigit() for sign in text)
    grouped = text.startswith(("+", "(", "0")) or len(re.findall(r"[ \-.]\(?\d", text)) >= 2
    return 7 <= digits <= 15 and grouped and _DATE.fullmatch(text.strip()) is None


def _any(text: str) -> bool:
    return bool(text)


_PATTERNS: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("url", re.compile(r"\bhttps?://[^\s<>\"']{1,2000}(?<![.,;:!?)\]}])", re.ASCII), _any),
    (
        "email",
        re.compile(
            r"(?<![\w.+%-])[\w.+%-]{1,64}+@(?:[a-z0-9](?:[a-z0-9-]{0,62})\.){1,8}[a-z]{2,24}(?![\w-])", re.I | re.ASCII
        ),
        _any,
    ),
    ("iban", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{2,4}){3,8}(?!\w)", re.ASCII), iban),
    ("card", re.compile(r"(?<![\w.-])\d(?:[ -]?\d){11,18}(?![\w-])", re.ASCII), luhn),
    (
        "ip",
        re.compile(r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f:]{2,39})(?![\w:]|\.\d)", re.I | re.ASCII),
        _address,
    ),
    ("phone", re.compile(r"(?<![\w.+/-])\+?\(?\d[\d ().\-]{5,20}\d(?![\w-]|[.,]\d)", re.ASCII), _phone),
)


def find_personal(text: str) -> list[tuple[str, Span]]:
    """Kind (url, email, iban, card, ip, phone) and place of everything found, in order, without overlaps."""
    found: list[tuple[str, Span]] = []
    taken: list[tuple[int, int]] = []
    for kind, pattern, valid in _PATTERNS:
        fresh = [
            Span(match.start(), match.end(), match.group()) for match in pattern.finditer(text) if valid(match.group())
        ]
        free = _without_overlaps(fresh, taken)
        found.extend((kind, span) for span in free)
        taken = sorted([*taken, *((span.start, span.end) for span in free)])
    return sorted(found, key=lambda item: item[1].start)


def _without_overlaps(spans: list[Span], taken: list[tuple[int, int]]) -> list[Span]:
    """The spans that touch none of the taken ranges; both are sorted."""
    free = []
    index = 0
    for span in spans:
        while index < len(taken) and taken[index][1] <= span.start:
            index += 1
        if index == len(taken) or taken[index][0] >= span.end:
            free.append(span)
    return free
