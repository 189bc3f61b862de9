from __future__ import annotations

import math
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.tasks import Languages, Sentiment, analyse
from ondevice_sdk.tasks.flow import run_with
from ondevice_sdk.tasks.labels.learned import Learned, key_of
from ondevice_sdk.tasks.labels.odds import Fit, fit, softmax
from ondevice_sdk.types import Analysis

from .models import FakeModel, prompt_text

Colour = Literal["red", "blue"]


def run(text: str, form: Any, model: FakeModel, **options: Any) -> Analysis[Any]:
    return run_with(analyse(text, form, context_tokens=options.pop("context_tokens", 2048), **options), model)


def leans_to_red(prompt: str, label: str) -> float:
    """Likes "red" by 5.5 too much, and knows only "sea" and "fire"."""
    hint = prompt.count("sea") if label == " blue" else prompt.count("fire")
    return -20.0 + 5 * hint + (5.5 if label == " red" else 0.0)


# --- the arithmetic ---------------------------------------------------------------------------------------------------


def test_a_fit_moves_the_border_to_where_the_examples_say() -> None:
    rows = [[3.0, 0.0], [2.5, 0.0], [1.0, 0.0], [0.5, 0.0]]
    learnt = fit(rows, [0, 0, 1, 1], stiff_bias=0.1, stiff_scale=1.0)
    assert [learnt(row).index(max(learnt(row))) for row in rows] == [0, 0, 1, 1]


def test_a_stiff_fit_stays_where_it_was() -> None:
    learnt = fit([[3.0, 0.0], [1.0, 0.0]], [1, 1], stiff_bias=1e9, stiff_scale=1e9)
    assert learnt([1.0, -1.0]) == pytest.approx([1.0, -1.0], abs=1e-6)


def test_examples_that_the_scores_do_not_tell_apart_make_modest() -> None:
    rows = [[4.0, 0.0], [0.0, 4.0]] * 4
    learnt = fit(rows, [0, 0, 1, 1, 1, 1, 0, 0], stiff_bias=1.0, stiff_scale=1.0)
    assert learnt.scale < 0.5
    assert fit(rows, [0, 1] * 4, stiff_bias=1.0, stiff_scale=1.0).scale > 1


@given(
    st.integers(2, 5).flatmap(
        lambda count: st.lists(
            st.tuples(st.lists(st.floats(-1e4, 1e4), min_size=count, max_size=count), st.integers(0, count - 1)),
            min_size=1,
            max_size=12,
        )
    )
)
def test_a_fit_of_any_rows_gives_probabilities(rows: list[tuple[list[float], int]]) -> None:
    learnt = fit([row for row, _ in rows], [label for _, label in rows], stiff_bias=1.0, stiff_scale=1.0)
    assert learnt.scale > 0
    assert math.isclose(math.fsum(softmax(learnt(rows[0][0]))), 1.0)


def test_more_examples_make_a_fit_likelier_and_never_worse_than_none() -> None:
    rows = [[math.sin(3.0 * at) * 3 + 1, 0.0] for at in range(24)]
    right = [int(row[0] < 1.5) for row in rows]

    def loss(correction: Fit) -> float:
        return -math.fsum(math.log(softmax(correction(row))[label]) for row, label in zip(rows, right, strict=True))

    untouched = loss(Fit(1.0, (0.0, 0.0)))
    losses = [loss(fit(rows[:count], right[:count], stiff_bias=1.0, stiff_scale=1.0)) for count in (4, 12, 24)]
    assert losses[2] < losses[0]
    assert losses[2] < untouched / 1.5


# --- flows ------------------------------------------------------------------------------------------------------------


