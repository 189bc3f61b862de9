# ruff: noqa: RUF001, SIM905  (marks of other scripts)

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice_sdk.text.dates import find_dates
from ondevice_sdk.text.personal import find_personal, iban, luhn


def found(text: str) -> list[tuple[str, str]]:
    return [(finding.kind, finding.span.text) for finding in find_personal(text)]


@pytest.mark.parametrize(
    ("text", "kind", "part"),
    [
        ("Write to bo@example.com.", "email", "bo@example.com"),
        ("See https://example.com/a?b=1.", "url", "https://example.com/a?b=1"),
        ("See www.example.com for more", "url", "www.example.com"),
        ("buy at shop.example.com/new.", "url", "shop.example.com/new"),
        ("IBAN GB82 WEST 1234 5698 7654 32", "iban", "GB82 WEST 1234 5698 7654 32"),
        ("my iban is gb82west12345698765432", "iban", "gb82west12345698765432"),
        ("card 4111 1111 1111 1111.", "card", "4111 1111 1111 1111"),
        ("from 192.168.0.1 today", "ip", "192.168.0.1"),
        ("from 2001:db8::1 today", "ip", "2001:db8::1"),
        ("SSN 514-69-0360", "identity number", "514-69-0360"),
        ("call +44 20 7946 0958", "phone", "+44 20 7946 0958"),
        ("781 1704 office", "phone", "781 1704"),
        ("tel: 5551234567", "phone", "5551234567"),
        ("(579)888-3058", "phone", "(579)888-3058"),
        ("born on 12/05/1987 in Kent", "birth date", "12/05/1987"),
        ("on 2021-03-14 at noon", "date", "2021-03-14"),
        ("on March 3rd, 2019 in Leeds", "date", "March 3rd, 2019"),
        ("a 38-year-old man", "age", "38"),
        ("she just turned 60", "age", "60"),
        ("i'm 31 y/o.", "age", "31"),
        ("at 69 Farnell Street, Leeds", "address", "69 Farnell Street"),
        ("36 rue de Pologne", "address", "36 rue de Pologne"),
        ("Hauptstraße 12a, Bern", "address", "Hauptstraße 12a"),
        ("P.O. Box 242", "address", "P.O. Box 242"),
        ("Suite 501", "address", "Suite 501"),
        ("London SW1A 1AA", "address", "SW1A 1AA"),
        ("Unit 7349 Box 6067\nDPO AE 99081", "address", "Unit 7349 Box 6067\nDPO AE 99081"),
    ],
)
def test_what_has_a_form(text: str, kind: str, part: str) -> None:
    assert (kind, part) in found(text)


@pytest.mark.parametrize(
    "text",
    [
        "ISBN 978-3-16-148410-0",
        "order 4111 1111 1111 1112",  # a wrong check digit
        "It costs 12,500.00 or 3.1415926.",
        "version 10.2.3",
        "on 45/67/1999",
        "it turned 60 percent green",
        "300 bicycles in 1987",
        "a score of 3-2 and 10:30",
    ],
)
def test_what_has_not(text: str) -> None:
    assert found(text) == []


def test_two_numbers_before_a_street_are_two_parts() -> None:
    assert found("at 0896 69 Farnell Street") == [("address", "0896"), ("address", "69 Farnell Street")]


def test_check_digits() -> None:
    assert luhn("4111 1111 1111 1111")
    assert not luhn("0000 0000 0000 0000")
    assert iban("GB82 WEST 1234 5698 7654 32")
    assert not iban("GB82 WEST 1234 5698 7654 33")


def test_many_kinds_in_one_text() -> None:
    text = (
        "Mail anna.b@example.co.uk or call +44 20 7946 0958. Pay DE89 3704 0044 0532 0130 00 or card "
        "4111 1111 1111 1111 (not 4111 1111 1111 1112); see https://example.org/a?b=c. Host 192.168.0.1, ::1, at "
        "2026-11-22, version 1.2.3, 3.14159265."
    )
    assert found(text) == [
        ("email", "anna.b@example.co.uk"),
        ("phone", "+44 20 7946 0958"),
        ("iban", "DE89 3704 0044 0532 0130 00"),
        ("card", "4111 1111 1111 1111"),
        ("url", "https://example.org/a?b=c"),
        ("ip", "192.168.0.1"),
        ("ip", "::1"),
        ("date", "2026-11-22"),
    ]


def test_dates() -> None:
    text = "On Monday, 3 May 2021, and in 1999; since 12/1/1981. In May 2020. 2021年3月4日 – 5 мая 2019"
    assert [span.text for span in find_dates(text)] == [
        "Monday",
        "3 May 2021",
        "1999",
        "12/1/1981",
        "May 2020",
        "2021年3月4日",
        "5 мая 2019",
    ]
    assert find_dates("You may come; we march in 30000 pairs, 2000 of them.") == []


@given(st.text(alphabet="aZ9 .-/@:+()\n'ßé年тел", max_size=120))
def test_offsets_are_exact_and_nothing_overlaps(text: str) -> None:
    findings = find_personal(text)
    assert all(text[one.span.start : one.span.end] == one.span.text for one in findings)
    assert all(left.span.end <= right.span.start for left, right in pairwise(findings))
    assert all(0 < one.confidence < 1 for one in findings)
    dates = find_dates(text)
    assert all(text[span.start : span.end] == span.text for span in dates)


PIECES = "1_ 1- 1 a A A_ A. 1A (1 rue_ a@ @ a@a. 1. :1 f: https:// May_1_ born_ GB1 DE89_ é1 Apt_ in_ A_1_".split()


@pytest.mark.parametrize("piece", PIECES)
def test_hostile_text_takes_linear_time(piece: str) -> None:
    text = piece.replace("_", " ") * (10_000 // len(piece))
    started = time.perf_counter()
    find_personal(text)
    find_dates(text)
    assert time.perf_counter() - started < 2
