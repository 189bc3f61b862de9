"""A report as JSON and Markdown."""

from __future__ import annotations

import pytest

from ondevice_sdk.evaluate.report import Baseline, Machine, Report, Row, Skipped, cells, columns, shown
from ondevice_sdk.intervals import Interval

ROW = Row(
    set="reviews",
    family="sentiment",
    metric="accuracy",
    rows=40,
    sdk=Interval(0.8, 0.7, 0.9),
    best_naive=Baseline("ask", Interval(0.6, 0.5, 0.7)),
    worst_naive=Baseline("list", Interval(0.4, 0.3, 0.5)),
    trivial=Baseline("majority", Interval(0.5, 0.4, 0.6)),
    difference=Interval(0.2, 0.05, 0.3),
    seconds=2.5,
    note="1 of 40 calls failed",
)
REPORT = Report(
    rows=(ROW, Row("tools", "tools", "right calls", 5, note="not available: no tools")),
    skipped=(Skipped("stories", "no such file"),),
    model="tiny:int4",
    backend="llama_cpp",
    sha256="ab" * 32,
    sdk_version="0.1.0",
    machine=Machine("linux", "x86_64", "a cpu", 2),
    date="2026-01-02T03:04:05+00:00",
    command="ondevice evaluate",
    seconds=12.0,
)


def test_json_there_and_back() -> None:
    assert Report.from_json(REPORT.to_json()) == REPORT


def test_another_json_is_refused() -> None:
    with pytest.raises(ValueError, match="rows"):
        Report.from_json("{}")


def test_markdown_has_a_row_a_figure_and_says_what_is_missing() -> None:
    page = REPORT.to_markdown()
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(REPORT.rows)
    assert {line.count("|") for line in table} == {len(columns()) + 1}
    assert "0.800 [0.700, 0.900]" in table[2]
    assert "0.600 ask" in table[2]
    assert "+0.200 [+0.050, +0.300]" in table[2]
    assert "not available" in table[3]
    for word in ("tiny:int4", "ab" * 6, "0.1.0", "a cpu", "2026-01-02", "`ondevice evaluate`", "stories: skipped",
                 "1 of 40 calls failed"):  # fmt: skip
        assert word in page


def test_cells_match_columns() -> None:
    assert len(cells(ROW)) == len(columns())
    assert "↓" in cells(Row("s", "f", "error", 1, better="lower"))[2]


def test_small_figures_keep_their_digits() -> None:
    assert shown(Interval(0.00123, 0.0, 0.0456)) == "0.0012 [0.000, 0.046]"
    assert shown(Interval(-0.00123, -1, 0.0), signed=True) == "-0.0012 [-1.000, +0.000]"
