"""Names judged by the real model."""

# ruff: noqa: RUF001  (letters of other scripts)

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ondevice_sdk import Client, Entities, PersonalData
from ondevice_sdk.store import Store

pytestmark = [pytest.mark.model, pytest.mark.slow]

LETTER = (
    "Yesterday Maria Jensen wrote to us from London. She works for Siemens and lives in Germany with her brother "
    "Peter. The Great Plan of the year is to visit Paris. Write to maria.jensen@example.com or call +44 20 7946 0958."
)


@pytest.fixture(scope="module")
def ai(installed_store: Store) -> Iterator[Client]:
    with Client("smollm2-135m-instruct", backends=("llama_cpp",), context=2048, store=installed_store) as client:
        yield client


def test_well_known_names_are_told(ai: Client) -> None:
    analysis = ai.analyse(LETTER, Entities)
    kinds = {entity.text: entity.kind for entity in analysis.output.entities}
    expected = {
        "Maria Jensen": "person",
        "Peter": "person",
        "London": "place",
        "Germany": "place",
        "Paris": "place",
        "Siemens": "organisation",
    }
    assert {name: kinds.get(name) for name in expected} == expected
    assert not {"Yesterday", "She", "Write"} & set(kinds)
    assert analysis.usage.completion_tokens == 0


def test_a_letter_is_redacted_and_restored(ai: Client) -> None:
    redaction = ai.redact(LETTER)
    for secret in ("Maria", "Peter", "example.com", "7946"):
        assert secret not in redaction.text
    assert redaction.restore() == LETTER
    assert {one.placeholder for one in redaction.replacements} >= {"[EMAIL_1]", "[PHONE_1]"}


@pytest.mark.parametrize(
    "text", ["東京電力の野村修也委員は大阪市で話した。", "В Москве он встретил Ивана Петрова.", "👍🏽 Zoë & Ä"]
)
def test_offsets_are_exact_in_every_script(ai: Client, text: str) -> None:
    for item in ai.analyse(text, PersonalData).output.items:
        assert all(text[span.start : span.end] == span.text == item.text for span in item.spans)
    assert ai.redact(text, min_confidence=0).restore() == text
