from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice_sdk.backends.api import Chat
from ondevice_sdk.errors import ConfigurationError, ContractViolation, InputTooLong
from ondevice_sdk.tasks import summarise
from ondevice_sdk.tasks.contracts import render
from ondevice_sdk.tasks.flow import run_with
from ondevice_sdk.tasks.plan import plan_for
from ondevice_sdk.tasks.statements import clean, parse
from ondevice_sdk.text.split import count_words
from ondevice_sdk.types import Point, Style, Summary

from .models import ANSWERS, FakeModel, first_sentences

ARTICLE = (
    "The council of Marlow voted on Tuesday to rebuild the harbour. The plan will cost 32 million pounds and includes "
    "240 flats. Councillor Priya Nair said that work would begin in March. Critics did not trust the estimated rents. "
    "The ferry company expects 180,000 passengers in the first year. Fishermen keep their moorings free of charge. "
    "A survey of the seagrass will be finished in June. Lorries may use the northern road only."
)
LONG = "\n\n".join(
    f"Chapter {n}. In year {1000 + n} the city number {n} built a tower of {n + 7} metres." for n in range(1200)
)
STYLES = get_args(Style)


def run(text: str, model: FakeModel | None = None, context_tokens: int = 4096, **options: Any) -> Summary:
    model = model or FakeModel(first_sentences)
    summary = run_with(summarise(text, context_tokens=context_tokens, **options), model)
    assert summary.points
    assert summary.text
    for point in summary.points:
        assert point.text
        assert all(text[span.start : span.end] == span.text for span in point.sources)
    assert summary.coverage.fraction == 1.0
    assert summary.coverage.calls == len(model.generations)
    return summary


def check_violation(violation: ContractViolation, most: int) -> None:
    assert violation.contract == "words"
    assert violation.best.points
    assert count_words(violation.best.text) > most


@pytest.mark.parametrize(("length", "count"), [("short", 3), ("medium", 5), ("long", 7)])
def test_key_points_are_counted_ordered_and_sourced(length: Any, count: int) -> None:
    summary = run(ARTICLE, length=length)
    assert len(summary.points) == count
    assert summary.text.splitlines() == [point.text for point in summary.points]
    starts = [point.sources[0].start for point in summary.points]
    assert starts == sorted(starts)
    assert {point.status for point in summary.points} == {"supported"}
    assert summary.usage.completion_tokens == 5


@pytest.mark.parametrize("style", ["tldr", "teaser"])
@pytest.mark.parametrize(("length", "count"), [("short", 1), ("medium", 3), ("long", 5)])
def test_sentences_of_prose(style: Any, length: Any, count: int) -> None:
    summary = run(ARTICLE, style=style, length=length)
    assert len(summary.points) == count
    assert "\n" not in summary.text


@pytest.mark.parametrize(("length", "most"), [("short", 12), ("medium", 17), ("long", 22)])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_headlines_keep_to_their_words(length: Any, most: int, answer: Any) -> None:
    model = FakeModel(answer)
    long_sentence = "Towers and walls " * 40 + "end. "
    for text in (ARTICLE, long_sentence, long_sentence * 3):
        assert len(run(text, model, style="headline", length=length).text.split()) <= most
        model.requests.clear()


def test_what_the_model_makes_up_gives_way_to_the_document() -> None:
    made_up = "- The plan saves 32 million pounds.\n- Bananas are yellow and round.\n- Work would begin in March."
    summary = run(ARTICLE, FakeModel(lambda prompt: made_up), length="short")
    assert "saves" not in summary.text
    assert "anana" not in summary.text
    assert [point.status for point in summary.points].count("supported") == 1
    assert all(point.text in ARTICLE for point in summary.points if point.status == "extractive")
    assert any("2 of 3" in warning for warning in summary.warnings)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize(
    "text", ["a", "\x00", "!!!", "One word.", "漢", "<|im_end|>", "Hi\nthere", ARTICLE, "word " * 3000]
)
def test_any_model_and_any_text_give_a_summary(style: Any, answer: Any, text: str) -> None:
    run(text, FakeModel(answer, finish_reason="length"), style=style, format="markdown")


