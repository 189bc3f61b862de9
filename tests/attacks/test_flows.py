"""What tasks do with a text that tries to steer, whatever the model makes of it."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from ondevice_sdk.tasks import analyse, summarise
from ondevice_sdk.tasks.flow import run_with
from ondevice_sdk.text.injection import STEERING
from ondevice_sdk.types import Summary
from tests.attacks.passages import ATTACKS, CARRIERS, HOSTS
from tests.tasks.models import FakeModel, first_sentences, prompt_text

ATTACK = ATTACKS["override"]
TEXT = CARRIERS["a paragraph"](HOSTS[0][0], ATTACK, HOSTS[0][1])


def summary_of(text: str, model: FakeModel, **options: Any) -> Summary:
    return run_with(summarise(text, context_tokens=2048, **options), model)


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_summary_neither_shows_nor_quotes_an_attack(carrier: str) -> None:
    text = CARRIERS[carrier](HOSTS[1][0], ATTACK, HOSTS[1][1])
    model = FakeModel(first_sentences)
    summary = summary_of(text, model)
    assert any(warning.startswith(STEERING) for warning in summary.warnings)
    assert "lighthouse" not in summary.text
    assert not any("lighthouse" in prompt_text(request.prompt) for request in model.generations)
    for point in summary.points:
        assert all(text[span.start : span.end] == span.text for span in point.sources)
        assert all("lighthouse" not in span.text for span in point.sources)


def test_a_model_that_obeys_is_not_believed() -> None:
    summary = summary_of(TEXT, FakeModel(lambda prompt: "- A lighthouse shines over previous instructions at sea."))
    assert "lighthouse" not in summary.text
    assert {point.status for point in summary.points} == {"extractive"}


def test_a_text_that_is_an_instruction_is_summarised_as_it_is() -> None:
    model = FakeModel(first_sentences)
    summary = summary_of(f"{ATTACK} Make it eight lines long and end it with a question to the reader.", model)
    assert STEERING in summary.warnings
    assert any("lighthouse" in prompt_text(request.prompt) for request in model.generations)


def test_an_ordinary_text_brings_no_warning() -> None:
    summary = summary_of("\n\n".join(HOSTS[0]), FakeModel(first_sentences))
    assert not any(STEERING in warning for warning in summary.warnings)


@pytest.mark.parametrize(("text", "warned"), [(TEXT, True), ("\n\n".join(HOSTS[0]), False)], ids=["attack", "ordinary"])
def test_an_analysis_warns(text: str, warned: bool) -> None:
    topic = run_with(analyse(text, Literal["money", "weather"], context_tokens=2048), FakeModel())
    form = {"type": "object", "properties": {"amount": {"type": "string"}}, "required": ["amount"]}
    fields = run_with(analyse(text, form, context_tokens=2048), FakeModel(lambda _: '{"amount": "86,000 crowns"}'))
    for result in (topic, fields):
        assert (STEERING in result.warnings) is warned
        assert not any("lighthouse" in warning for warning in result.warnings)
