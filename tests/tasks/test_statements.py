from __future__ import annotations

from ondevice_sdk.tasks.picking import Picker
from ondevice_sdk.tasks.plan import plan_for
from ondevice_sdk.tasks.statements import clean, parse, point_of, sift
from ondevice_sdk.text.spans import Document

REPORT = (
    "Report of the bridge inspection\n\nThe bridge is 412 metres long and stands on eleven concrete piers. Engineers "
    "measured the steel at 1,250 places. Salt water has reached the steel inside the piers.\n\nThe repair costs 47 "
    "million crowns and takes fourteen months. The council decides in September. Lorries use the northern road."
)
DOCUMENT = Document(REPORT)


def test_a_statement_keeps_the_beginning_that_the_text_bears_out() -> None:
    point = point_of("The bridge is 412 metres long and has a deck of 1,250 places.", DOCUMENT)
    assert point is not None
    assert (point.status, point.text) == ("repaired", "The bridge is 412 metres long.")
    assert [span.text for span in point.sources] == [
        "The bridge is 412 metres long and stands on eleven concrete piers."
    ]
    assert point_of("The deck is 412 metres wide and has 1,250 places.", DOCUMENT) is None
    assert point_of("The steel lies between the piers and the bananas.", DOCUMENT) is None


def test_of_two_points_that_say_the_same_the_fuller_one_stays() -> None:
    said = [
        "The bridge is 412 metres long.",
        "The bridge is 412 metres long and stands on eleven concrete piers.",
        "The bridge is 412 metres long and has a deck of 1,250 places.",
        "The council decides in September.",
    ]
    points, failed = sift(said, DOCUMENT)
    assert [point.text for point in points] == [said[1], said[3]]
    assert {point.status for point in points} == {"supported"}
    assert failed == []


def test_a_heading_says_nothing_but_is_a_headline() -> None:
    heading = "Report of the bridge inspection"
    assert sift([heading], DOCUMENT) == ([], [])
    points, _ = sift([heading], DOCUMENT, headline=True)
    assert [point.text for point in points] == [heading]


def test_nothing_is_said_twice_whatever_the_model_repeats() -> None:
    picker = Picker(DOCUMENT, plan_for("key_points", "medium", "plain", None, None))
    for said in (["The repair costs 47 million crowns."] * 5, ["The repair costs 48 million crowns."] * 5, []):
        points = picker.pick(sift(said, DOCUMENT)[0])
        assert len({point.text for point in points}) == len(points) == 5
        assert len({point.sources for point in points}) == 5


def test_loops_and_half_quotations_are_no_statements() -> None:
    assert parse("- The only thing is that " + "uh, the only thing is that " * 9 + "it.", "") == []
    assert clean("We are going to cross it.”") == "We are going to cross it."
    assert clean("He said “no” to it") == "He said “no” to it"
