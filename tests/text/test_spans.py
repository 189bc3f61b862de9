from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice_sdk.text.spans import Document, find_all

ARTICLE = (
    "The council of Marlow voted on Tuesday to rebuild the harbour. The plan will cost 32 million pounds and includes "
    "240 flats. Councillor Priya Nair said that work would begin in March. Critics did not trust the estimated rents. "
    "The ferry company expects 180,000 passengers in the first year."
)


@pytest.mark.parametrize(
    "statement",
    [
        "The plan will cost 32 million pounds.",
        "The council's plan to rebuild the harbour costs 32 million pounds.",
        "Work begins in March, Priya Nair said.",
        "180000 passengers are expected by the ferry company.",
        "Critics did not trust the rents.",
    ],
)
def test_what_the_text_says_is_supported(statement: str) -> None:
    support = Document(ARTICLE).support(statement)
    assert support.supported
    assert all(ARTICLE[span.start : span.end] == span.text for span in support.spans)


@pytest.mark.parametrize(
    "statement",
    [
        "The plan saves 32 million pounds.",
        "The plan will cost 33 million pounds.",
        "The plan includes 180,000 flats.",
        "Councillor Bob Nair said that work would begin in March.",
        "Critics trust the estimated rents.",
        "The council did not vote to rebuild the harbour.",
        "Bananas are yellow.",
        "",
        "the of and",
    ],
)
def test_what_the_text_does_not_say_is_not(statement: str) -> None:
    assert not Document(ARTICLE).support(statement).supported


REPORT = (
    "Report of the bridge inspection\n\nThe bridge is 412 metres long and stands on eleven concrete piers. Engineers "
    "measured the steel at 1,250 places.\n\nAt pier five the steel has lost 18 percent of its thickness. The first "
    "way is to repair the piers. It costs 47 million crowns, takes fourteen months, and keeps the bridge in use. The "
    "second is to replace them, which costs 92 million crowns and closes the bridge for seven months.\n\nMaria Oduya "
    "leads the opposition. She wants a new bridge now. Henrik Falk answered that the town has debts of 380 million "
    "crowns. "
    "When the bridge was closed in 2019, sales fell by a third, and four shops did not open again."
)


@pytest.mark.parametrize(
    "statement",
    [
        "The bridge is 412 metres long.",
        "The first way costs 47 million crowns.",  # the subject stands one sentence before its pronoun
        "Maria Oduya wants a new bridge now.",
        "In 2019 the bridge was closed.",  # the negation is of something else
        "Henrik Falk answered that the town has debts of 380 million crowns.",
        "The second way closes the bridge for seven months.",
    ],
)
def test_close_sentences_bear_a_statement_together(statement: str) -> None:
    assert Document(REPORT).support(statement).supported


@pytest.mark.parametrize(
    "statement",
    [
        "The bridge is 412 metres long and has a steel of 1,250 places.",  # numbers of two sentences
        "The bridge stands on 1,250 piers.",
        "It costs 47 million crowns and closes the bridge for seven months.",
        "It costs 92 million crowns, takes fourteen months, and keeps the bridge in use.",
        "The bridge has lost 18 percent of its debts.",
        "The first way takes 47 months.",  # a number of the same sentence, of something else
        "Maria Oduya answered that the town has debts of 380 million crowns.",  # somebody else's words
        "The bridge was repaired in 2019.",
        "The bridge was opened in 2019.",
        "Four shops opened again.",
    ],
)
def test_false_combinations_are_not_supported(statement: str) -> None:
    assert not Document(REPORT).support(statement).supported


def test_headings_are_not_nearest() -> None:
    document = Document(REPORT)
    heading = document.sentences[0]
    assert document.is_heading(heading)
    assert sum(document.is_heading(span) for span in document.sentences) == 1
    assert document.nearest("Report of the bridge inspection") != heading
    assert not any(Document("One line\n\nAnother line\n\nA third").is_heading(s) for s in document.sentences)


@given(st.text(max_size=200), st.text(max_size=60))
def test_sources_are_always_exact(text: str, statement: str) -> None:
    document = Document(text)
    nearest = document.nearest(statement)
    spans = [*document.support(statement).spans, *([nearest] if nearest else [])]
    assert all(text[span.start : span.end] == span.text for span in spans)


def test_find_all_takes_whole_words_and_the_texts_own_spelling() -> None:
    assert [(s.start, s.text) for s in find_all("Anna met Ann. ann left", "Ann")] == [(9, "Ann")]
    assert [s.text for s in find_all("ACME and acme", "Acme")] == ["ACME", "acme"]
    assert [s.start for s in find_all("東京都庁", "京都")] == [1]
    assert find_all("text", " ") == []
