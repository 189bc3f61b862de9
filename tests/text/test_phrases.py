from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ondevice_sdk.text.phrases import key_phrases


def test_what_is_repeated_and_longer_comes_first() -> None:
    text = "The ring road is long. The ring road is closed, and the council of the town is late, and so is the council."
    assert key_phrases(text, 2) == ["ring road", "council"]


@given(st.text(max_size=300), st.integers(1, 9))
def test_phrases_stand_in_the_text(text: str, most: int) -> None:
    found = key_phrases(text, most)
    assert len(found) <= most
    assert all(phrase in text for phrase in found)
