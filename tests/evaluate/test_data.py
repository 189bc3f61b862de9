"""Labelled files: what is read, and how a bad line is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.evaluate.data import ENVIRONMENT, Record, data_folder, read_records, select

SECRET = "Zebedee"


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "mine.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_blank_lines_and_a_byte_order_mark_are_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path, b'\xef\xbb\xbf{"text": "a"}\r\n\n{"text": "b\xe2\x80\xa8c"}\n')
    assert [(record.line, record.string("text")) for record in read_records(path)] == [(1, "a"), (3, "b\u2028c")]


@pytest.mark.parametrize(
    "line", [f'{{"text": "{SECRET}"', f'["{SECRET}"]', f'"{SECRET}"', "[" * 100_000, SECRET.encode() + b"\xff"]
)
def test_a_bad_line_is_named_and_not_quoted(tmp_path: Path, line: str | bytes) -> None:
    raw = line if isinstance(line, bytes) else line.encode()
    with pytest.raises(ConfigurationError, match=r"mine\.jsonl:2 ") as caught:
        read_records(write(tmp_path, b'{"text": "a"}\n' + raw + b"\n"))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert SECRET not in f"{caught.value!r} {caught.value}"


def test_an_empty_file_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no rows"):
        read_records(write(tmp_path, "\n\n"))
    with pytest.raises(ConfigurationError, match="No such file"):
        read_records(tmp_path / "none.jsonl")


@pytest.mark.parametrize("value", [None, "", "  ", 1, ["a"]])
def test_a_string_has_to_be_one(value: object) -> None:
    record = Record("mine.jsonl", 7, {"text": value, "other": SECRET})  # type: ignore[dict-item]
    with pytest.raises(ConfigurationError, match=r"mine\.jsonl:7: the field 'text'"):
        record.string("text")
    assert SECRET not in repr(record)


def test_fields_of_other_kinds() -> None:
    record = Record("f", 1, {"one": "a", "many": ["a", "b"], "none": None, "n": 2, "yes": True, "o": {"a": 1},
                             "l": [{"x": "y"}], "mixed": ["a", 1], "empty": []})  # fmt: skip
    assert record.strings("one") == ("a",)
    assert record.strings("many") == ("a", "b")
    assert record.optional("none") is None
    assert record.number("n") == 2
    assert record.mapping("o") == {"a": 1}
    assert [inner.string("x") for inner in record.records("l")] == ["y"]
    for read, name in ((record.number, "yes"), (record.strings, "mixed"), (record.strings, "empty"),
                       (record.mapping, "l"), (record.records, "o"), (record.records, "many")):  # fmt: skip
        with pytest.raises(ConfigurationError, match=name):
            read(name)


def test_selection_is_the_first_rows_and_fewer_of_long_texts() -> None:
    records = [Record("f", line, {}) for line in range(1, 101)]
    assert select(records, None, quick=40) == records[:40]
    assert select(records, 10, quick=40, weight=4) == records[:3]
    assert select(records, 1, quick=40, weight=20) == records[:1]
    assert select(records, 500, quick=40) == records
    assert select(records, "all", quick=40, weight=20) == records


def test_a_few_rows_do_not_all_come_from_one_document() -> None:
    records = [Record("f", line, {"from": source}) for line, source in enumerate("aaabbc", 1)]
    taken = [select(records, rows, quick=40, spread="from") for rows in (1, 3, 5, "all")]
    assert [[record.line for record in each] for each in taken] == [[1], [1, 4, 6], [1, 2, 4, 5, 6], [1, 2, 3, 4, 5, 6]]


def test_the_folder_is_given_or_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    with pytest.raises(ConfigurationError) as caught:
        data_folder(None)
    assert caught.value.hint is not None
    assert "--data DIR" in caught.value.hint
    assert ENVIRONMENT in caught.value.hint
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    assert data_folder(None) == tmp_path
    with pytest.raises(ConfigurationError, match="no folder"):
        data_folder(tmp_path / "none")
