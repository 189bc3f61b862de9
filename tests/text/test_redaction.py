from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ondevice_sdk.text.redaction import Cut, redacted, without_overlaps
from ondevice_sdk.types import Redaction, Span


def cut(text: str, part: str, kind: str = "name", sure: float = 0.9, nth: int = 0) -> Cut:
    at = -1
    for _ in range(nth + 1):
        at = text.index(part, at + 1)
    return Cut(Span(at, at + len(part), part), kind, sure)


def test_the_same_string_has_one_placeholder() -> None:
    text = "Anna met Bob. Anna left Bern."
    made, replacements = redacted(
        text, [cut(text, "Anna"), cut(text, "Bob"), cut(text, "Anna", nth=1), cut(text, "Bern", "place")]
    )
    assert made == "[NAME_1] met [NAME_2]. [NAME_1] left [PLACE_1]."
    assert [(one.placeholder, one.original, len(one.spans)) for one in replacements] == [
        ("[NAME_1]", "Anna", 2),
        ("[NAME_2]", "Bob", 1),
        ("[PLACE_1]", "Bern", 1),
    ]


def test_placeholders_never_collide_with_the_text() -> None:
    text = "[NAME_1] and [name_2] wrote to Anna."
    made, replacements = redacted(text, [cut(text, "Anna")])
    assert made == "[NAME_1] and [name_2] wrote to [NAME_3]."
    assert Redaction(made, replacements).restore() == text


def test_restore_works_on_other_texts_and_takes_unknown_placeholders_as_they_are() -> None:
    text = "Anna and [NAME_2]"
    redaction = Redaction(*redacted(text, [cut(text, "Anna")]))
    assert redaction.restore("Dear [name_1], [NAME_9] [NAME_1]") == "Dear Anna, [NAME_9] Anna"
    assert Redaction("plain", ()).restore() == "plain"


def test_the_map_is_in_no_repr() -> None:
    text = "Anna left"
    assert "Anna" not in repr(Redaction(*redacted(text, [cut(text, "Anna")])))
    assert "left" not in repr(Redaction(*redacted(text, [cut(text, "Anna")])))


def test_what_overlaps_is_taken_out_whole() -> None:
    text = "Michal Horký left"
    (one,) = without_overlaps([cut(text, "Michal", sure=0.95), cut(text, "Michal Horký", sure=0.6)])
    assert (one.span.text, one.confidence) == ("Michal Horký", 0.95)


@given(st.text(alphabet="ab[]NAME_12 é", max_size=60), st.lists(st.tuples(st.integers(0, 59), st.integers(1, 9))))
def test_restoring_gives_the_text_back(text: str, ranges: list[tuple[int, int]]) -> None:
    cuts = [
        Cut(Span(start, min(start + length, len(text)), text[start : start + length]), "name", length / 10)
        for start, length in ranges
        if start < len(text)
    ]
    kept = without_overlaps(cuts)
    assert all(text[one.span.start : one.span.end] == one.span.text for one in kept)
    covered = {at for one in kept for at in range(one.span.start, one.span.end)}
    assert covered == {at for one in cuts for at in range(one.span.start, one.span.end)}
    made, replacements = redacted(text, kept)
    assert Redaction(made, replacements).restore() == text
    assert all(one.placeholder not in text for one in replacements)
