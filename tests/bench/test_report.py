from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from typing import get_args

import pytest

from ondevice_sdk.bench import Conditions, Figure, MeasureName, Report, Sizes, SubjectResult, kind, shown, to_html
from ondevice_sdk.bench.conditions import check_measures
from ondevice_sdk.bench.machine import noise
from ondevice_sdk.bench.report import KINDS, batched_name, batched_size
from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.types import DeviceProfile

HOSTILE = '<script>alert(1)</script> & "quoted"'


def figure(name: str, *samples: float, library: tuple[float, ...] = ()) -> Figure:
    return Figure.of(name, samples, library)


def report() -> Report:
    figures = {name: figure(name, 3.0, 3.1, 2.9, library=(2.0, 2.1, 1.9)) for name in KINDS}
    figures |= {batched_name(n): figure(batched_name(n), 10.0 * n, 11.0 * n, library=(8.0, 9.0)) for n in (1, 4, 16)}
    subject = SubjectResult(
        label="model", name="model", variant="int4", quantisation="Q4_0", backend="llama_cpp", sha256="ab" * 32,
        file_bytes=1_000_000, random=False, context_tokens=4096, threads=2, weights_read_bytes=900_000, figures=figures,
        notes=("a note",),
    )  # fmt: skip
    other = replace(subject, label=HOSTILE, random=True, figures={"load_s": figure("load_s", 0.0)})
    device = DeviceProfile("linux", "x86_64", "A processor", ("avx2",), 4, 2, 8_000_000_000, 4_000_000_000, 2e10)
    return Report(
        date="2026-01-02T03:04:05+00:00",
        command="ondevice bench model",
        sdk_version="0.1",
        library_versions={"python": "3.11"},
        device=device,
        conditions=Conditions(),
        sizes=Sizes(),
        pairs=3,
        seconds=12.5,
        subjects=(subject, other),
        warnings=("noisy",),
    )


def test_a_figure_has_the_median_and_the_ratio_pair_by_pair() -> None:
    made = figure("decode_tokens_per_s", 10.0, 30.0, 20.0, library=(5.0, 10.0, 20.0))
    assert made.median.value == 20.0
    assert made.median.low == 10.0
    assert made.median.high == 30.0
    assert made.library is not None
    assert made.library.value == 10.0
    assert made.ratio is not None
    assert made.ratio.value == 2.0  # of 2, 3, 1
    other = figure("decode_tokens_per_s", 10.0, 20.0, 60.0, library=(20.0, 10.0, 30.0)).ratio  # of the medians: 1
    assert other is not None
    assert other.value == 2.0
    assert other.low == 0.5
    assert (made.unit, made.better) == ("tokens/s", "more")


def test_a_figure_without_a_counterpart_has_no_ratio() -> None:
    for library in ((), (1.0,)):
        made = figure("load_s", 1.0, 2.0, library=library)
        assert made.library is None
        assert made.ratio is None


def test_noise_is_told_of_figures_that_spread() -> None:
    quiet = figure("prompt_tokens_per_s", 100.0, 101.0, 99.0, 100.5)
    wild = figure("decode_tokens_per_s", 100.0, 10.0, 190.0, 100.0)
    indifferent = figure("decode_in_model_share", 1.0, 0.1, 1.9, 1.0)
    result = report().subjects[0]
    figures = {"prompt_tokens_per_s": quiet, "decode_tokens_per_s": wild, "decode_in_model_share": indifferent}
    (line,) = noise([replace(result, figures=figures)])
    assert "Decode" in line
    assert "model:" in line


def test_names_carry_their_units() -> None:
    endings = {"tokens/s": "_per_s", "s": "_s", "bytes": "_bytes", "share": "_share", "documents/min": "_per_minute"}
    for name, about in [*KINDS.items(), ("batched_4_tokens_per_s", kind("batched_4_tokens_per_s"))]:
        assert name.endswith(endings[about.unit])
    assert batched_size(batched_name(16)) == 16
    assert batched_size("decode_tokens_per_s") is None
    with pytest.raises(KeyError):
        kind("elegance")


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0.01234, "s", "12.3 ms"),
        (1.5, "s", "1.5 s"),
        (250.4, "tokens/s", "250"),
        (12345.6, "tokens/s", "12,346"),
        (0.876, "share", "88%"),
        (1_500_000_000, "bytes", "1.50 GB"),
        (96_000_000, "bytes", "96 MB"),
    ],
)
def test_values_for_people(value: float, unit: str, words: str) -> None:
    assert shown(value, unit) == words


def test_measures_are_checked_and_sorted() -> None:
    assert check_measures(["cold", "prompt"]) == ("prompt", "cold")
    assert check_measures(list(get_args(MeasureName))) == get_args(MeasureName)
    with pytest.raises(ConfigurationError, match="elegance"):
        check_measures(["elegance"])
    with pytest.raises(ConfigurationError):
        check_measures([])


def test_impossible_sizes_are_refused() -> None:
    for wrong in (
        {"decode_tokens": 1},
        {"batch_sizes": ()},
        {"batch_sizes": (0,)},
        {"cached_tokens": 512},
        {"documents": 0},
    ):
        with pytest.raises(ConfigurationError):
            Sizes(**wrong)


class Page(HTMLParser):
    """Checks that elements are closed in their order, and keeps what there is."""

    VOID = frozenset({"meta", "br", "rect", "circle", "line", "path", "polyline"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [
            value or "" for name, value in attrs if name in ("href", "src", "srcset", "xlink:href", "action")
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_is_whole_and_needs_nothing_else() -> None:
    text = to_html(report())
    page = Page(text)
    assert page.links == []
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert "http" not in text
    assert "url(" not in text
    assert "@import" not in text
    shown_text = " ".join(page.words)
    for expected in (
        "A processor",
        "model",
        "noisy",
        "a note",
        "ondevice bench model",
        "Against the bare library: ours / its, pair by pair",
    ):
        assert expected in shown_text
    assert HOSTILE in shown_text  # as text
    assert page.tags.count("svg") == 13  # ratios, eleven figures, the curve
    with pytest.raises(AssertionError):
        Page("<div><p></div></p>")  # the parser does notice


def test_a_page_with_hardly_anything() -> None:
    empty = replace(report(), subjects=(), warnings=())
    assert "<svg" not in to_html(empty)
    Page(to_html(empty))
    alone = replace(report(), subjects=(replace(report().subjects[0], figures={"load_s": figure("load_s", 1.0)}),))
    Page(to_html(alone))


def test_the_report_is_json() -> None:
    from pydantic_core import to_jsonable_python

    plain = json.loads(json.dumps(to_jsonable_python(report())))
    decode = plain["subjects"][0]["figures"]["decode_tokens_per_s"]
    assert decode["median"]["value"] == 3.0
    assert decode["unit"] == "tokens/s"
    assert decode["samples"] == [3.0, 3.1, 2.9]
    assert set(decode["ratio"]) == {"value", "low", "high"}