def test_examples_correct_the_lean_of_the_model() -> None:
    def leaning(prompt: str, label: str) -> float:  # also where there is no text, but less
        return leans_to_red(prompt, label) if "MASK" not in prompt else -5.0

    assert run("the sea", Colour, FakeModel(score=leaning)).output == "red"
    examples = [("sea and sea", "blue"), ("sea", "blue"), ("fire", "red"), ("fire and fire", "red")] * 4
    learnt = run("the sea", Colour, FakeModel(score=leaning), examples=examples)
    assert learnt.output == "blue"
    assert run("the fire", Colour, FakeModel(score=leaning), examples=examples).output == "red"


def test_examples_are_never_on_the_page_of_the_text() -> None:
    model = FakeModel(score=leans_to_red)
    run("the sea", Colour, model, examples=[("a secret", "blue")])
    assert [("secret" in prompt_text(each.prompt), "sea" in prompt_text(each.prompt)) for each in model.scorings].count(
        (True, True)
    ) == 0
    assert any("secret" in prompt_text(each.prompt) for each in model.scorings)


def test_examples_that_are_too_long_are_told() -> None:
    examples = [("ugh", "negative"), ("long " * 500, "positive")]
    model = FakeModel(context_tokens=300)
    result = run("fine", Sentiment, model, context_tokens=300, examples=examples)
    assert result.warnings == ("1 of 2 examples did not fit into the context",)


def test_what_was_learned_is_not_asked_again() -> None:
    learned, examples = Learned(), [("sea", "blue"), ("fire", "red")]
    first, second, other = (FakeModel(score=leans_to_red) for _ in range(3))
    options: dict[str, Any] = {"examples": examples, "learned": learned}
    one = run("the sea", Colour, first, **options)
    two = run("the sea", Colour, second, **options)
    assert two.probabilities == one.probabilities
    assert len(first.scorings) > len(examples)
    assert len(second.scorings) == 1
    run("the sea", Colour, other, examples=examples[:1], learned=learned)
    assert len(other.scorings) > 1


def test_what_was_learned_holds_no_text() -> None:
    learned = Learned()
    run("the sea", Colour, FakeModel(score=leans_to_red), examples=[("my secret", "blue")], learned=learned)
    assert "secret" not in repr(vars(learned))
    assert key_of("a", "b") != key_of("b", "a")


def test_only_the_latest_pages_are_remembered() -> None:
    learned = Learned()
    for count in range(100):
        run("x", Literal[f"label {count}", "other"], FakeModel(), learned=learned)
    assert repr(learned) == "Learned(64)"


def test_an_example_with_another_label_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        run("x", Colour, FakeModel(), examples=[("y", "green")])


def test_a_result_that_abstains_keeps_its_label() -> None:
    result = run("the sea", Colour, FakeModel(score=leans_to_red), abstain_below=1.0)
    assert result.output in ("red", "blue")
    assert result.warnings == ("low confidence",)


def test_languages_are_ranked_and_end_in_und() -> None:
    result = run("Der Hund und die Katze sind nicht auf dem Haus, aber in einem Garten.", Languages, FakeModel())
    tags = list(result.probabilities or {})
    chances = list((result.probabilities or {}).values())
    assert result.output is Languages.GERMAN
    assert tags[0] == "de"
    assert tags[-1] == "und"
    assert chances[:-1] == sorted(chances[:-1], reverse=True)
    assert math.isclose(math.fsum(chances), 1.0)
    assert result.confidence is not None
    assert result.confidence > 0.9


@pytest.mark.parametrize("text", ["12 + 5 = 17", "!?", "xqz wrt plk jjq zzt mnb vcx qwe rty uio asd fgh jkl"])
def test_where_no_language_fits_it_is_und(text: str) -> None:
    assert run(text, Languages, FakeModel()).output is Languages.UNDETERMINED


def test_languages_of_odd_texts_and_examples() -> None:
    assert run(" " * 3000 + "Marlow", Languages, FakeModel()).probabilities
    assert run("Marlow", Languages, FakeModel(), examples=[("12", "und"), ("Hallo", "de")]).probabilities
