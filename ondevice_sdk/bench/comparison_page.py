"""A comparison of precisions as one page of HTML, made like that of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from ondevice_sdk.bench import plot
from ondevice_sdk.bench.comparison import COLUMNS, Comparison, Row
from ondevice_sdk.bench.page import Card, rendered
from ondevice_sdk.bench.published import Published
from ondevice_sdk.bench.report import against, between, kind, shown
from ondevice_sdk.intervals import Interval

TITLES: Final = {
    "file_bytes": "File",
    "peak_memory_bytes": "Peak memory",
    "first_token_warm_s": "First token",
    "prompt_tokens_per_s": "Prompt",
    "decode_tokens_per_s": "Decode",
}
_BETTER: Final = {"more": "more is better", "less": "less is better", "neither": ""}
_RATIOS: Final = "sizes, times: below 1 is better; speeds: above 1"


def comparison_to_html(comparison: Comparison) -> str:
    """The page. It has no path of this machine but what the command line had."""
    rows, published = comparison.rows, comparison.published
    return rendered(
        "comparison.html.j2",
        report=comparison,
        device=comparison.device,
        titles=[(TITLES[name], "" if (unit := kind(name).unit) in ("s", "bytes") else unit) for name in COLUMNS],
        lines=[(row, [_cell(row, name) for name in COLUMNS]) for row in rows],
        published=[(each, values(each)) for each in published],
        plots=[card for name in COLUMNS if (card := _plot(rows, name))],
        ratios=[
            Card(f"{row.precision} / {rows[0].precision}", _RATIOS, plot.ratios(_points(row.ratios, at)))
            for at, row in enumerate(rows)
            if row.ratios
        ],
        their_ratios=[
            Card(f"{each.model}, {each.method} / BF16", _RATIOS, plot.ratios(_points(_exactly(each), None)))
            for each in published
            if each.ratios
        ],
        about=[(row, about(row)) for row in rows],
        samples=[(row.precision, kind(name).title, name, f) for row in rows for name, f in row.figures.items()],
    )


def about(row: Row) -> str:
    """Where a row's file is from, and what else there is to know of it."""
    said = []
    if row.made_from is not None:
        said.append(f"made of {row.made_from} for this run, and removed")
    if row.requantised:
        said.append("requantised: its source had lost precision already, and it is no better than that")
    return "; ".join([*said, *row.notes])


def values(published: Published) -> list[tuple[str, str]]:
    """The cells of a published row in the order of `COLUMNS`: the figure as published, and its ratio."""
    figures = (
        f"{published.file_mb} MB",
        f"{published.memory_mb} MB",
        f"{published.first_token_s} s",
        f"{published.prompt_tokens_per_s}",
        f"{published.decode_tokens_per_s}",
    )
    return [
        (figure, against(published.ratios[name], kind(name).unit) if name in published.ratios else "")
        for name, figure in zip(COLUMNS, figures, strict=True)
    ]


def ratio_cell(row: Row, name: str) -> tuple[str, str]:
    """The ratio of a row for people, and its interval; empty where there is none."""
    ratio, unit = row.ratios.get(name), kind(name).unit
    if ratio is None:
        return "", ""
    return against(ratio.value, unit), between(ratio, unit) if name != "file_bytes" else ""


def _cell(row: Row, name: str) -> tuple[str, str, str, str]:
    """The figure, its interval, the ratio, and the ratio's interval."""
    figure = row.figures.get(name)
    if figure is None:
        return "not measured", "", "", ""
    median, unit = figure.median, figure.unit
    ends = "" if name == "file_bytes" else f"{shown(median.low, unit)} to {shown(median.high, unit)}"
    return shown(median.value, unit), ends, *ratio_cell(row, name)


def _plot(rows: Sequence[Row], name: str) -> Card | None:
    bars = [
        plot.Bar(f"{row.precision} ({row.quantisation})", row.figures[name].median, at)
        for at, row in enumerate(rows)
        if name in row.figures
    ]
    about = kind(name)
    unit = "" if about.unit in ("s", "bytes") else f"{about.unit}, "
    return Card(TITLES[name], unit + _BETTER[about.better], plot.bars(bars, about.unit)) if bars else None


def _points(ratios: Mapping[str, Interval], series: int | None) -> list[plot.Bar]:
    return [plot.Bar(TITLES[name], ratio, series) for name, ratio in ratios.items()]


def _exactly(published: Published) -> dict[str, Interval]:
    """Nothing is said of how far these scatter."""
    return {name: Interval(ratio, ratio, ratio) for name, ratio in published.ratios.items()}
