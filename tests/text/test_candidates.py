# ruff: noqa: RUF001  (marks of other scripts)

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice_sdk.text.candidates import candidates
from ondevice_sdk.text.keyphrases import ranked_phrases


def names(text: str) -> list[str]:
    return [found.span.text for found in candidates(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yesterday Anna Meier met Bob in New York.", ["Anna Meier", "Bob", "New York"]),
        ("The letter came from Dr. Ken N. Fukuda of Reed Elsevier's.", ["Ken N. Fukuda", "Reed Elsevier"]),
        ("It belongs to Fernandez Inc. and the Bank of America.", ["Fernandez Inc.", "Bank of America"]),
        ("She left Dyan van Gijn, al-Qaeda and Ludwig von Mises.", ["Dyan van Gijn", "al-Qaeda", "Ludwig von Mises"]),
        ("NASA Administrator Mike Griffin spoke on Monday.", ["NASA", "Mike Griffin"]),
        ("I think it is fine. This was on a Tuesday in May.", []),
        ("bad for US standing, good for us", ["US"]),
        ("Procter & Gamble of Ohio", ["Procter & Gamble", "Ohio"]),
        ("В Москве он встретил Ивана Петрова и Анну.", ["Москве", "Ивана Петрова", "Анну"]),
        ("New York is big. New towns are not. Patient of 40.", ["New York"]),
        ("", []),
    ],
)
def test_candidates(text: str, expected: list[str]) -> None:
    assert names(text) == expected


def test_japanese_runs() -> None:
    assert {"野村修也", "東京電力"} <= set(names("結論として野村修也委員は東京電力の主張を認めた。"))


def test_cues_say_what_stands_around() -> None:
    (found,) = candidates("We live in Calgary.")
    assert {"located", "one"} <= found.cues
    assert "start" not in found.cues
    assert "start" in candidates("Calgary is big.")[0].cues
    assert "honorific" in candidates("He met Mrs. Hill.")[0].cues
    assert "owner" in candidates("He met Hill's son.")[0].cues
    assert "company" in candidates("He met Hill Ltd.")[0].cues


@given(st.text(alphabet="aB .\n'’&-é漢カ側氏年「Ж9@", max_size=150))
def test_offsets_are_exact_and_nothing_overlaps(text: str) -> None:
    found = candidates(text)
    assert all(text[one.span.start : one.span.end] == one.span.text for one in found)
    assert all(left.span.end <= right.span.start for left, right in pairwise(found))
    phrases = ranked_phrases(text, 5)
    assert all(text[span.start : span.end] == span.text for phrase in phrases for span in phrase.spans)


@pytest.mark.parametrize("piece", ["A ", "Aa-", "A.", "Mr. ", "of ", "A of ", "漢", "カa", "'s", "A & "])
def test_hostile_text_takes_linear_time(piece: str) -> None:
    started = time.perf_counter()
    text = piece * (5_000 // len(piece))
    candidates(text)
    ranked_phrases(text, 5)
    assert time.perf_counter() - started < 1


def test_key_phrases_are_the_texts_own_words() -> None:
    text = (
        "Solar panels on farm land divide the village. The solar panels would feed 900 homes. "
        "Farmers rent out farm land; critics of the solar panels fear for the birds."
    )
    phrases = ranked_phrases(text, 3)
    assert phrases[0].text == "solar panels"
    assert len(phrases[0].spans) == 2
    assert len(phrases) == 3
    assert ranked_phrases("!!! 123 ???", 3) == []
