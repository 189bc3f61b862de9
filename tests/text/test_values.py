from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice_sdk.text.values import dates, has_number, names_time, numbers, pieces


def texts(text: str) -> set[str]:
    return {piece.text for piece in pieces(text)}


def test_pieces() -> None:
    assert {"laundry", "playlist", "laundry playlist", "40 cal", "tune"} <= texts(
        "Add the 40 cal tune to the laundry playlist."
    )
    assert {"The Mill", "Raja Indian Cuisine", "5 out of 5"} <= texts(
        "The Mill is near Raja Indian Cuisine: 5 out of 5."
    )
    assert {"Duke of York", "more than £30"} <= texts("Ask the Duke of York for more than £30.")
    assert "I Think I Do" in texts('Play "I Think I Do" now')
    assert "the" not in texts("the best of the west")
    assert "首都" in texts("首都はパリである。")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("It cost $2.5 million, twenty three men and 1,200 kg.", [2.5e6, 23, 1200]),
        ("twenty-one, 5k, -3.5, 0.25, one", [21, 5000, -3.5, 0.25, 1]),
        ("B-14 at 10:30 on page 3/4", []),
        ("1" * 40, []),
    ],
)
def test_numbers(text: str, values: list[float]) -> None:
    found = numbers(text)
    assert [value for _, value in found] == values
    assert all(text[span.start : span.end] == span.text for span, _ in found)


def test_dates_that_can_be_read_in_one_way() -> None:
    text = "On 5 March 2021, 2020-01-02, May 3rd, 1999 and 3/4/2020; not on 31 February 2021."
    assert [day for _, day in dates(text)] == ["2021-03-05", "2020-01-02", "1999-05-03"]


def test_kinds() -> None:
    assert has_number("five chairs")
    assert not has_number("chairs")
    assert names_time("at 5 pm")
    assert names_time("next Friday")
    assert not names_time("5 chairs")


@given(st.text(max_size=200))
def test_every_piece_stands_where_it_says(text: str) -> None:
    for span in [*pieces(text), *(span for span, _ in numbers(text)), *(span for span, _ in dates(text))]:
        assert text[span.start : span.end] == span.text
        assert span.text.strip()
