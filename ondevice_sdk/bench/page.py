"""A report as one page of HTML that needs nothing else: no script, no font, no picture from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from ondevice_sdk.bench import plot
from ondevice_sdk.bench.report import Figure, Report, SubjectResult, batched_size, kind, shown

_SECTIONS: Final[Sequence[tuple[str, Sequence[str]]]] = (
    ("Speed", ("prompt_tokens_per_s", "decode_tokens_per_s", "documents_per_minute", "read_bandwidth_share")),
    ("Streams", ("streamed_tokens_per_s", "sampled_tokens_per_s", "schema_tokens_per_s")),
    ("Time to the first token", ("first_token_warm_s", "first_token_cached_s", "first_token_cold_s")),
    ("Memory", ("peak_memory_bytes",)),
)
_STAGES: Final = ("app_import_s", "choose_s", "seal_s", "worker_start_s", "load_s", "first_prompt_s")


@dataclass(frozen=True, slots=True)
class Card:
    """A plot with its title, and a note at its side."""

    title: str
    note: str
    svg: str


def to_html(report: Report) -> str:
    """The page. It names models by their labels and has no path of this machine but what the command line had."""
    return rendered(
        "page.html.j2",
        report=report,
        device=report.device,
        sections=[(title, plots) for title, names in _SECTIONS if (plots := _plots(report, names))],
        curve=_curve(report),
        ratios=_ratios(report),
        stages=_stages(report),
        stage_titles=[kind(name).title for name in _STAGES],
        samples=[
            (subject.label, kind(name).title, name, figure)
            for subject in report.subjects
            for name, figure in subject.figures.items()
        ],
    )


def rendered(template: str, **values: object) -> str:
    """A template of this package, filled in."""
    from jinja2 import Environment, FunctionLoader

    loader = FunctionLoader(lambda name: (files(__package__) / name).read_text(encoding="utf-8"))
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=loader)
    return environment.get_template(template).render(shown=shown, **values)


def _having(report: Report, name: str) -> list[tuple[int, SubjectResult, Figure]]:
    return [
        (at, subject, subject.figures[name]) for at, subject in enumerate(report.subjects) if name in subject.figures
    ]


def _plots(report: Report, names: Sequence[str]) -> list[Card]:
    made = []
    for name in names:
        rows = []
        for at, subject, figure in _having(report, name):
            rows.append(plot.Bar(subject.label, figure.median, at))
            if figure.library is not None:
                rows.append(plot.Bar("bare library", figure.library, None))
        if rows:
            about = kind(name)
            note = {"more": "more is better", "less": "less is better", "neither": ""}[about.better]
            unit = "" if about.unit in ("s", "bytes", "share") else f"{about.unit}, "
            made.append(Card(about.title, unit + note, plot.bars(rows, about.unit)))
    return made


def _curve(report: Report) -> str:
    lines = []
    for at, subject in enumerate(report.subjects):
        found = [(size, figure) for name, figure in subject.figures.items() if (size := batched_size(name))]
        if found:
            lines.append(plot.Curve(subject.label, [(size, figure.median) for size, figure in found], at))
            bare = [(size, figure.library) for size, figure in found if figure.library is not None]
            if bare:
                lines.append(plot.Curve(f"{subject.label}, bare library", bare, at, dashed=True))
    return plot.curves(lines, "sequences at a time") if lines else ""


def _ratios(report: Report) -> list[Card]:
    """One plot per subject that was compared."""
    made = []
    for at, subject in enumerate(report.subjects):
        rows = [
            plot.Bar(kind(name).title, figure.ratio, at)
            for name, figure in subject.figures.items()
            if figure.ratio is not None and name != "read_bandwidth_share"
        ]
        if rows:
            made.append(Card(subject.label, "speeds: above 1 is better; times, memory: below 1", plot.ratios(rows)))
    return made


def _stages(report: Report) -> list[tuple[str, list[str]]]:
    """What the cold first token consists of, per subject."""
    return [
        (
            subject.label,
            [shown(subject.figures[name].median.value, "s") if name in subject.figures else "" for name in _STAGES],
        )
        for subject in report.subjects
        if "load_s" in subject.figures
    ]
