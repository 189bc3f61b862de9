"""`ondevice evaluate` as a user types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ondevice_sdk.evaluate import Report
from ondevice_sdk.evaluate.data import ENVIRONMENT
from tests.evaluate.conftest import Write

ROWS = [{"text": "red apples", "label": "red"}, {"text": "blue skies", "label": "blue"}]


def line(*words: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "ondevice_sdk", "evaluate", *words]


def run(*words: str, code: int = 0, data: str = "") -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != ENVIRONMENT}
    if data:
        env[ENVIRONMENT] = data
    done = subprocess.run(line(*words), env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.slow
def test_a_file_of_ones_own_in_all_forms(echo_path: Path, write: Write) -> None:
    words = (str(write("mine", ROWS)), "--task", "labels", "--model", str(echo_path))
    report = Report.from_json(run(*words, "--json").stdout)
    assert report.rows[0].best_naive is not None
    assert report.rows[0].best_naive.figure.value == 1
    assert report.command.startswith("ondevice evaluate ")
    page = run(*words, "--markdown", "--no-naive").stdout
    assert "| mine | 2 | accuracy |" in page
    assert "labels-after" not in page
    table = run(*words).stdout
    assert "labels-after" in table
    assert "macro-F1" in table


@pytest.mark.slow
def test_a_folder_from_the_environment(echo_path: Path, write: Write) -> None:
    folder = write("topic_sib200_en", ROWS).parent
    done = run("--only", "topics", "--rows", "1", "--model", str(echo_path), "--json", data=str(folder))
    report = Report.from_json(done.stdout)
    assert {row.set for row in report.rows} == {"topic_sib200_en"}
    assert [skipped.set for skipped in report.skipped] == ["topic_sib200_multi"]
    assert "evaluate: topic_sib200_en (1 of 1)" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--data DIR"),
        (("--rows", "none", "--data", "."), "a number from 1"),
        (("no.jsonl",), "--task"),
        (("--task", "labels"), "needs a file"),
        (("no.jsonl", "--task", "labels"), "No such file"),
    ],
)
def test_errors_say_what_to_do(echo_path: Path, words: tuple[str, ...], message: str) -> None:
    done = run(*words, "--model", str(echo_path), code=1)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_half_printed(tmp_path: Path, write: Write) -> None:
    slow = tmp_path / "slow.echo"
    slow.write_text(json.dumps({"ondevice-echo": 1, "context_tokens": 2048, "delay_s": 0.2}))
    path = write("mine", [{**row, "text": f"{row['text']} {number}"} for row in ROWS for number in range(50)])
    process = subprocess.Popen(
        line(str(path), "--task", "labels", "--model", str(slow)), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    assert b"evaluate: mine" in process.stderr.readline()  # the first call is over, a hundred are not
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == b""
    assert time.monotonic() - started < 60
