from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from ondevice_sdk.text.answers import Question
from ondevice_sdk.text.retrieval import Index
from ondevice_sdk.text.split import sentences

FACTS = (
    ("The river boat Anselma carries 90 tonnes of cinnamon every spring.", "What does the Anselma carry?"),
    (
        "The bridge over the Salla was repaired in 1987 with copper rivets.",
        "When was the bridge over the Salla repaired?",
    ),
    ("Professor Tamsin Reyes lost the election by eleven votes.", "By how many votes did Tamsin Reyes lose?"),
)
FILLER = "The town lies by the river. It has a bridge and a school. A boat comes in spring."


def test_the_sentence_with_the_rare_words_comes_first() -> None:
    text = "\n\n".join([FILLER] * 30 + [fact for fact, _ in FACTS] + [FILLER] * 30)
    index = Index(text)
    for fact, question in FACTS:
        best, *_ = index.search(question)
        assert best.span.text == fact
        assert text[best.span.start : best.span.end] == fact
        assert index.share(question, best.span) > 0.4
    assert index.search("Who sank the submarine?") == []
    assert index.search("the of and") == []


def test_neighbours_of_the_paragraph_help() -> None:
    near = "Anselma is a boat. Its cargo is cinnamon."
    far = "Its cargo is pepper."
    best, *_ = Index(f"{far}\n\n{near}\n\n{far}").search("cargo of the boat Anselma", 5)
    assert best.span.text == "Anselma is a boat."
    found = [passage.span.text for passage in Index(f"{far}\n\n{near}").search("cargo of the boat Anselma", 5)]
    assert found.index("Its cargo is cinnamon.") < found.index("Its cargo is pepper.")


def test_time_is_linear() -> None:
    def seconds(times: int) -> float:
        text = f"{FILLER}\n\n" * times
        started = time.process_time()
        Index(text).search("boat of the town by the school")
        return time.process_time() - started

    seconds(10)
    assert seconds(800) < 12 * max(seconds(200), 0.005)  # sixteen if it were quadratic


@given(st.text(max_size=300), st.text(max_size=50))
def test_passages_are_sentences_of_the_text(text: str, question: str) -> None:
    index = Index(text)
    known = sentences(text)
    for passage in index.search(question):
        assert passage.span in known
        assert passage.score > 0
        assert 0 <= index.share(question, passage.span) <= 1
    for answer in Question(question).answers(text, 0):
        assert text[answer.span.start : answer.span.end] == answer.span.text
