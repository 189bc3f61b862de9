from __future__ import annotations

import dataclasses
import enum
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice_sdk.backends.api import Chat
from ondevice_sdk.errors import ConfigurationError, InputTooLong, OutputInvalid, SchemaUnsupported
from ondevice_sdk.tasks import Languages, Sentiment, Topics, analyse
from ondevice_sdk.tasks.analyse import merge
from ondevice_sdk.tasks.flow import run_with
from ondevice_sdk.tasks.labels.odds import softmax
from ondevice_sdk.tasks.schema import close_json
from ondevice_sdk.types import Analysis

from .models import FakeModel, prompt_text


def run(text: str, form: Any, model: FakeModel, context_tokens: int = 4096, **options: Any) -> Analysis[Any]:
    return run_with(analyse(text, form, context_tokens=context_tokens, **options), model)


def writes(value: Any, finish_reason: str = "stop") -> FakeModel:
    return FakeModel(lambda prompt: value if isinstance(value, str) else json.dumps(value), finish_reason=finish_reason)


def feels(prompt: str, label: str) -> float:
    """A biased model: it likes "positive", but bad words move it."""
    bad = prompt.count("bad")
    return {" positive": -1.0, " negative": -4.0 + 2 * bad, " neutral": -3.0}.get(label, -5.0)


class Ticket(enum.Enum):
    ACCOUNT_BLOCKED = 1
    OTHER = 2


@dataclass
class Plan:
    cost: int
    town: str | None = None


@dataclass
class Tree:
    name: str
    parts: list[Tree] = dataclasses.field(default_factory=list)


def test_labels_are_scored_against_the_models_bias() -> None:
    model = FakeModel(score=feels)
    result = run("It was bad.", Sentiment, model)
    assert result.output is Sentiment.NEGATIVE
    assert list(result.probabilities or ()) == ["positive", "negative", "neutral"]
    assert math.isclose(sum((result.probabilities or {}).values()), 1.0)
    assert result.confidence == (result.probabilities or {})["negative"]
    free, scored = model.scorings
    assert prompt_text(scored.prompt) == "Review: It was bad.\nSentiment:"
    assert "bad" not in prompt_text(free.prompt)


def test_literal_and_enum_labels_give_their_values() -> None:
    model = FakeModel(score=lambda prompt, label: 0.0 if ("Text: x" in prompt and "blocked" in label) else -3.0)
    result = run("x", Ticket, model)
    assert result.output is Ticket.ACCOUNT_BLOCKED
    assert model.scorings[0].continuations == (" account blocked", " other")
    assert run("x", Literal["is_blocked", "fine"], model).output == "is_blocked"
    assert run("x", Literal[1, 2], FakeModel()).output == 1


def test_languages_are_scored_by_name() -> None:
    def score(prompt: str, label: str) -> float:
        return 0.0 if label == " German" and "Haus" in prompt else -2.0

    assert run("Das Haus", Languages, FakeModel(score=score)).output is Languages.GERMAN


def test_low_confidence_is_a_warning() -> None:
    result = run("x", Sentiment, FakeModel(), abstain_below=0.9)
    assert result.warnings == ("low confidence",)
    assert run("x", Sentiment, FakeModel(), abstain_below=0.1).warnings == ()


def test_long_text_is_scored_in_parts_in_one_step() -> None:
    model = FakeModel(score=feels, context_tokens=400)
    result = run(
        "This part is fine. " * 100 + "This one is bad, bad and bad. " * 200, Sentiment, model, context_tokens=400
    )
    assert result.output is Sentiment.NEGATIVE
    assert len(model.scorings) > 5


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=50))
def test_probabilities_sum_to_one(odds: list[float]) -> None:
    assert math.isclose(math.fsum(softmax(odds)), 1.0)


@given(st.text(min_size=1, max_size=200), st.floats())
def test_labels_survive_any_text_and_any_score(text: str, score: float) -> None:
    if not text.strip():
        return
    result = run(text, Sentiment, FakeModel(score=lambda prompt, label: score if "pos" in label else -1.0))
    assert math.isclose(math.fsum((result.probabilities or {}).values()), 1.0)


@pytest.mark.parametrize(
    ("form", "answer", "expected"),
    [
        (Tree, {"name": "Tea", "parts": [{"name": "Marlow"}]}, Tree("Tea", [Tree("Marlow")])),
        (list[str], ["Tea", "Marlow"], ["Tea", "Marlow"]),
        (int, 5, 5),
        (bool, True, True),
        ({"type": "object"}, {"any": [1, None]}, {"any": [1, None]}),
    ],
)
def test_open_forms(form: Any, answer: Any, expected: Any) -> None:
    model = writes(answer)
    result = run("Tea for Marlow, 32.", form, model)
    assert result.output == expected
    assert result.probabilities is None
    (request,) = model.generations
    assert request.grammar is not None
    assert request.grammar.form == "json_schema"
    assert isinstance(json.loads(request.grammar.source), dict)
    assert isinstance(request.prompt, Chat)
    assert request.prompt.messages[-1].content.startswith("Tea for Marlow, 32.\n\n")


