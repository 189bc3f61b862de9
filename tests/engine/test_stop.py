from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ondevice_sdk.engine.stop import StopMatcher, TextDecoder

LETTERS = st.text("abé🦊", max_size=24)
STOPS = st.lists(st.text("abé🦊", min_size=1, max_size=4), max_size=3)


def cut(data: str, points: list[int]) -> list[str]:
    edges = sorted({0, len(data), *(point % (len(data) + 1) for point in points)})
    return [data[a:b] for a, b in pairwise(edges)]


def expected(text: str, stops: list[str]) -> str:
    ends = [(text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text]
    return text[: min(ends)[1]] if ends else text


@given(LETTERS, STOPS, st.lists(st.integers(0, 100), max_size=8))
def test_the_split_makes_no_difference_and_nothing_of_a_stop_leaks(
    text: str, stops: list[str], points: list[int]
) -> None:
    matcher = StopMatcher(stops)
    shown = ""
    for piece in cut(text, points):
        shown += matcher.feed(piece)
        assert expected(text, stops).startswith(shown)
    assert shown + matcher.finish() == expected(text, stops)
    assert matcher.stopped == any(stop in text for stop in stops)


def test_holds_back_what_may_become_a_stop() -> None:
    matcher = StopMatcher(["STOP"])
    assert matcher.feed("go ST") == "go "
    assert matcher.feed("AY") == "STAY"
    assert matcher.feed(" STO") == " "
    assert matcher.finish() == "STO"


@given(st.binary(max_size=40) | LETTERS.map(str.encode), st.lists(st.integers(0, 100), max_size=8))
def test_bytes_in_pieces_decode_as_a_whole(data: bytes, points: list[int]) -> None:
    decoder = TextDecoder()
    edges = sorted({0, len(data), *(point % (len(data) + 1) for point in points)})
    text = "".join(decoder.feed(data[a:b]) for a, b in pairwise(edges))
    assert text + decoder.finish() == data.decode("utf-8", "replace")


def test_a_character_is_never_split() -> None:
    decoder = TextDecoder()
    assert [decoder.feed(bytes([byte])) for byte in "🦊".encode()] == ["", "", "", "🦊"]
