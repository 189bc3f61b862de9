from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice_sdk.errors import ConfigurationError, InputTooLong
from ondevice_sdk.tasks import Entities, KeyPhrases, PersonalData, analyse, redact
from ondevice_sdk.tasks.flow import run_with
from ondevice_sdk.tasks.names import find_names
from ondevice_sdk.types import Redaction

from .models import FakeModel

LETTER = (
    "Yesterday Anna Meier of Halcom Ltd wrote to bo@example.com from Leeds. We thanked Meier. "
    "Pay with 4111 1111 1111 1111 by 12/05/2021, said Anna Meier."
)
KNOWN = {
    "Anna Meier": (" person", " woman"),
    "Meier": (" person", " family"),
    "Leeds": (" place", " city"),
    "Halcom Ltd": (" organization", " company"),
}


def sure(prompt: str, label: str) -> float:
    """A model that knows some names and takes all else for words."""
    name = prompt.rsplit("\n", 1)[-1].removesuffix(":").removesuffix(" is a")
    return -0.01 if label in KNOWN.get(name, (" word",)) else -8.0


def quoted(text: str, form: Any, model: FakeModel | None = None, context_tokens: int = 4096) -> Any:
    return run_with(analyse(text, form, context_tokens=context_tokens), model or FakeModel(score=sure)).output


def redacted(text: str, **options: Any) -> Redaction:
    return run_with(redact(text, context_tokens=4096, **options), FakeModel(score=sure))


def test_entities_are_judged_by_scores() -> None:
    model = FakeModel(score=sure)
    entities = quoted(LETTER, Entities, model).entities
    assert [(entity.text, entity.kind, len(entity.spans)) for entity in entities] == [
        ("Anna Meier", "person", 2),
        ("Halcom Ltd", "organisation", 1),
        ("Leeds", "place", 1),
        ("Meier", "person", 1),
        ("12/05/2021", "date", 1),
    ]
    assert model.generations == []
    assert all(LETTER[span.start : span.end] == entity.text for entity in entities for span in entity.spans)
    assert "Anna" not in repr(entities)


def test_personal_data_joins_patterns_and_names() -> None:
    items = quoted(LETTER, PersonalData).items
    assert [(item.text, item.kind, item.checked) for item in items] == [
        ("Anna Meier", "name", False),
        ("Halcom Ltd", "organisation", False),
        ("bo@example.com", "email", True),
        ("Leeds", "place", False),
        ("Meier", "name", False),
        ("4111 1111 1111 1111", "card", True),
        ("12/05/2021", "date", True),
    ]
    assert all(0.5 <= item.confidence <= 1 for item in items)
    assert "Anna" not in repr(items)


def test_a_number_after_a_place_is_its_postcode() -> None:
    text = "We moved to Leeds 6091 in May."
    assert [(item.text, item.kind) for item in quoted(text, PersonalData).items] == [
        ("Leeds", "place"),
        ("6091", "address"),
    ]
    assert [item.text for item in quoted("We met in Leeds 2019.", PersonalData).items] == ["Leeds"]


def test_what_the_model_takes_for_words_is_left_out() -> None:
    assert quoted("The Wisdom of Zork is Great.", Entities).entities == ()
    assert quoted("nothing here", Entities).entities == ()


def test_the_same_name_is_asked_about_a_few_times_only_however_long_the_text() -> None:
    model = FakeModel(score=sure)
    text = "".join(f"On day {day} we saw Anna Meier. " for day in range(500))
    (entity,) = quoted(text, Entities, model).entities
    assert len(entity.spans) == 500
    assert len(model.scorings) <= 6


def test_many_names_go_in_steps_that_tell_progress() -> None:
    digits = str.maketrans("0123456789", "abcdefghij")
    text = " ".join(f"We saw Bo{str(at).translate(digits)} there." for at in range(300))
    flow = find_names(text, context_tokens=4096)
    steps: list[Any] = []

    def answer(request: Any) -> Any:
        steps.append(request)
        return FakeModel(score=sure)(request)

    named, usage = run_with(flow, answer)
    assert len(named) == 300
    assert usage.prompt_tokens > 0
    assert len(steps) == 601