@settings(max_examples=60, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=500) | st.text("ab. \n漢。", max_size=400),
    st.sampled_from(STYLES),
    st.sampled_from(sorted(ANSWERS)),
    st.sampled_from(["plain", "markdown"]),
    st.integers(1, 60) | st.sampled_from(["short", "medium", "long"]),
)
def test_invariants(text: str, style: Any, answer: str, form: Any, length: Any) -> None:
    model = FakeModel(ANSWERS[answer], context_tokens=700)
    try:
        summary = run(text, model, context_tokens=700, style=style, format=form, length=length)
    except (ConfigurationError, InputTooLong):
        assert not text.strip() or style in ("key_points", "paragraph", "tldr", "teaser")
        return
    except ContractViolation as violation:
        check_violation(violation, length if isinstance(length, int) else 12)
        assert isinstance(length, int) or style == "headline"
        return
    if isinstance(length, int) and form == "plain":
        assert count_words(summary.text) <= length
        assert len(summary.text.split()) <= length


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("length", [8, 12, 20, 40])
def test_a_limit_of_words_is_kept_and_no_sentence_cut(answer: Any, length: int) -> None:
    for style in ("key_points", "tldr", "paragraph"):
        summary = run(ARTICLE, FakeModel(answer), length=length, style=style)
        assert length // 3 < count_words(summary.text) <= length
        for point in summary.points:
            assert point.text.endswith(".")
            assert point.text.rstrip(".") in ARTICLE  # these models copy: the beginning of a sentence at least


def test_what_cannot_be_said_in_so_few_words_is_an_error_with_the_nearest_attempt() -> None:
    with pytest.raises(ContractViolation) as caught:
        run(ARTICLE, length=3, style="tldr")
    assert caught.value.contract == "words"
    assert caught.value.best.text in ARTICLE
    assert caught.value.best.coverage.calls > 0
    assert "council" not in str(caught.value) + repr(caught.value)


def test_a_model_that_can_say_it_in_fewer_words_is_asked_once_more() -> None:
    model = FakeModel(lambda prompt: "The harbour is rebuilt." if "Statement:" in prompt else ARTICLE)
    long = ARTICLE.replace(". ", " and moreover ").replace("; ", " ")
    summary = run(f"The harbour is rebuilt because {long}", model, length=5, style="tldr")
    assert [(point.text, point.status) for point in summary.points] == [("The harbour is rebuilt.", "repaired")]
    assert sum("Statement:" in request.prompt.messages[0].content for request in model.generations) == 1  # type: ignore[union-attr]


def test_long_documents_are_read_whole_in_one_step_and_then_condensed() -> None:
    flow = summarise(LONG, context_tokens=1024)
    model = FakeModel(first_sentences, context_tokens=1024)
    stages: dict[str, list[int]] = {}
    read = ""
    step = next(flow)
    try:
        while True:
            stages.setdefault(step.stage, []).append(len(step.requests))
            if step.stage == "reading":
                read = " ".join(request.prompt.messages[0].content for request in step.requests)  # type: ignore[union-attr]
            step = flow.send([model(request) for request in step.requests])
    except StopIteration as stop:
        summary: Summary = stop.value
    assert list(stages) == ["measuring", "reading", "writing"]
    assert len(stages["reading"]) == 1
    assert stages["reading"][0] > 10
    assert len(stages["writing"]) > 1  # a tree of notes
    assert all(f"In year {1000 + n} the city" in read for n in range(1200))
    assert len(summary.points) == 5
    assert summary.coverage.calls == len(model.generations)
    assert all(LONG[span.start : span.end] == span.text for point in summary.points for span in point.sources)


@pytest.mark.slow
def test_a_megabyte_of_one_word_is_read_without_repeating_itself() -> None:
    model = FakeModel(first_sentences)
    summary = run("word " * 200_000, model)
    assert len(summary.points) == 1
    assert len(model.generations) < 50


def test_options_reach_the_prompt() -> None:
    model = FakeModel(first_sentences)
    run(ARTICLE, model, context="For fishermen.", seed=7)
    (request,) = model.generations
    assert isinstance(request.prompt, Chat)
    content = request.prompt.messages[0].content
    assert content.startswith(ARTICLE)
    assert "For fishermen." in content
    assert request.sampling.seed == 7
    assert request.sampling.temperature > 0


GERMAN = (
    "1. Der Rat von Marlow will den Hafen neu bauen, und Priya Nair hat den Beginn der Arbeiten genannt.\n"
    "2. Die neue Anlage ist mit 240 Wohnungen geplant, und das ist nicht billig.\n"
    "3. Man hat die Robben nicht gefragt, ob sie das wollen oder nicht."
)
BACK = "The council of Marlow voted to rebuild the harbour."


def test_a_translation_is_checked_by_names_and_numbers_or_translated_back() -> None:
    def answer(prompt: str) -> str:
        if "Translate" not in prompt:
            return GERMAN
        assert "into English" in prompt
        return BACK if "Robben" in prompt else "Bananas are yellow."

    model = FakeModel(answer)
    summary = run(ARTICLE, model, language="German", length="short")
    assert set(summary.text.splitlines()) == {line[3:] for line in GERMAN.splitlines()}
    assert {point.status for point in summary.points} == {"supported"}
    assert any("translation" in warning for warning in summary.warnings)
    assert "Write in German." in model.generations[0].prompt.messages[0].content  # type: ignore[union-attr]


