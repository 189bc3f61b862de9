"""The choice as `ondevice explain` shows it."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from ondevice_sdk.cli import output
from ondevice_sdk.selection import Need, select

from .support import device
from .test_rivals import INSTALLED, MLC, MODEL, OTHER, OWN, WITH_MADE, speed


def shown(renderable: object) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if "int" in line]


def test_backends_stand_side_by_side_with_what_was_measured() -> None:
    measured = [speed(token=0.02), speed("other", 0.01, noise=(1.0, 1.1, 1.25, 1.0, 1.0, 1.0))]
    measured.append(speed("mlc", 0.04, variant="int4-mlc"))
    selection = select(device(), [WITH_MADE], [OWN, OTHER, MLC], INSTALLED, Need(), (), measured)
    table = output.measured_table(selection)
    assert table is not None
    text = shown(table)
    assert [row[1:3] for row in rows(text)] == [["int4", "other"], ["int4", "llama_cpp"], ["int4-mlc", "mlc"]]
    assert "100 (80 to 100)" in text
    assert "llama_cpp 1.0, 2 threads, a prompt of 500 tokens" in text
    assert "measured here" in shown(output.selection_table(selection))


def test_nothing_measured_shows_nothing() -> None:
    assert output.measured_table(select(device(), [MODEL], [OWN], INSTALLED, Need())) is None


def test_of_what_is_not_here_the_best_backend_is_shown() -> None:
    selection = select(device(), [MODEL], [OWN, OTHER], INSTALLED, Need())
    assert [row[2:4] for row in rows(shown(output.selection_table(selection)))] == [
        ["int4", "llama_cpp"],
        ["int4", "other"],
        ["int8", "llama_cpp"],
    ]


def test_the_figures_are_in_the_json(capsys: pytest.CaptureFixture[str]) -> None:
    selection = select(device(), [MODEL], [OWN, OTHER], INSTALLED, Need(), (), [speed(), speed("other", 0.01)])
    output.show_json(selection)
    printed = json.loads(capsys.readouterr().out)
    found = printed["chosen"]["measured"]
    assert printed["chosen"]["backend"] == "other"
    assert set(found) >= {"library", "threads", "rounds", "prompt_tokens"}
    assert found["decode_tokens_per_s"] == {"value": 100.0, "low": 100.0, "high": 100.0}
    assert [each["measured"] is None for each in printed["candidates"]].count(False) == 2
