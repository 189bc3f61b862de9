# ruff: noqa: E501, RUF001  (a table of texts in many scripts)

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.text.split import check_text, count_words, cover, paragraphs, sentences, words

ANY = st.text(max_size=300)
MARKED = st.text('aB .!?\n\r\t。、「」漢5-’"\x00\u2029', max_size=120)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dr. Smith paid $3.50 to J. R. Tolkien on Jan. 5. He left.", ["Dr. Smith paid $3.50 to J. R. Tolkien on Jan. 5.", "He left."]),
        ("He said no. Then he left.", ["He said no.", "Then he left."]),
        ("She lives at No. 5. It rains.", ["She lives at No. 5.", "It rains."]),
        ('"Why?" he asked. "Because!"', ['"Why?" he asked.', '"Because!"']),
        ("これは文です。「はい。」終わり！", ["これは文です。", "「はい。」", "終わり！"]),
        ("هل هذا صحيح؟ نعم.", ["هل هذا صحيح؟", "نعم."]),
        ("यह वाक्य है। दूसरा वाक्य।", ["यह वाक्य है।", "दूसरा वाक्य।"]),
        ("Heading\n\n1. First item\n2. Second\n- third", ["Heading", "1. First item", "2. Second", "- third"]),
        ("A line that an email program has wrapped at\nfifty characters. Next.", ["A line that an email program has wrapped at\nfifty characters.", "Next."]),
        ("x", ["x"]),
        ("...", ["..."]),
    ],
)  # fmt: skip
def test_sentences(text: str, expected: list[str]) -> None:
    assert [span.text for span in sentences(text)] == expected


def test_blank_text_has_no_sentence() -> None:
    assert sentences(" \n\t\u3000") == []
    assert cover(" \n", []) != []
    assert cover("", []) == []


@given(ANY | MARKED)
def test_sentences_are_exact_ordered_and_lose_nothing(text: str) -> None:
    found = sentences(text)
    assert all(text[span.start : span.end] == span.text and span.text.strip() for span in found)
    assert all(left.end <= right.start for left, right in pairwise(found))
    assert "".join(span.text for span in cover(text, found)) == text
    assert "".join("".join(span.text.split()) for span in found) == "".join(text.split())


@given(ANY | MARKED, st.integers(4, 30))
def test_no_piece_is_longer_than_allowed(text: str, longest: int) -> None:
    assert all(len(span.text) <= longest for span in sentences(text, longest))


@given(ANY | MARKED)
def test_paragraphs_are_exact(text: str) -> None:
    assert all(text[span.start : span.end] == span.text for span in paragraphs(text))


def test_paragraph_borders() -> None:
    assert [span.text for span in paragraphs("a\nb\r\n\r\nc\rd\r\re\x0cf\u2029g")] == ["a\nb", "c\rd", "e", "f", "g"]


@pytest.mark.parametrize(
    "unit", ["word ", "a", ".", "漢", "\n", ". ", "a.\n", "\x00", "A. ", "'", "1,", " \n", "。", "a\n\n", '."']
)
@pytest.mark.slow
def test_a_megabyte_of_anything_is_split_whole(unit: str) -> None:
    text = unit * (1_000_000 // len(unit)) + "x"
    found = sentences(text)
    assert all(len(span.text) <= 1000 for span in found)
    assert sum(len(span.text) for span in cover(text, found)) == len(text)


def test_words() -> None:
    assert words("Don't pay 1,200.50 EUR") == ["don't", "pay", "1,200.50", "eur"]
    assert words("東京都へ go") == ["東京", "京都", "都へ", "go"]


@pytest.mark.parametrize(
    ("text", "count"), [("", 0), ("one two - three", 4), ("東京都 is big", 5), ("東京。", 2), ("東京x", 3)]
)
def test_count_words(text: str, count: int) -> None:
    assert count_words(text) == count


def test_check_text_names_the_position_and_not_the_text() -> None:
    with pytest.raises(ConfigurationError, match="position 6") as caught:
        check_text("secret\ud800")
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None
    for bad in ("", " \n", None, b"x"):
        with pytest.raises(ConfigurationError):
            check_text(bad)  # type: ignore[arg-type]
