"""`ondevice bench` as a user types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest


def command(home: Path, *words: str) -> tuple[list[str], dict[str, str]]:
    environment = {**os.environ, "ONDEVICE_HOME": str(home), "GOMP_SPINCOUNT": "4000"}
    return [sys.executable, "-W", "error", "-m", "ondevice_sdk", "bench", *words], environment


def run(home: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[bytes]:
    line, environment = command(home, *words)
    done = subprocess.run(line, env=environment, capture_output=True, timeout=240)
    assert done.returncode == code, done.stderr.decode()
    return done


@pytest.mark.slow
def test_json_table_and_page(tmp_path: Path, echo_path: Path) -> None:
    page = tmp_path / "report.html"
    words = (str(echo_path), "--quick", "--pairs", "1", "--measure", "prompt,decode", "--html", str(page))
    report = json.loads(run(tmp_path / "home", *words, "--json").stdout)
    (subject,) = report["subjects"]
    assert set(subject["figures"]) == {"prompt_tokens_per_s", "decode_tokens_per_s", "decode_in_model_share"}
    assert report["command"].startswith("ondevice bench")
    assert "<svg" in page.read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == ["model.echo", "report.html"]
    done = run(tmp_path / "home", *words[:-2])
    assert b"Decode" in done.stdout
    assert b"bench: prompt model.echo" in done.stderr


@pytest.mark.slow
def test_errors_are_one_message(tmp_path: Path, echo_path: Path) -> None:
    quick = ("--quick", "--pairs", "1", "--measure", "prompt")
    for words, message in (
        ((str(echo_path), "--measure", "elegance"), "elegance"),
        ((), "models pull"),
        (("random:nonsense:Q4_0",), "nonsense"),
        ((str(echo_path), "--pairs", "0"), "pairs"),
        ((str(echo_path), *quick, "--html", "/no/such/place.html"), "place.html"),
    ):
        done = run(tmp_path / "home", *words, code=1)
        assert message in done.stderr.decode()
        assert b"Traceback" not in done.stderr
    assert run(tmp_path / "home", "--clean").stdout == b""
    assert json.loads(run(tmp_path / "home", "--list-random", "--json").stdout) == []


@pytest.mark.slow
def test_ctrl_c_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    slow = tmp_path / "slow.echo"
    slow.write_text(json.dumps({"ondevice-echo": 1, "context_tokens": 2048, "delay_s": 0.2}))
    page = tmp_path / "report.html"
    line, environment = command(tmp_path / "home", str(slow), "--quick", "--measure", "decode", "--html", str(page))
    process = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert b"bench: decode" in process.stderr.readline()  # the first sample runs
    started = psutil.Process(process.pid).children(recursive=True)
    assert started
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert not [child for child in started if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert not page.exists()
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["slow.echo"]
