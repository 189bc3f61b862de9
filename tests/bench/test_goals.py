"""Rows of figures beside their goals, and the commands that print them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ondevice_sdk.bench.goals import HEADER, Goal, Row, compared
from ondevice_sdk.intervals import Interval

SCRIPTS = Path(__file__).parents[2] / "scripts"
COMMANDS = (
    "bench_peers.py", "bench_prefix.py", "bench_speculation.py",
    "bench_latency.py", "bench_engine.py", "bench_start.py",
)  # fmt: skip


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict"),
    [
        (1.3, 1.25, 1.4, "reached"),
        (1.3, 1.1, 1.4, "reached, not beyond doubt"),
        (1.1, 1.0, 1.3, "missed, not beyond doubt"),
        (1.1, 1.0, 1.15, "missed"),
        (1.2, 1.2, 1.2, "reached"),
    ],
)
def test_a_goal_is_reached_by_the_figure_and_beyond_doubt_by_its_interval(
    value: float, low: float, high: float, verdict: str
) -> None:
    assert Goal(1.2).verdict(Interval(value, low, high)) == verdict
    mirrored = Goal(-1.2, at_least=False)  # less is better: the same the other way round
    assert mirrored.verdict(Interval(-value, -high, -low)) == verdict


def test_a_ratio_above_one_speaks_for_ours() -> None:
    times = compared("m", "x", [1.0, 2.0, 1.0], [2.0, 4.0, 2.0], unit="s", less_is_better=True, whom="them")
    speeds = compared("m", "x", [8.0, 4.0, 8.0], [4.0, 2.0, 4.0], unit="tokens/s")
    assert times.figure == speeds.figure == Interval(2.0, 2.0, 2.0)
    assert (times.ours, times.against, times.samples) == ("1 s", "them 2 s", 3)


def test_a_row_has_as_many_cells_as_the_header() -> None:
    rows = (
        Row("m", "x", Interval(12.0, 9.5, 61.2), 20, Goal(40)),
        Row("m", "x", Interval(0.2, 0.1, 0.31), 20, Goal(0.3, at_least=False, unit="s"), "ours", "against"),
        Row("m", "x", Interval(0.61, 0.6, 0.7), 20, unit="share"),
    )
    columns = {line.count("|") for line in HEADER.splitlines()} | {row.markdown().count("|") for row in rows}
    assert len(columns) == 1
    assert "| 12x | 9.500x to 61.2x | >= 40x | missed, not beyond doubt |" in rows[0].markdown()
    assert "<= 0.3 s | reached, not beyond doubt" in rows[1].markdown()
    assert "| 0.61 | 0.60 to 0.70 |  |  |" in rows[2].markdown()


def run(home: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ONDEVICE_HOME": str(home), "GOMP_SPINCOUNT": "4000"}
    line = [sys.executable, str(SCRIPTS / name), *words]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_wrong_argument_is_one_message(name: str, tmp_path: Path) -> None:
    for words, message in (
        (("--pairs", "0"), "'0' is no whole number"),
        (("no-such-model", "--quick"), "no-such-model"),
    ):
        done = run(tmp_path, name, *words)
        assert done.returncode != 0
        assert message in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_rows_as_json(echo_path: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "bench_latency.py", str(echo_path), "--quick", "--part", "two", "--json")
    report = json.loads(done.stdout)
    assert [row["samples"] for row in report["rows"]] == [2, 2]
    assert all(row["figure"]["low"] <= row["figure"]["value"] <= row["figure"]["high"] for row in report["rows"])


@pytest.mark.slow
def test_ctrl_c_ends_a_command_and_what_it_started(tmp_path: Path) -> None:
    import psutil

    slow = tmp_path / "slow.echo"
    slow.write_text(json.dumps({"ondevice-echo": 1, "context_tokens": 2048, "delay_s": 0.2}))
    line = [sys.executable, str(SCRIPTS / "bench_latency.py"), str(slow), "--part", "two", "--tokens", "8"]
    environment = {**os.environ, "ONDEVICE_HOME": str(tmp_path / "home")}
    process = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for told in process.stderr:
        if " two 1/20" in told:
            break
    started = psutil.Process(process.pid).children(recursive=True)
    assert len(started) == 2
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in rest
    _, alive = psutil.wait_procs(started, timeout=20)
    assert not alive