def test_a_part_of_a_full_name_is_the_person() -> None:
    def half(prompt: str, label: str) -> float:
        return sure(prompt, label) if "Anna" in prompt.rsplit("\n", 1)[-1] else sure("Halcom Ltd:", label)

    entities = quoted("We met Anna Meier. We like Meier.", Entities, FakeModel(score=half)).entities
    assert [(entity.text, entity.kind) for entity in entities] == [("Anna Meier", "person"), ("Meier", "person")]


def test_a_context_that_is_too_small() -> None:
    with pytest.raises(InputTooLong):
        quoted(LETTER, Entities, context_tokens=64)
    assert quoted(LETTER, Entities, FakeModel(score=sure, context_tokens=420), context_tokens=420).entities


def test_examples_are_refused_and_not_ignored() -> None:
    with pytest.raises(ConfigurationError):
        run_with(analyse(LETTER, Entities, context_tokens=4096, examples=[("a", {})]), FakeModel())


def test_key_phrases_need_no_model() -> None:
    model = FakeModel()
    phrases = quoted("Solar panels feed homes. The village wants no solar panels.", KeyPhrases, model).phrases
    assert phrases
    assert model.requests == []


def test_redact_replaces_every_place_and_restores() -> None:
    redaction = redacted(LETTER)
    assert redaction.text == (
        "Yesterday [NAME_1] of [ORGANISATION_1] wrote to [EMAIL_1] from [PLACE_1]. We thanked [NAME_2]. "
        "Pay with [CARD_1] by [DATE_1], said [NAME_1]."
    )
    assert redaction.restore() == LETTER
    assert redaction.restore("Hello [name_2]") == "Hello Meier"
    assert json.dumps([one.placeholder for one in redaction.replacements])


def test_redact_takes_out_what_was_not_found_by_itself() -> None:
    text = "We met Anna Meier. see xAnna Meiers, (Anna Meier) and Anna Meier-Hill"
    assert redacted(text, kinds=["name"]).text == "We met [NAME_1]. see xAnna Meiers, ([NAME_1]) and [NAME_1]-Hill"
    assert redacted("We met Leeds. aLLeeds LLeeds _Leeds").text == "We met [PLACE_1]. aLLeeds LLeeds _[PLACE_1]"


def test_redact_takes_the_longer_of_two_strings_that_begin_alike() -> None:
    text = "bo@example.com bo@example.com.au bo@example.co " * 2
    assert redacted(text).text == "[EMAIL_1] [EMAIL_2] [EMAIL_3] " * 2
    many = " ".join(f"user{number}@example.com" for number in range(300)) + " user7@example.com"
    redaction = redacted(many)
    assert len(redaction.replacements) == 300
    assert redaction.restore() == many


def test_redact_only_some_kinds() -> None:
    assert "Anna" in redacted(LETTER, kinds="email").text
    assert "example" not in redacted(LETTER, kinds="email").text
    assert redacted(LETTER, kinds=[]).text == LETTER
    people = FakeModel(score=lambda prompt, label: -0.01 if label in KNOWN["Anna Meier"] else -8.0)
    road = redact("We met at 12 Leeds Road.", context_tokens=4096, kinds=["name"])
    # an address, and to this model a name
    assert run_with(road, people).text == "We met at 12 [NAME_1]."
    assert "Halcom" in redacted(LETTER, min_confidence=1).text


@pytest.mark.parametrize(
    "options", [{"kinds": ["names"]}, {"min_confidence": 2}, {"min_confidence": True}, {"min_confidence": "high"}]
)
def test_wrong_options(options: Any) -> None:
    with pytest.raises(ConfigurationError):
        redacted(LETTER, **options)
    with pytest.raises(ConfigurationError):
        redacted("   ")


@given(st.text(min_size=1, max_size=120), st.floats(allow_nan=True), st.floats(0, 1))
def test_any_text_and_any_score(text: str, score: float, least: float) -> None:
    if not text.strip():
        return
    model = FakeModel(score=lambda prompt, label: score if "per" in label else -1.0)
    try:
        redaction = run_with(redact(text, context_tokens=4096, min_confidence=least), model)
    except ConfigurationError:  # no letters that can be encoded
        return
    assert redaction.restore() == text
