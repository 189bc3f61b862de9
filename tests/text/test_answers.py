from __future__ import annotations

import pytest

from ondevice_sdk.text.answers import Question


@pytest.mark.parametrize(
    ("sentence", "question", "answer"),
    [
        (
            "The password of the guest network is plum-thunder-9.",
            "What is the password of the guest network?",
            "plum-thunder-9",
        ),
        ("The bell weighs 812 kilograms and is cracked.", "How much does the bell weigh?", "812 kilograms"),
        ("The clock tower was built by the widow Sanna Krall.", "Who built the clock tower?", "Sanna Krall"),
        ("The bridge was repaired in 1987 with 2,400 rivets.", "When was the bridge repaired?", "1987"),
        (
            "The committee meets every ninth day at noon.",
            "How often does the committee meet?",
            "every ninth day at noon",
        ),
        (
            "The deadline was moved from May to the 14th of March.",
            "To what date was the deadline moved?",
            "14th of March",
        ),
        (
            "The contact for hall B-14 is Noor Haddad, extension 6071.",
            "What is the extension of the contact for hall B-14?",
            "6071",
        ),
        ("The mayor named her yellow boat Perpetua.", "What is the name of the boat of the mayor?", "Perpetua"),
        ("The gardener is paid in candles.", "How is the gardener paid?", "candles"),
        ("The train leaves from platform 7 when it snows.", "From which platform does the train leave?", "7"),
    ],
)
def test_the_words_that_the_question_lacks(sentence: str, question: str, answer: str) -> None:
    best, *_ = Question(question).answers(sentence, 100)
    assert best.span.text == answer
    assert sentence[best.span.start - 100 : best.span.end - 100] == answer


def test_a_sentence_that_says_no_more_than_the_question_has_no_answer() -> None:
    assert Question("Is the bridge old?").answers("The bridge is old.") == []
    assert Question("").answers("") == []
