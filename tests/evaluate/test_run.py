"""Whole runs: a folder of sets, a file of one's own, and what a report must not hold."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ondevice_sdk import Client, JsonValue, Progress
from ondevice_sdk.errors import ConfigurationError, ModelNotInstalled, WorkerCrashed
from ondevice_sdk.evaluate import Report, evaluate, evaluate_file
from ondevice_sdk.evaluate.data import ENVIRONMENT
from ondevice_sdk.evaluate.report import model_name
from ondevice_sdk.evaluate.run import Task
from ondevice_sdk.evaluate.sets import SETS, chosen, families
from ondevice_sdk.store import Store
from tests.conftest import MODEL
from tests.evaluate.conftest import Write

SECRET = "Zebedee"
REVIEWS: list[dict[str, JsonValue]] = [
    {"text": f"positive and warm, {SECRET} loved it", "label": "positive"},
    {"text": f"negative through and through, {SECRET} left", "label": "negative"},
    {"text": f"a positive surprise for {SECRET}", "label": "positive"},
]


def test_a_folder_is_measured_and_absent_sets_are_named(echo: Client, write: Write) -> None:
    folder = write("sentiment_movie_sentences", REVIEWS).parent
    write("instr_mt_bench", [{"prompt": SECRET}])
    seen: list[Progress] = []
    report = evaluate(echo, data=folder, rows=2, command="a command", on_progress=seen.append)
    assert {row.set for row in report.rows} == {"sentiment_movie_sentences", "instr_mt_bench"}
    assert {skipped.set for skipped in report.skipped} == {each.name for each in SETS} - {
        row.set for row in report.rows
    }
    accuracy = next(row for row in report.rows if row.metric == "accuracy")
    assert accuracy.rows == 2
    assert accuracy.best_naive is not None
    assert accuracy.best_naive.figure.value == 1
    missing = next(row for row in report.rows if row.set == "instr_mt_bench")
    assert missing.sdk is None
    assert "not available" in missing.note
    assert (report.model, report.backend, report.command) == (model_name(echo.model), "echo", "a command")
    assert report.sha256 == echo.model.sha256
    assert seen[0].stage == "sentiment_movie_sentences (1 of 2)"
    assert Report.from_json(report.to_json()) == report


def test_sets_that_have_not_begun_when_the_time_is_up_are_named(echo: Client, write: Write) -> None:
    folder = write("sentiment_movie_sentences", REVIEWS).parent
    report = evaluate(echo, data=folder, rows=2, minutes=0)
    assert report.rows == ()
    reasons = {skipped.set: skipped.reason for skipped in report.skipped}
    assert reasons["sentiment_movie_sentences"] == "the time was up"


def test_no_text_of_the_data_is_in_a_report(echo: Client, write: Write) -> None:
    path = write("mine", REVIEWS)
    assert SECRET in path.read_text()
    report = evaluate_file(echo, path, "sentiment")
    for shown in (report.to_json(), report.to_markdown(), repr(report)):
        assert "sentiment-ask" in shown
        assert SECRET not in shown


def test_the_same_run_gives_the_same_figures(echo: Client, write: Write) -> None:
    path = write("mine", REVIEWS)
    first, second = (evaluate_file(echo, path, "labels") for _ in range(2))
    figures = [[(row.metric, row.sdk, row.best_naive, row.difference) for row in each.rows] for each in (first, second)]
    assert figures[0] == figures[1]


OWN: dict[Task, tuple[dict[str, JsonValue], str]] = {
    "sentiment": (REVIEWS[0], "accuracy"),
    "labels": (REVIEWS[0], "accuracy"),
    "entities": ({"text": "Ann", "entities": [{"type": "person", "start": 0, "end": 3}]}, "entity F1"),
    "extract": ({"text": "Oslo", "fields": {"city": "Oslo"}}, "field F1"),
    "summarise": ({"text": "A short report about one bridge.", "references": "a bridge"}, "ROUGE-1"),
    "schema": ({"schema": {"enum": ["yes"]}}, "valid output"),
}


@pytest.mark.parametrize("task", OWN)
def test_every_task_takes_a_file_of_ones_own(task: Task, echo: Client, write: Write) -> None:
    row, metric = OWN[task]
    labels = ("positive", "negative") if task in ("sentiment", "labels") else ()
    report = evaluate_file(echo, write("mine", [row, row]), task, labels=labels, rows=1, naive=False)
    (figure,) = [each for each in report.rows if each.metric == metric]
    assert (figure.set, figure.rows) == ("mine", 1)
    assert figure.sdk is not None


def test_fields_of_other_names(echo: Client, write: Write) -> None:
    path = write("mine", [{"body": row["text"], "verdict": row["label"]} for row in REVIEWS])
    report = evaluate_file(echo, path, "sentiment", text="body", label="verdict", naive=False)
    assert report.rows[0].rows == 3
    with pytest.raises(ConfigurationError, match=r"mine\.jsonl:1: the field 'text'"):
        evaluate_file(echo, path, "sentiment", label="verdict")


def test_wrong_options(echo: Client, write: Write, tmp_path: Path) -> None:
    folder = write("sentiment_movie_sentences", REVIEWS).parent
    with pytest.raises(ConfigurationError, match="neither a family nor a set"):
        evaluate(echo, data=folder, only=["moods"])
    with pytest.raises(ConfigurationError, match="none of the sets"):
        evaluate(echo, data=folder, only=["pii"])
    with pytest.raises(ConfigurationError, match="rows"):
        evaluate(echo, data=folder, rows=0)
    with pytest.raises(ConfigurationError, match="task must be"):
        evaluate_file(echo, folder / "sentiment_movie_sentences.jsonl", "guess")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="words"):
        evaluate_file(echo, folder / "sentiment_movie_sentences.jsonl", "summarise", words=0)


def test_a_model_that_is_not_there_is_an_error_and_no_row(write: Write, store: Store) -> None:
    path = write("mine", REVIEWS)
    with Client(MODEL, privacy="off", store=store) as client, pytest.raises(ModelNotInstalled):
        evaluate_file(client, path, "sentiment")


@pytest.mark.slow
def test_a_set_that_crashes_the_worker_is_skipped_and_the_rest_measured(tmp_path: Path, write: Write) -> None:
    model = tmp_path / "fragile.echo"
    model.write_text(json.dumps({"ondevice-echo": 1, "context_tokens": 2048, "crash_at_token": 600}))
    write("math_gsm8k", [{"question": f"{SECRET} " * 100, "answer": "4"}] * 20)
    folder = write("sentiment_movie_sentences", REVIEWS).parent
    with Client(model, privacy="guarded") as client:
        report = evaluate(client, data=folder, rows=20)
        with pytest.raises(WorkerCrashed):
            evaluate(client, data=folder, only=["math_gsm8k"])
    assert {row.set for row in report.rows} == {"sentiment_movie_sentences"}
    (crashed,) = [skipped for skipped in report.skipped if skipped.set == "math_gsm8k"]
    assert crashed.reason.startswith("worker_crashed")
    assert SECRET not in report.to_json()


def test_sets_are_chosen_by_family_and_by_name() -> None:
    assert {each.measure.family for each in chosen(("pii", "tools"))} == {"pii", "tools"}
    assert [each.name for each in chosen(("summ_scitldr",))] == ["summ_scitldr"]
    assert chosen(()) == list(SETS)
    assert len({each.name for each in SETS}) == len(SETS)
    assert {"sentiment", "topics", "intents", "entities", "pii", "summarise", "schema", "injection"} <= set(families())


@pytest.mark.model
@pytest.mark.slow
def test_the_real_model_on_a_file_of_ones_own(installed_store: Store, write: Write) -> None:
    liked = ["I loved every minute of it.", "A wonderful, warm and funny film.", "Great food and very kind people."]
    hated = ["Awful. I want my money back.", "A boring, stupid and ugly film.", "The worst meal of my life."]
    rows: list[dict[str, JsonValue]] = [{"text": text, "label": "positive"} for text in liked]
    rows += [{"text": text, "label": "negative"} for text in hated]
    with Client(MODEL, backends=("llama_cpp",), store=installed_store) as client:
        report = evaluate_file(client, write("mine", rows), "sentiment")
    accuracy = next(row for row in report.rows if row.metric == "accuracy")
    assert accuracy.sdk is not None
    assert accuracy.trivial is not None
    assert accuracy.sdk.value > accuracy.trivial.figure.value == 0.5
    assert accuracy.best_naive is not None
    assert accuracy.worst_naive is not None
    assert accuracy.best_naive.figure.value >= accuracy.worst_naive.figure.value
    assert report.model == f"{MODEL}:int4"


@pytest.mark.model
@pytest.mark.slow
def test_the_development_data_has_the_form_that_is_read(installed_store: Store) -> None:
    folder = os.environ.get(ENVIRONMENT)
    if not folder:
        pytest.skip(f"{ENVIRONMENT} is not set")
    with Client(MODEL, backends=("llama_cpp",), store=installed_store) as client:
        report = evaluate(client, data=folder, only=["topic_sib200_en", "extract_snips_slots"], rows=4)
    assert {row.set for row in report.rows} == {"topic_sib200_en", "extract_snips_slots"}
    assert all(row.sdk is not None for row in report.rows)
