from __future__ import annotations

from typing import Any

from ondevice_sdk.tasks.picking import Picker
from ondevice_sdk.tasks.plan import plan_for
from ondevice_sdk.tasks.statements import sift
from ondevice_sdk.text.spans import Document
from ondevice_sdk.types import Point

TEXT = (
    "The harbour of Marlow\n\nThe council of Marlow voted on Tuesday to rebuild the harbour, which was opened in 1968. "
    "The plan will cost 32 million pounds and includes 240 flats. It is late. Critics did not trust the estimated "
    "rents of the flats. The ferry company expects 180,000 passengers in the first year."
)
DOCUMENT = Document(TEXT)


def picked(own: list[str], style: Any = "tldr", length: Any = "short", question: str | None = None) -> list[Point]:
    plan = plan_for(style, length, "plain", None, question)
    return Picker(DOCUMENT, plan).pick(sift(own, DOCUMENT)[0])


def test_what_the_model_says_goes_before_quotations() -> None:
    said = "Critics did not trust the rents."
    assert [(point.text, point.status) for point in picked([said])] == [(said, "supported")]


def test_what_is_shortened_to_the_limit_is_repaired() -> None:
    said = "The council of Marlow voted on Tuesday to rebuild the harbour, which was opened in 1968."
    (point,) = picked([said], length=12)
    assert (point.text, point.status) == ("The council of Marlow voted on Tuesday to rebuild the harbour.", "repaired")
    assert said in TEXT
    assert point.sources[0].text == said


def test_a_question_decides_between_quotations() -> None:
    (point,) = picked([], question="How many passengers use the ferry?")
    assert "passengers" in point.text
    assert point.status == "extractive"


def test_a_limit_is_filled_up_with_sentences_that_say_something() -> None:
    points = picked([], length=60)
    assert len(points) > 2
    assert all(point.text != "It is late." for point in points)


def test_the_title_of_a_text_is_a_headline_and_no_point() -> None:
    assert [point.text for point in picked([], "headline")] == ["The harbour of Marlow"]
    assert all(point.text != "The harbour of Marlow" for point in picked([], "key_points", "long"))


def test_a_phrase_of_the_text_is_a_headline_where_no_sentence_is_short_enough() -> None:
    text = "Bob saw the old harbour wall and the old harbour wall of Marlow and " * 9
    (point,) = Picker(Document(text), plan_for("headline", 4, "plain", None, None)).pick([])
    assert point.text.casefold() in text.casefold()
    assert text[point.sources[0].start : point.sources[0].end] == point.sources[0].text


def test_a_sentence_that_stands_there_hundreds_of_times_takes_no_place_of_others() -> None:
    text = "The bridge over the river is closed for lorries. " * 500 + TEXT.partition("\n\n")[2]
    limits: list[tuple[Any, int]] = [("medium", 5), (60, 3)]
    for length, least in limits:
        points = Picker(Document(text), plan_for("key_points", length, "plain", None, None)).pick([])
        assert len(points) >= least
        assert len({point.text for point in points}) == len(points)
