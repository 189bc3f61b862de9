# ruff: noqa: RUF001  (commas of other scripts)

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice_sdk.text.shorten import is_whole, shorter
from ondevice_sdk.text.split import count_words


@pytest.mark.parametrize(
    ("sentence", "most", "expected"),
    [
        ("The plan is cheap.", 9, "The plan is cheap."),
        ("In this report, we describe the harbour (see page 4) of Marlow.", 7, "We describe the harbour of Marlow."),
        (
            "The council will rebuild the old harbour of Marlow, which was opened in 1968 by the queen.",
            10,
            "The council will rebuild the old harbour of Marlow.",
        ),
        ("We measured the steel at many places by using a new method of the office.", 9, None),
        ("该公司宣布，将投资三千万元，用于重建港口。", 14, "该公司宣布，将投资三千万元。"),
    ],
)
def test_shorter_sentences_are_whole(sentence: str, most: int, expected: str | None) -> None:
    found = shorter(sentence, most)
    if expected is None:
        assert found == ["We measured the steel at many places."]
    else:
        assert found[0] == expected


@pytest.mark.parametrize(
    "sentence",
    [
        "The bridge can be used by everybody if the piers are repaired this year.",  # a condition
        "Lorries may use the bridge over the river, but not the heavy ones.",
        "The harbour of the old town of Marlow near the northern road of the county.",  # no verb
        "Der Rat der Stadt Marlow beschloss am Dienstag, den alten Hafen neu zu bauen.",  # no rules for it
        "She said that neither the old harbour of Marlow nor the new road is safe.",
        "The drug is safe for adults in most hospitals of the county, unless they are pregnant.",
        "Lorries may use the old bridge over the river in winter, but not the heavy ones.",
    ],
)
def test_what_would_change_the_meaning_stays(sentence: str) -> None:
    assert shorter(sentence) == [sentence]


@given(st.text(max_size=300) | st.text("we are, (a)and;by。，", max_size=300), st.integers(1, 30))
def test_never_longer_and_within_the_limit(text: str, most: int) -> None:
    found = shorter(text, most)
    assert all(count_words(form) <= most for form in found)
    assert found == sorted(found, key=count_words, reverse=True)


def test_linear_on_hostile_text() -> None:
    for unit in ("(", "a, ", " and", "[a] ", " ", "。"):
        shorter((unit * 1000)[:1000], 20)


@pytest.mark.parametrize(
    ("text", "whole"), [("Yes.", True), ('"Yes!"', True), ("好。", True), ("Yes", False), ("", False)]
)
def test_whole_sentences_end_with_a_mark(text: str, whole: bool) -> None:
    assert is_whole(text) == whole


def test_asides_with_exceptions_and_brackets_of_names_stay() -> None:
    drug = "The drug is safe for adults (except during pregnancy) in most hospitals of the county here."
    assert shorter(drug, 14) == ["The drug is safe for adults (except during pregnancy)."]
    assert all("f(x)" in form for form in shorter("The function f(x) is even for all numbers on the whole line."))
    assert "For patients who are not" in shorter("For patients who are not pregnant, the drug is safe here.")[-1]
