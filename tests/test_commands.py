"""Commands of plugins: listed without being imported, run like the SDK's own, and broken by themselves only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ondevice_sdk.cli.app import app
from ondevice_sdk.errors import BackendUnavailable

from . import toys

POINTS = """
[ondevice_sdk.commands]
toy = toy_commands:app
broken = toy_missing:app
number = toy_commands:NUMBER
models = toy_commands:app
"""
RUN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from ondevice_sdk.cli import main; main()"


class Ondevice:
    def __init__(self, site: Path) -> None:
        self.site = site

    def __call__(self, *words: str, code: int = 0) -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", RUN, str(self.site), *words],
            env={**os.environ, "COLUMNS": "120", "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, done.stderr
        return done.stdout, done.stderr


@pytest.fixture
def ondevice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ondevice:
    toys.install(tmp_path / "site", monkeypatch, POINTS)
    return Ondevice(tmp_path / "site")


def test_a_command_of_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toys.install(tmp_path / "site", monkeypatch, POINTS)
    run = CliRunner()
    assert run.invoke(app, ["toy", "hello", "you"]).stdout == "hello you\n"
    assert isinstance(run.invoke(app, ["broken"]).exception, BackendUnavailable)
    assert "toy_missing" not in sys.modules
    assert run.invoke(app, ["nothing"]).exit_code == 2


@pytest.mark.slow
def test_a_command_of_a_plugin_as_it_is_typed(ondevice: Ondevice) -> None:
    assert ondevice("toy", "hello", "you") == ("hello you\n", "")


@pytest.mark.slow
def test_help_lists_them_and_imports_nothing(ondevice: Ondevice) -> None:
    (ondevice.site / "toy_commands.py").write_text("raise SystemExit('imported')\n")
    shown, _ = ondevice("--help")
    for name in ("toy", "broken", "number", "summarise"):
        assert any(f" {name} " in line and "Traceback" not in line for line in shown.splitlines()), name
    assert "Makes toys." in shown
    assert "Traceback" not in shown


@pytest.mark.slow
def test_a_single_command_stays_below_its_name(ondevice: Ondevice) -> None:
    shown, _ = ondevice("toy", "--help")
    assert "hello" in shown
    assert ondevice("models", "--help")[0] != shown  # the SDK's own wins
    assert "pull" in ondevice("models", "--help")[0]


@pytest.mark.slow
def test_broken_ones_are_one_message(ondevice: Ondevice) -> None:
    _, said = ondevice("broken", code=1)
    first, following, *rest = said.splitlines()
    assert first.startswith("error: the command 'broken' of ondevice-toy is broken: ")
    assert first.endswith("toy_missing:app raised ModuleNotFoundError (toy_missing)")
    assert (following.strip()[:5], rest) == ("next:", [])
    _, said = ondevice("number", "--json", code=1)
    assert json.loads(said)["error"]["reason"] == "toy_commands:NUMBER is no typer.Typer"
    assert ondevice("--version")[1] == ""


@pytest.mark.slow
def test_errors_of_the_sdk_are_one_message(ondevice: Ondevice) -> None:
    _, said = ondevice("toy", "hello", "nobody", code=1)
    assert said == "error: nobody is here\n  next: call somebody\n"
