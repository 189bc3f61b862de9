"""Labelled data: JSONL files, one object a line, read with errors that name the line and never quote it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.types import JsonValue

ENVIRONMENT: Final = "ONDEVICE_EVAL_DATA"

Rows = int | Literal["all"] | None  # the first so many; None: few enough for a quick look at all sets


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a file. What it holds is shown in no message and no `repr`."""

    file: str  # the name, for messages
    line: int
    values: Mapping[str, JsonValue] = field(repr=False)

    def string(self, name: str) -> str:
        """A text that is not empty.

        Raises:
            ConfigurationError: the field is absent, empty or something else. So do all methods here.
        """
        value = self.values.get(name)
        if not isinstance(value, str) or not value.strip():
            raise self.fault(f"the field {name!r} must be a string that is not empty")
        return value

    def optional(self, name: str) -> str | None:
        """A text, or None where there is none."""
        return self.string(name) if self.values.get(name) not in (None, "") else None

    def number(self, name: str) -> float:
        """A number."""
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fault(f"the field {name!r} must be a number")
        return value

    def strings(self, name: str) -> tuple[str, ...]:
        """One string, or a list of at least one."""
        value = self.values.get(name)
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not listed:
            raise self.fault(f"the field {name!r} must be a string or a list of strings")
        found = tuple(item for item in listed if isinstance(item, str) and item.strip())
        if len(found) < len(listed):
            raise self.fault(f"the field {name!r} must hold strings that are not empty")
        return found

    def mapping(self, name: str) -> Mapping[str, JsonValue]:
        """An object."""
        value = self.values.get(name)
        if not isinstance(value, dict):
            raise self.fault(f"the field {name!r} must be an object")
        return value

    def records(self, name: str) -> list[Record]:
        """A list of objects, which may be empty."""
        value = self.values.get(name)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.fault(f"the field {name!r} must be a list of objects")
        return [Record(self.file, self.line, item) for item in value if isinstance(item, dict)]

    def fault(self, what: str) -> ConfigurationError:
        """An error that names the line."""
        return ConfigurationError(f"{self.file}:{self.line}: {what}")


def read_records(path: Path) -> list[Record]:
    """All lines of a file; blank ones are passed over.

    Raises:
        ConfigurationError: the file cannot be read or has no rows, or a line is no JSON object.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}", hint="name a JSONL file") from error
    if lines[0].startswith(b"\xef\xbb\xbf"):
        lines[0] = lines[0][3:]
    records = [_record(path.name, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not records:
        raise ConfigurationError(f"{path.name} has no rows", hint="one JSON object a line")
    return records


def _record(file: str, number: int, line: bytes) -> Record:
    fault = "is not UTF-8 text"
    try:
        text = line.decode("utf-8")
        fault = "is not JSON"
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    else:
        fault = "is no JSON object"
    if not isinstance(value, dict):  # outside the handler: the decoder's error carries the text
        raise ConfigurationError(f"{file}:{number} {fault}", hint="one JSON object a line")
    return Record(file, number, value)


def select(
    records: Sequence[Record], rows: Rows, *, quick: int, weight: int = 1, spread: str | None = None
) -> list[Record]:
    """The first rows of a set: the same at every run.

    Args:
        records: the whole set.
        rows: how many; "all"; None for `quick`.
        quick: rows of a set in a quick look.
        weight: how many times as much work a row is as a short text: of such a set only `rows / weight` are taken.
        spread: a field; of each of its values the first row is taken, then of each the second ..., so that a few rows
            do not all come from one document.
    """
    if rows == "all":
        return list(records)
    wanted = max(1, -(-(quick if rows is None else rows) // weight))
    if spread is None:
        return list(records[:wanted])
    seen: Counter[str] = Counter()
    rounds: list[tuple[int, int]] = []
    for index, record in enumerate(records):
        value = json.dumps(record.values.get(spread), sort_keys=True)
        rounds.append((seen[value], index))
        seen[value] += 1
    return [records[index] for index in sorted(index for _, index in sorted(rounds)[:wanted])]


def data_folder(given: str | Path | None) -> Path:
    """The folder of evaluation sets: as given, else that of the environment.

    Raises:
        ConfigurationError: neither is given, or there is no such folder.
    """
    named = given or os.environ.get(ENVIRONMENT)
    if not named:
        raise ConfigurationError(
            "there is no folder of evaluation data", hint=f"give --data DIR, set {ENVIRONMENT}, or name a JSONL file"
        )
    folder = Path(named)
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is no folder", hint=f"give --data DIR, or set {ENVIRONMENT}")
    return folder