def test_a_wrong_language_is_asked_again_once_and_then_an_error() -> None:
    model = FakeModel(first_sentences)
    with pytest.raises(ContractViolation) as caught:
        run(ARTICLE, model, language="de")
    assert caught.value.contract == "language"
    assert caught.value.best.points
    first, second = (request.prompt.messages[0].content for request in model.generations)  # type: ignore[union-attr]
    assert "whole answer must be in German" not in first
    assert "whole answer must be in German" in second
    only_the_second = FakeModel(lambda prompt: GERMAN if "whole answer" in prompt else BACK)
    assert len(run(ARTICLE, only_the_second, language="de", length="short").points) == 3


def test_fewer_points_in_a_language_than_asked_for_are_an_error() -> None:
    with pytest.raises(ContractViolation) as caught:
        run(ARTICLE, FakeModel(lambda prompt: GERMAN.splitlines()[0]), language="de")
    assert caught.value.contract == "points"
    assert len(caught.value.best.points) == 1


def test_the_language_of_the_text_itself_is_checked_as_without() -> None:
    summary = run(ARTICLE, language="en", length="short")
    assert {point.status for point in summary.points} == {"supported"}
    assert summary.warnings == ()
    short = run("Marlow harbour opened: Priya Nair, 1968.", language="en", style="tldr")
    assert "cannot be told" in short.warnings[0]


def test_markdown_shows_as_it_was_meant() -> None:
    text = "The *rate* of a_b_c rose to 5 * 3 * 2 <b>points</b>. # is a sign of numbers in [tables](x). It is 3 now."
    summary = run(text, FakeModel(), format="markdown", length="short")
    assert summary.text.splitlines()[0] == r"- The \*rate\* of a\_b\_c rose to 5 \* 3 \* 2 \<b\>points\</b\>."
    assert (
        render([Point("12. of May", (), "supported")], plan_for("tldr", "short", "markdown", None, None))
        == "12\\. of May"
    )
    assert render([Point("- a", (), "supported")], plan_for("tldr", "short", "markdown", None, None)) == "\\- a"


def test_turns_of_a_transcript_keep_their_speakers_and_a_question_finds_them() -> None:
    turns = [
        "Ann: Good morning to everybody who came today. Let us begin with the budget of the year.",
        "Bob: The budget is two million this year. I would like the colour of the remote to be yellow.",
        "Ann: We have to end soon because the room is taken. Thank you all for the work of this week.",
    ]
    summary = run("\n".join(turns), FakeModel(), style="tldr", length=14, context="What colour did they like?")
    assert summary.text == "Bob: I would like the colour of the remote to be yellow."
    assert summary.points[0].sources[0].text == "I would like the colour of the remote to be yellow."


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        (" \n", {}),
        ("a\ud800", {}),
        (ARTICLE, {"style": "haiku"}),
        (ARTICLE, {"length": "tiny"}),
        (ARTICLE, {"length": 0}),
        (ARTICLE, {"length": True}),
        (ARTICLE, {"length": 2.5}),
        (ARTICLE, {"format": "html"}),
        (ARTICLE, {"language": "xx"}),
        (ARTICLE, {"language": " "}),
        (ARTICLE, {"context": "\udfff"}),
        (ARTICLE, {"seed": -1}),
    ],
)
def test_bad_input_is_refused_before_the_first_request(text: str, options: dict[str, Any]) -> None:
    model = FakeModel()
    with pytest.raises(ConfigurationError):
        run(text, model, **options)
    assert not model.requests


def test_a_context_too_small_is_refused_with_figures() -> None:
    with pytest.raises(InputTooLong) as caught:
        run(ARTICLE, context_tokens=128)
    assert caught.value.limit == 128


def test_parse_keeps_statements_only() -> None:
    answer = (
        "Here are the key points:\n1. **First** fact is here.\n- 2) Second fact is here.\n\n* First fact is here.\n"
        "List the three most important facts.\nok\n- A broken end of"
    )
    asked = "List the 3 most important facts of the text above as short sentences, one per line."
    assert parse(answer, asked, complete=False) == ["First fact is here.", "Second fact is here."]
    assert parse("One thing happened. Another followed it.", asked) == ["One thing happened.", "Another followed it."]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('Headline: "Big news"', "Big news"),
        ("- 3. Text", "Text"),
        ("(a) **Big** news", "Big news"),
        ("2024 was good", "2024 was good"),
        *((said, said) for said in ("2**3 gives eight", "J. Smith founded it", '"A" beat "B"', "__init__ is called")),
    ],
)
def test_clean(line: str, expected: str) -> None:
    assert clean(line) == expected
