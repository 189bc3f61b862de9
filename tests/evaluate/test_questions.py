"""Questions asked by a schema, from file to figure; the echo model has no opinion, so that the words alone decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from ondevice_sdk import Analysis, Client, Evidence, JsonValue
from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.evaluate import Row, evaluate
from ondevice_sdk.evaluate.data import Record
from ondevice_sdk.evaluate.measures.measure import Sample
from ondevice_sdk.evaluate.measures.needles import DEPTHS, Fact, NeedleMeasure, hidden, is_right, within
from ondevice_sdk.evaluate.measures.questions import QuestionMeasure, answer_f1, held, schema_of
from ondevice_sdk.evaluate.session import Session
from tests.evaluate.conftest import Write

BOAT = "The river boat Anselma carries cinnamon."
BELL = "The bell of Orrin weighs 812 kilograms."
FACTS: list[dict[str, JsonValue]] = [
    {"needle": BOAT, "question": "What does the river boat Anselma carry?", "answers": ["cinnamon"]},
    {"needle": BELL, "question": "How much does the bell of Orrin weigh?", "answers": ["812 kilograms", "812 kg"]},
]
BOOK = "\n\n".join(f"Nothing happened on day {day} in the town by the sea. It rained." for day in range(400))


def records(rows: Sequence[Mapping[str, JsonValue]]) -> list[Record]:
    return [Record("mine.jsonl", line, row) for line, row in enumerate(rows, 1)]


def value(row: Row) -> float:
    assert row.sdk is not None
    return row.sdk.value


def test_questions_of_one_text_are_asked_at_once(echo: Client) -> None:
    qas: list[JsonValue] = [{"question": each["question"], "answers": each["answers"]} for each in FACTS]
    rows = records([{"context": f"{BOAT} {BELL}", "qas": qas}])
    found = QuestionMeasure(questions="qas").rows(Session(echo), Sample("mine", rows, rows))
    by_name = {row.metric: row for row in found}
    assert value(by_name["answer F1"]) == value(by_name["answer held"]) == 1.0
    assert by_name["answer F1"].rows == 2
    assert by_name["answer F1"].best_naive is not None


def test_documents_may_stand_in_a_set_of_their_own(echo: Client) -> None:
    asked = records([{"doc_id": "a", "question": FACTS[0]["question"], "answers": ["cinnamon"]}])
    books = {"books": records([{"doc_id": "a", "text": f"{BOOK}\n\n{BOAT}"}])}
    measure = QuestionMeasure("doc_id", documents="books")
    found = measure.rows(Session(echo), Sample("mine", asked, asked, books))
    assert [value(row) for row in found] == [1.0, 1.0]
    assert found[0].best_naive is None  # a book fits into no prompt
    with pytest.raises(ConfigurationError, match=r"mine\.jsonl:1: books has no document"):
        measure.rows(Session(echo), Sample("mine", asked, asked, {"books": []}))


def test_needles_are_found_at_every_depth(echo: Client) -> None:
    facts, books = records(FACTS), records([{"doc_id": "a", "lang": "en", "text": BOOK}])
    sample = Sample("mine", facts, facts, {"long_docs": books})
    rows = NeedleMeasure(lengths=(1000, 4000)).rows(Session(echo), sample)
    assert {row.metric: (value(row), row.rows) for row in rows} == {
        "right and located, 1k tokens": (1.0, 2 * DEPTHS),
        "answer F1, 1k tokens": (1.0, 2 * DEPTHS),
        "right and located, 4k tokens": (1.0, 2 * DEPTHS),
        "answer F1, 4k tokens": (1.0, 2 * DEPTHS),
    }
    assert "s a document" in rows[0].note


def test_facts_stand_one_depth_further_on_in_every_turn() -> None:
    facts = [Fact(BOAT, "", ("cinnamon",)), Fact(BELL, "", ("812 kg",))]
    paragraphs = within(BOOK.split("\n\n"), 2000)
    texts = [hidden(facts, paragraphs, turn) for turn in range(DEPTHS)]
    assert all(text.replace(f"{BOAT}\n\n", "").replace(f"\n\n{BOAT}", "").count(BELL) == 1 for text in texts)
    places = [round(text.index(BOAT) / len(text) * (DEPTHS - 1)) for text in texts]
    assert places == [0, 1, 2, 3, 4]
    assert texts[0].index(BOAT) == 0
    assert texts[-1].endswith(BOAT)
    assert 2000 <= sum(len(part) + 2 for part in paragraphs) < 2200
    assert len(within(["a"], 30)) == 10


def test_right_words_from_the_wrong_place_are_wrong() -> None:
    fact = Fact(BOAT, "", ("cinnamon",))
    text = f"cinnamon\n\n{BOAT}"
    start = text.rindex("cinnamon")

    def answer(at: int, path: str = "/answer_0", said: JsonValue = "cinnamon") -> Analysis[JsonValue]:
        return Analysis({"answer_0": said}, evidence=(Evidence(at, at + 8, "cinnamon", path),))

    assert is_right(fact, 0, text, answer(start))
    assert not is_right(fact, 0, text, answer(0))
    assert not is_right(fact, 0, text, answer(start, "/answer_1"))
    assert not is_right(fact, 0, text, answer(start, said="pepper"))
    assert not is_right(fact, 0, text, answer(start, said=None))
    assert not is_right(fact, 0, text, None)


def test_figures_of_answers() -> None:
    assert answer_f1("the boathouse", ["boathouse"]) == 1.0
    assert answer_f1("a big red dog", ["red dog", "cat"]) == 0.8
    assert answer_f1("", ["dog"]) == 0.0
    assert answer_f1("東京都", ["東京"]) == 0.8
    assert held("in the boathouse by the lake", ["boathouse"]) == 1.0
    assert held("boathouses", ["boathouse"]) == 0.0
    assert held("one two three four five six seven dog", ["dog"]) == 0.0
    assert list(schema_of(["a", "b"])) == ["type", "properties", "additionalProperties"]


def test_a_set_whose_documents_are_absent_is_skipped(echo: Client, write: Write) -> None:
    folder = write("long_needles", FACTS).parent
    write("instr_mt_bench", [{"prompt": "x"}])
    report = evaluate(echo, data=folder, rows=2)
    assert "long_needles" in {skipped.set for skipped in report.skipped}
