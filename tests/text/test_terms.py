from __future__ import annotations

import pytest

from ondevice_sdk.text.terms import clauses, content_words, counted, dangles, names, numbers


def test_numbers_are_told_however_they_are_written() -> None:
    assert numbers("Eleven piers, 1,250 places, 0.50 mm, the 14th of September") == {"11", "1250", "0.5", "14"}
    assert numbers("one of them") == frozenset()


def test_what_a_number_counts() -> None:
    assert counted("It costs 47 million crowns, takes fourteen months, and closed in 2019 for good.") == [
        ("47", "cost", "million"),
        ("14", "tak", "month"),
        ("2019", "", "clos"),
    ]


def test_words_clauses_and_names() -> None:
    assert content_words("The plans of the council cost 1,200 crowns") == ["plan", "council", "cost", "1200", "crown"]
    assert clauses("First, he came and went. Then: nothing") == ["First", "he came", "went", "Then", "nothing"]
    assert names("Yesterday Maria Oduya spoke. She met Falk.") == ["Maria", "Oduya", "Falk"]


@pytest.mark.parametrize(("text", "leans"), [("It costs much.", True), ('"They left."', True), ("Italy won.", False)])
def test_a_pronoun_leans_on_the_sentence_before(text: str, leans: bool) -> None:
    assert dangles(text) is leans
