"""Plots as SVG text: bars with intervals, curves, and ratios around 1. Colours and fonts are the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from ondevice_sdk.bench.report import shown
from ondevice_sdk.intervals import Interval

_WIDTH: Final = 760  # units of the drawing, which is scaled to the page
_LABELS: Final = 250  # left of them lie the labels
_VALUES: Final = 160  # and right the values
_COLOURS: Final = 6
_LETTERS: Final = 36  # of a label that there is room for


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar: `series` is the number of its colour, None for that of the bare library."""

    label: str
    value: Interval
    series: int | None


@dataclass(frozen=True, slots=True)
class Curve:
    """Points (x, value) of one colour."""

    label: str
    points: Sequence[tuple[int, Interval]]
    series: int
    dashed: bool = False


def bars(rows: Sequence[Bar], unit: str) -> str:
    """Horizontal bars from zero, one below the other."""
    line, top = 24, 4
    most = max((row.value.high for row in rows), default=0.0) or 1.0
    scale = (_WIDTH - _LABELS - _VALUES) / most
    parts = []
    for number, row in enumerate(rows):
        centre = top + (number + 0.5) * line
        value, said = row.value, shown(row.value.value, unit)
        parts += [
            _text(_LABELS - 8, centre, _shortened(row.label), "end"),
            _block(_LABELS, centre, scale * value.value, line - 8, row.series),
            _whisker(_LABELS + scale * value.low, _LABELS + scale * value.high, centre),
            _text(
                _LABELS + scale * max(value.high, value.value) + 8, centre, shown(value.value, unit), "start", "value"
            ),
        ]
    said = ", ".join(f"{row.label} {shown(row.value.value, unit)}" for row in rows)
    return _svg(parts, top * 2 + line * len(rows), said)


def ratios(rows: Sequence[Bar]) -> str:
    """Points with their intervals around the line at 1, on a logarithmic scale."""
    line, top = 24, 26
    room = _WIDTH - _LABELS - _VALUES - 20
    ends = [end for row in rows for end in (row.value.low, row.value.high) if end > 0]
    far = max(1.1 * max((abs(math.log(end)) for end in ends), default=0.0), math.log(1.1))

    def x(ratio: float) -> float:
        return _LABELS + room * (math.log(max(ratio, 1e-9)) / far + 1) / 2

    height = top + line * len(rows) + 4
    parts = [_line(x(1), top - 6, x(1), height, "axis")]
    parts += [
        _text(x(ratio), 10, f"{ratio:.2f}", "middle", "small")
        for ratio in (math.exp(-far / 1.1), 1.0, math.exp(far / 1.1))
    ]
    for number, row in enumerate(rows):
        centre, value = top + (number + 0.5) * line, row.value
        said = f"{value.value:.2f}"
        if value.low < value.high:  # a single value, such as the size of a file, has no interval
            said += f" ({value.low:.2f} to {value.high:.2f})"
        parts += [
            _text(_LABELS - 8, centre, _shortened(row.label), "end"),
            _whisker(x(value.low), x(value.high), centre),
            _dot(x(value.value), centre, 5, row.series),
            _text(_WIDTH - _VALUES, centre, said, "start", "value"),
        ]
    return _svg(parts, height, ", ".join(f"{row.label} {row.value.value:.2f}" for row in rows))


def curves(lines: Sequence[Curve], x_title: str) -> str:
    """Curves over a logarithmic axis of counts; the values from zero."""
    height, left, right, top, bottom = 300, 60, 20, 14, 44
    counts = sorted({count for line in lines for count, _ in line.points})
    most = max((value.high for line in lines for _, value in line.points), default=0.0) or 1.0
    step = _step(most)
    marks = math.ceil(most / step)
    span = math.log2(counts[-1] / counts[0]) or 1.0

    def x(count: int) -> float:
        return left + (_WIDTH - left - right) * math.log2(count / counts[0]) / span

    def y(value: float) -> float:
        return height - bottom - (height - top - bottom) * value / (marks * step)

    parts = []
    for number in range(marks + 1):
        level = y(number * step)
        parts += [
            _line(left, level, _WIDTH - right, level, "rule"),
            _text(left - 8, level, f"{number * step:,.4g}", "end", "small"),
        ]
    parts += [_text(x(count), height - bottom + 16, str(count), "middle", "small") for count in counts]
    parts.append(_text((left + _WIDTH - right) / 2, height - 8, x_title, "middle", "small"))
    for line in lines:
        path = " ".join(f"{x(count):.1f},{y(value.value):.1f}" for count, value in line.points)
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        parts.append(f'<polyline class="{_colour("s", line.series)}" points="{path}"{dash}/>')
        for count, value in line.points:
            parts += [
                _line(x(count), y(value.low), x(count), y(value.high), "whisker"),
                _dot(x(count), y(value.value), 3 if line.dashed else 4, line.series),
            ]
    return _svg(parts, height, ", ".join(line.label for line in lines))


def _step(most: float) -> float:
    """A round distance of about four grid lines."""
    power = 10.0 ** math.floor(math.log10(most / 4))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= most / 4)


def _shortened(label: str) -> str:
    """Without its middle where it is too long: models of a family differ at the end."""
    return label if len(label) <= _LETTERS else f"{label[:12]}…{label[13 - _LETTERS :]}"


def _colour(kind: str, series: int | None) -> str:
    return f"{kind}-library" if series is None else f"{kind}{series % _COLOURS}"


def _block(x: float, centre: float, width: float, height: float, series: int | None) -> str:
    place = f'x="{x}" y="{centre - height / 2}" width="{width:.1f}" height="{height}"'
    return f'<rect class="{_colour("f", series)}" {place} rx="2"/>'


def _dot(x: float, y: float, radius: float, series: int | None) -> str:
    return f'<circle class="{_colour("f", series)}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>'


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _whisker(low: float, high: float, y: float) -> str:
    ends = f"M{low:.1f} {y - 4}V{y + 4}M{high:.1f} {y - 4}V{y + 4}"
    return f'<path class="whisker" d="M{low:.1f} {y}H{high:.1f}{ends}"/>'


def _text(x: float, y: float, text: str, anchor: str, style: str = "label") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" dy="0.35em" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(parts: Sequence[str], height: float, said: str) -> str:
    head = f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{escape(said)}">'
    return f"{head}{''.join(parts)}</svg>"
