from __future__ import annotations

from ondevice_sdk.text.salience import Salience
from ondevice_sdk.text.spans import Document
from ondevice_sdk.text.turns import Turns

TEXT = (
    "Harbours are old. Models of harbours and of ships are built in Marlow. In this report we describe a new model of "
    "ships. It is small. The weather was fine on Tuesday. The cook of the office likes tea."
)


def best(question: str | None = None, said: tuple[str, ...] = ()) -> str:
    document = Document(TEXT)
    salience = Salience(document, question)
    return max(document.sentences, key=lambda span: salience.score(span.text, (span,), said)).text


def test_the_aim_of_a_text_is_worth_most() -> None:
    assert best() == "In this report we describe a new model of ships."


def test_a_question_draws_what_shares_its_words() -> None:
    document = Document(TEXT)
    cook = document.sentences[-1]
    plain = Salience(document).score(cook.text, (cook,))
    assert Salience(document, "What does the cook like?").score(cook.text, (cook,)) > plain + 0.4
    assert Salience(document, "Where is it?").score(cook.text, (cook,)) == plain


def test_what_was_said_counts_less() -> None:
    document = Document(TEXT)
    second = document.sentences[1]
    salience = Salience(document)
    assert salience.score(second.text, (second,), ("model", "harbour")) < salience.score(second.text, (second,))


def test_only_a_transcript_has_turns() -> None:
    text = "Ann: One. Two.\nProject Manager: Three.\nAnn: Four."
    turns = Turns(text)
    assert [turns.speaker(text.index(word)) for word in ("One", "Two", "Three", "Four")] == [
        "Ann",
        "Ann",
        "Project Manager",
        "Ann",
    ]
    assert Turns("Note: one.\nIt is so.\nAnd so.\nOr so.").speaker(3) == ""
    assert Turns("").speaker(0) == ""
    assert Turns("a " * 100_000).speaker(5) == ""
