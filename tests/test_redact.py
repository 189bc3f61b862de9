"""`redact` through the clients and the command line, on a model that knows no names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from ondevice_sdk import AsyncClient, Client, ConfigurationError, Progress, Redaction

TEXT = "write to bo@example.com or call +44 20 7946 0958; then bo@example.com again"
EXPECTED = "write to [EMAIL_1] or call [PHONE_1]; then [EMAIL_1] again"


def test_client(echo_path: Path) -> None:
    seen: list[Progress] = []
    with Client(echo_path, privacy="off", isolation="thread") as ai:
        redaction = ai.redact(TEXT)
        assert isinstance(redaction, Redaction)
        assert redaction.text == EXPECTED
        assert redaction.restore() == TEXT
        assert redaction.receipt is not None
        assert ai.redact(TEXT, kinds=["phone"]).text.startswith("write to bo@")
        ai.redact("We saw Anna Meier in Leeds.", on_progress=seen.append)
        assert "judging names" in {progress.stage for progress in seen}
        with pytest.raises(ConfigurationError):
            ai.redact(TEXT, kinds=["names"])


def test_async_client(echo_path: Path) -> None:
    async def run() -> str:
        async with AsyncClient(echo_path, privacy="off", isolation="thread") as ai:
            return (await ai.redact(TEXT)).text

    assert anyio.run(run) == EXPECTED


@pytest.mark.slow
def test_command(echo_path: Path, tmp_path: Path) -> None:
    def ondevice(*words: str) -> str:
        line = [sys.executable, "-W", "error", "-m", "ondevice_sdk", "redact", "-", "--model", str(echo_path), *words]
        env = {**os.environ, "ONDEVICE_HOME": str(tmp_path)}
        return subprocess.run(line, input=TEXT, env=env, capture_output=True, text=True, check=True).stdout

    assert ondevice().strip() == EXPECTED
    assert ondevice("--kinds", "email").strip().endswith("0958; then [EMAIL_1] again")
    shown = json.loads(ondevice("--json"))
    assert shown["text"] == EXPECTED
    assert [(one["placeholder"], one["original"]) for one in shown["replacements"]] == [
        ("[EMAIL_1]", "bo@example.com"),
        ("[PHONE_1]", "+44 20 7946 0958"),
    ]
