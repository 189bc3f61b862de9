"""A client of the echo model, and small labelled files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from ondevice_sdk import Client, JsonValue


class Write(Protocol):
    """Writes a set into the test's folder."""

    def __call__(self, name: str, rows: Sequence[Mapping[str, JsonValue]]) -> Path: ...


@pytest.fixture
def echo(echo_path: Path) -> Iterator[Client]:
    """A model that answers with the prompt: what a naive prompt begins with is its answer."""
    with Client(echo_path, privacy="off", isolation="thread") as client:
        yield client


@pytest.fixture
def write(tmp_path: Path) -> Write:
    folder = tmp_path / "sets"
    folder.mkdir()

    def to_file(name: str, rows: Sequence[Mapping[str, JsonValue]]) -> Path:
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return to_file
