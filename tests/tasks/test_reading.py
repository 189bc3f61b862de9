from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice_sdk.backends.api import Chat, Message
from ondevice_sdk.errors import InputTooLong
from ondevice_sdk.tasks.flow import run_with
from ondevice_sdk.tasks.reading import Room, even_groups, readable, split_to_fit

from .models import FakeModel, tokens

FRAME = Chat((Message("user", ""),))


@given(st.text(max_size=400) | st.text("a. 漢。\n", max_size=400), st.integers(100, 300))
def test_chunks_join_to_the_whole_text_and_fit(text: str, context: int) -> None:
    chunks = run_with(split_to_fit(text, [Room(FRAME, 40)], context), FakeModel())
    assert "".join(chunk.span.text for chunk in chunks) == text
    assert all(text[chunk.span.start : chunk.span.end] == chunk.span.text for chunk in chunks)
    assert all(tokens(chunk.text) + 10 + 40 <= context for chunk in chunks)


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["word ", "a", "漢", "😀", "\n", "A. ", "\x00", " \n a"])
def test_a_megabyte_of_anything_fits_in_parts(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    model = FakeModel()
    chunks = run_with(split_to_fit(text, [Room(FRAME, 200)], 2048), model)
    assert "".join(chunk.span.text for chunk in chunks) == text
    assert max(tokens(chunk.text) for chunk in chunks) <= 1200


def test_chunks_end_with_sentences_and_are_about_equal() -> None:
    text = "".join(f"This is sentence number {number} of a long report. " for number in range(400))
    chunks = run_with(split_to_fit(text, [Room(FRAME, 200)], 8192), FakeModel())
    assert len(chunks) > 2
    assert all(chunk.text.endswith("report.") for chunk in chunks)
    sizes = [chunk.tokens for chunk in chunks]
    assert max(sizes) < 1.3 * min(sizes)


def test_no_room_for_text_is_refused_with_figures() -> None:
    with pytest.raises(InputTooLong) as caught:
        run_with(split_to_fit("text", [Room(FRAME, 100)], 100), FakeModel())
    assert caught.value.tokens > caught.value.limit == 100


def test_readable_shortens_white_space_only() -> None:
    assert readable(" a     b\n\n\n\n c ") == "a b\n\nc"


def test_chunks_begin_with_sections_where_there_are_some() -> None:
    def section(number: int) -> str:
        body = " ".join(f"Sentence {each} of section {number} is here to be read." for each in range(9))
        return f"Section {number}\n\n{body}\n\n{body}\n\n"

    text = "".join(section(number) for number in range(30))
    chunks = run_with(split_to_fit(text, [Room(FRAME, 200)], 8192), FakeModel())
    assert len(chunks) > 2
    assert all(chunk.text.startswith("Section") for chunk in chunks)


def test_chunks_begin_with_turns_of_a_transcript() -> None:
    turn = "{}: I think that this is a long turn. It has some sentences. Nobody should cut it into two parts here.\n"
    text = "".join(turn.format("Ann" if number % 2 else "Bob") for number in range(300))
    chunks = run_with(split_to_fit(text, [Room(FRAME, 200)], 8192), FakeModel())
    assert len(chunks) > 2
    assert all(chunk.text.startswith(("Ann:", "Bob:")) for chunk in chunks)


def test_groups_of_notes_are_even_and_fit() -> None:
    notes = [f"note {number}" for number in range(21)]
    groups = even_groups(notes, [10] * 21, 100)
    assert [len(group) for group in groups] == [7, 7, 7]
    assert [note for group in groups for note in group] == notes
    assert even_groups(["x" * 99], [500], 100) == [["x" * 25]]
