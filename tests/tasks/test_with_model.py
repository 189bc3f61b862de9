"""Tasks through the real client on the real model: contracts and invariants, never what exactly it says."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from ondevice_sdk import (
    Client,
    Entities,
    KeyPhrases,
    Languages,
    Message,
    PersonalData,
    Progress,
    Sentiment,
    Summary,
    Topics,
    errors,
)
from ondevice_sdk.store import Store
from ondevice_sdk.text.split import count_words
from ondevice_sdk.text.terms import numbers

pytestmark = [pytest.mark.model, pytest.mark.slow]

ARTICLE = (
    "The harbour of Marlow\n\nThe council of Marlow voted on Tuesday to rebuild the harbour. The plan will cost 32 "
    "million pounds and includes 240 flats.\n\nCouncillor Priya Nair said that work would begin in March. Critics did "
    "not trust the estimated rents. The ferry company expects 180,000 passengers in the first year. Fishermen keep "
    "their moorings free of charge. A survey of the seagrass will be finished in June."
)


@pytest.fixture(scope="module")
def ai(installed_store: Store) -> Iterator[Client]:
    with Client("smollm2-135m-instruct", backends=("llama_cpp",), context=2048, store=installed_store) as client:
        yield client


def check_summary(summary: Summary, text: str) -> None:
    assert summary.coverage.fraction == 1.0
    assert len({point.text for point in summary.points}) == len(summary.points)
    for point in summary.points:
        assert point.text in summary.text
        assert point.sources
        assert all(text[span.start : span.end] == span.text for span in point.sources)
        assert any(numbers(point.text) <= numbers(span.text) for span in point.sources)


@pytest.mark.parametrize(
    ("style", "length", "count"),
    [("key_points", "short", 3), ("tldr", "short", 1), ("teaser", "medium", 3), ("headline", "short", 1)],
)
def test_summaries_keep_their_contract(ai: Client, style: Any, length: Any, count: int) -> None:
    summary = ai.summarise(ARTICLE, style=style, length=length, format="markdown")
    check_summary(summary, ARTICLE)
    assert len(summary.points) == count
    if style == "headline":
        assert len(summary.text.removeprefix("# ").split()) <= 12
    else:
        assert all(point.text != "The harbour of Marlow" for point in summary.points)


def test_a_limit_of_words_and_a_seed(ai: Client) -> None:
    first = ai.summarise(ARTICLE, style="tldr", length=30, seed=7)
    check_summary(first, ARTICLE)
    assert count_words(first.text) <= 30
    assert ai.summarise(ARTICLE, style="tldr", length=30, seed=7).text == first.text


def test_a_text_longer_than_the_context_is_read_in_full(installed_store: Store) -> None:
    text = "\n\n".join(
        f"The town number {n} lies in the north. It has {n + 100} houses and a school. In {1800 + n} its church burned "
        "down, and the people built it again from stone."
        for n in range(17)
    )
    told: list[Progress] = []
    with Client("smollm2-135m-instruct", backends=("llama_cpp",), context=640, store=installed_store) as ai:
        assert ai.count_tokens(text) > ai.context_length
        summary = ai.summarise(text, length="short", on_progress=told.append)
    check_summary(summary, text)
    assert summary.coverage.calls > 2
    assert {"reading", "writing"} <= {progress.stage for progress in told}


def test_labels(ai: Client) -> None:
    for text, expected in (
        ("I love this phone, it is great.", "positive"),
        ("The worst film ever, awful.", "negative"),
    ):
        three = ai.analyse(text, Sentiment)
        two = ai.analyse(text, Literal["positive", "negative"])
        assert three.output == two.output == expected
        assert sum((three.probabilities or {}).values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (ARTICLE, "en"),
        ("Das ist ein kurzer Satz, und er ist auf Deutsch.", "de"),
        ("猫が好きです。", "ja"),
        ("1234 + 5", "und"),
    ],
)
def test_languages(ai: Client, text: str, language: str) -> None:
    assert ai.analyse(text, Languages).output == language


class Item(BaseModel):
    name: str
    amount: int = Field(ge=0, le=10_000_000)


class Report(BaseModel):
    town: str
    mood: Literal["calm", "angry"]
    items: list[Item] = Field(max_length=3)


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


@pytest.mark.parametrize("form", [Report, Topics, Entities, KeyPhrases, PersonalData])
def test_forms_are_filled_and_their_spans_exact(ai: Client, form: Any) -> None:
    text = f"{ARTICLE} Write to press@marlow.example."
    output = ai.analyse(text, form).output
    assert output
    found: Any = ()
    if isinstance(output, PersonalData):
        found = output.items
        assert any(item.kind == "email" and item.checked for item in found)
    elif isinstance(output, Entities):
        found = output.entities
    elif isinstance(output, KeyPhrases):
        found = output.phrases
    assert all(text[span.start : span.end] == span.text == item.text for item in found for span in item.spans)


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        (Report, Report),
        (Literal["yes", "no"], str),
        (Size, Size),
        (int, int),
        (list[str], list),
        (re.compile(r"[A-Z][a-z]{2,9} \d{2}"), str),
        (
            {"type": "object", "properties": {"a": {"type": "integer", "maximum": 99}}, "additionalProperties": False},
            dict,
        ),
    ],
)
def test_typed_outputs(ai: Client, form: Any, kind: type) -> None:
    made = ai.generate(f"{ARTICLE}\n\nDescribe this.", output_type=form, max_tokens=300, temperature=0.0, seed=1)
    assert isinstance(made.output, kind)
    if isinstance(form, re.Pattern):
        assert form.fullmatch(made.text)


def test_an_output_that_cannot_be_finished_is_refused(ai: Client) -> None:
    with pytest.raises(errors.OutputInvalid) as caught:
        ai.generate("Describe a town.", output_type=Report, max_tokens=4)
    assert caught.value.raw is not None


def test_messages_and_instructions(ai: Client) -> None:
    talk = [Message("user", "My name is Ada."), Message("assistant", "Hello Ada."), Message("user", "Say my name.")]
    made = ai.generate(talk, instructions="Answer in one short sentence.", max_tokens=24, temperature=0.0)
    assert made.text.strip()
    assert made.usage.prompt_tokens > ai.count_tokens("My name is Ada. Hello Ada. Say my name.")


def test_a_prefix_that_was_prewarmed_is_taken_from_the_cache(ai: Client) -> None:
    prefix = "The rules of the library: " + " ".join(f"Shelf {n} holds books about {n * 7} things." for n in range(20))
    ai.prewarm(prefix)
    made = ai.generate(f"{prefix}\n\nWhat does shelf 3 hold?", max_tokens=4, temperature=0.0)
    assert made.usage.cached_tokens >= 0.7 * ai.count_tokens(prefix)


def test_tasks_on_one_document_read_it_once(ai: Client) -> None:
    document = " ".join(f"{ARTICLE} This was reported in number {number}." for number in range(5))
    tokens = ai.count_tokens(document)
    read = ai.summarise(document).usage
    assert read.cached_tokens < 0.5 * tokens
    ai.generate("Something else.", max_tokens=4)  # the document is no longer what the cache held last
    form: Any = {"anyOf": [{"type": "integer"}, {"type": "boolean"}], "description": "Was it costly?"}
    for usage in (ai.analyse(document, form).usage, ai.generate(f"{document}\n\nWho said so?", max_tokens=4).usage):
        assert usage.cached_tokens >= 0.8 * tokens


def test_a_fact_in_a_long_text_is_found_with_its_place(ai: Client) -> None:
    fact = "The ferry from Oskarin to Teld costs exactly 17 crowns and 40 pence."
    text = "\n\n".join([f"{ARTICLE} This was number {n}." if n != 150 else fact for n in range(200)])
    form: Any = {
        "type": "object",
        "properties": {
            "fare": {"type": ["string", "null"], "description": "How much does the ferry from Oskarin to Teld cost?"},
            "cook": {"type": ["string", "null"], "description": "Who is the cook of the submarine Gull?"},
        },
    }
    found = ai.analyse(text, form)
    assert found.output == {"fare": "17 crowns and 40 pence", "cook": None}
    (proof,) = found.evidence
    assert proof.path == "/fare"
    assert text[proof.start : proof.end] == proof.text == "17 crowns and 40 pence"
    assert text.index(fact) < proof.start < text.index(fact) + len(fact)


def test_ingredients_are_read_line_by_line(ai: Client) -> None:
    form: Any = {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {name: {"type": "string"} for name in ("quantity", "unit", "food")},
        },
    }
    text = "1 can corn\n1/2 cup milk\nsalt\n2 teaspoons paprika"
    found = ai.analyse(text, form)
    assert any(item.items() >= {"quantity": "1/2", "unit": "cup"}.items() for item in found.output)
    assert all(text[proof.start : proof.end] == proof.text for proof in found.evidence)
    assert {proof.path.split("/")[1] for proof in found.evidence} == {str(n) for n in range(len(found.output))}