def test_examples_of_open_forms_are_turns() -> None:
    model = writes({"name": "text"})
    run("text", Tree, model, examples=[("It is an oak", Tree("oak"))])
    prompt = model.generations[0].prompt
    assert isinstance(prompt, Chat)
    assert [message.role for message in prompt.messages] == ["user", "assistant", "user"]
    assert json.loads(prompt.messages[1].content) == {"name": "oak", "parts": []}


@pytest.mark.parametrize("raw", ['{"name": "oa', '{"parts": []}', "", "[" * 100_000])
def test_an_unfinished_form_is_invalid_and_the_message_holds_no_text(raw: str) -> None:
    with pytest.raises(OutputInvalid) as caught:
        run("text", Tree, writes(raw, "length"))
    assert caught.value.raw == raw
    assert not raw or raw not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("raw", "closed"),
    [
        ('["a","b","c', '["a","b"]'),
        ('["a","b"', '["a"]'),
        ('{"items":["tea","mi', '{"items":["tea"]}'),
        ('[{"text":"a, ]}\\"","kind":"x"},{"text":"b"', '[{"text":"a, ]}\\"","kind":"x"}]'),
        ('[{"text":"a","kind":"x"},{"text":"b","ki', '[{"text":"a","kind":"x"}]'),
        ('{"a":1,"b":[{"c":1,"d":2},{"c":3,', '{"a":1,"b":[{"c":1,"d":2}]}'),
        ('[{"text":"a"}', '[{"text":"a"}]'),
        ('["a', None),
        ('{"cost": 3', None),
        ("", None),
    ],
)
def test_close_json_leaves_out_what_is_unfinished(raw: str, closed: str | None) -> None:
    assert close_json(raw) == closed
    assert closed is None or isinstance(json.loads(closed), (list, dict))


def test_a_list_that_ran_out_of_tokens_keeps_its_finished_items() -> None:
    result = run("a text", list[str], writes('["a","b', "length"))
    assert result.output == ["a"]
    assert any("ran out of tokens" in warning for warning in result.warnings)


def test_long_documents_fill_a_form_part_by_part() -> None:
    def answer(prompt: str) -> str:
        return json.dumps({"name": "tea", "parts": [{"name": "milk"}] if "milk" in prompt else []})

    model = FakeModel(answer, context_tokens=700)
    result = run("Some tea is wanted. " * 300 + "Also some milk.", Tree, model, context_tokens=700)
    assert result.output == Tree("tea", [Tree("milk")])
    assert len(model.generations) > 1


def test_merge() -> None:
    assert merge([None, "", "a", "b"]) == "a"
    assert merge([[1, 2], [2, 3]]) == [1, 2, 3]
    assert merge([{"a": None, "b": [1]}, {"a": 4, "b": [{"x": 1}]}]) == {"a": 4, "b": [1, {"x": 1}]}
    assert merge([None, None]) is None
    assert merge([False, True]) is False
    assert merge(["Rome", "Bern"], lambda value: value == "Bern") == "Bern"
    assert merge([{"a": "x"}, {"a": "y"}], lambda value: False) == {"a": "x"}


def test_topics_are_not_repeated_nor_taken_from_what_was_shown() -> None:
    text = "Anna Meier of ACME wrote to bo@example.com. Anna Meier lives in Bern."
    assert run(text, Topics, writes(["Mail", "mail", "People"])).output.topics == ("mail", "People")
    assert run(text, Topics, writes(["Building of public libraries", "Mail"])).output.topics == ("Mail",)  # as shown


@pytest.mark.parametrize(
    "call",
    [
        lambda: analyse("", Sentiment, context_tokens=512),
        lambda: analyse("a\udc00", Sentiment, context_tokens=512),
        lambda: analyse("x", Sentiment, context_tokens=512, abstain_below=2),
        lambda: analyse("x", Sentiment, context_tokens=512, abstain_below="0.5"),  # type: ignore[arg-type]
        lambda: analyse("x", Sentiment, context_tokens=512, abstain_below=float("nan")),
        lambda: analyse("x", Sentiment, context_tokens=512, examples=[("a", "angry")]),
        lambda: analyse("x", Sentiment, context_tokens=512, examples=["ab"]),  # type: ignore[list-item]
        lambda: analyse("x", Plan, context_tokens=512, examples=[("a", {"cost": "much"})]),
        lambda: analyse("x", Literal["a", " "], context_tokens=512),
        lambda: analyse("x", "Sentiment", context_tokens=512),
        lambda: analyse("x", {"type": object()}, context_tokens=512),
        lambda: analyse("x", Sentiment, context_tokens=512, seed=-1),
    ],
)
def test_bad_input(call: Callable[[], Any]) -> None:
    with pytest.raises(ConfigurationError):
        run_with(call(), FakeModel())


def test_what_cannot_be_a_constraint() -> None:
    for form in (str, object.__init__, type("Odd", (), {})):
        with pytest.raises(SchemaUnsupported):
            run("x", form, FakeModel())
    with pytest.raises(InputTooLong):
        run("x", Sentiment, FakeModel(), context_tokens=30)
