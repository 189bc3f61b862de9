"""A model in several precisions beside each other. Nothing here asserts a speed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from ondevice_sdk import ConfigurationError, ModelNotInstalled, NoModelFits, Progress, Unsupported
from ondevice_sdk.backends.api import LoadOptions
from ondevice_sdk.backends.llama_cpp import LlamaCppBackend
from ondevice_sdk.bench import (
    Comparison,
    Conditions,
    Figure,
    LeftOut,
    Row,
    Sizes,
    comparison,
    comparison_to_html,
    find,
)
from ondevice_sdk.bench.comparison import COLUMNS, compare
from ondevice_sdk.bench.filled import filling
from ondevice_sdk.bench.memory import peak_bytes, shared_bytes
from ondevice_sdk.bench.precisions import Family, check_precisions, family
from ondevice_sdk.bench.published import beside
from ondevice_sdk.bench.report import against
from ondevice_sdk.catalogue import gguf
from ondevice_sdk.cli import bench as command
from ondevice_sdk.cli import comparison as table
from ondevice_sdk.device import detect
from ondevice_sdk.selection.memory import LEAST_MARGIN
from ondevice_sdk.store import Store
from ondevice_sdk.types import DeviceProfile
from tests.bench.support import SHAPE, SIZES, TINY
from tests.bench.test_report import HOSTILE, Page

DEVICE = DeviceProfile("linux", "x86_64", "A processor", ("avx2",), 2, 2, 8_000_000_000, 4_000_000_000, 2e10)


def row(precision: str, file: float, memory: tuple[float, ...], first: Row | None = None) -> Row:
    samples = {
        "file_bytes": (file,),
        "peak_memory_bytes": memory,
        "decode_tokens_per_s": tuple(1e9 / m for m in memory),
    }
    figures = {name: Figure.of(name, values, ()) for name, values in samples.items()}
    ratios = {name: comparison._ratio(figures, first.figures, name) for name in samples} if first else {}
    return Row(
        "bf16" if precision == "bf16" else "int4", "BF16", "made", "Q4_1", precision != "bf16", random=True,
        backend="llama_cpp", sha256="ab" * 32, context_tokens=4096, threads=2, figures=figures,
        ratios={name: ratio for name, ratio in ratios.items() if ratio is not None}, notes=(HOSTILE,),
    )  # fmt: skip


def example() -> Comparison:
    first = row("bf16", 2e9, (4e9, 5e9, 6e9))
    return Comparison(
        date="2026-01-02T03:04:05+00:00", command="ondevice bench --compare bf16,int4", sdk_version="0.1",
        library_versions={"python": "3.11"}, device=DEVICE, conditions=Conditions(), sizes=Sizes(), pairs=3,
        seconds=12.5, model=HOSTILE, parameters=1_000_000_000, filled=False,
        rows=(first, row("int4", 5e8, (2e9, 2e9, 2e9), first)), left_out=(LeftOut("f32", "too large"),),
        published=beside(1_000_000_000), warnings=("noisy",),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "at least two"),
        (["bf16"], "at least two"),
        (["bf16", "int3"], "int3"),
        (["bf16", "int4", "bf16"], "twice"),
        ("bf16,int4", "list"),
        (["bf16", ""], "''"),
    ],
)
def test_words_that_are_no_comparison(words: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        check_precisions(words)
    assert "bf16,int8,int4" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("compare", "models", "measure", "message"),
    [
        (None, None, None, "goes with --compare"),
        ("bf16,int4", ["a", "b"], None, "not a list"),
        ("bf16,int4", None, "prompt", "own measures"),
    ],
)
def test_options_that_do_not_go_together(
    compare: str | None, models: list[str] | None, measure: str | None, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        command._precisions(compare, models, measure)
    assert caught.value.hint
    assert command._precisions("bf16, int4", [], None) == ["bf16", "int4"]


def test_the_published_ratios_are_those_that_meta_states() -> None:
    for parameters, stated in (
        (1_999_999_999, {"SpinQuant": ("-54.1 %", "-39.7 %", 4.3, 2.6), "QLoRA": ("-52.2 %", "-29.2 %", 4.2, 2.4)}),
        (2_000_000_000, {"SpinQuant": ("-60.3 %", "-49.8 %", 4.2, 2.6), "QLoRA": ("-58.7 %", "-45.3 %", 4.2, 2.4)}),
    ):
        reference, *others = beside(parameters)
        assert (reference.method, dict(reference.ratios)) == ("BF16", {})
        for each in others:
            file, memory, _, prompt, decode = (each.ratios[name] for name in COLUMNS)
            said = (against(file, "bytes"), against(memory, "bytes"), round(prompt, 1), round(decode, 1))
            assert said == stated[each.method]
            assert "another machine" in each.where


def test_ratios_are_taken_round_by_round() -> None:
    _, int4 = example().rows
    assert int4.ratios["file_bytes"].value == 0.25
    memory = int4.ratios["peak_memory_bytes"]
    assert (memory.value, memory.low, memory.high) == (2 / 5, 2 / 6, 2 / 4)
    lacking = replace(example().rows[0], figures={})
    assert comparison._ratio(int4.figures, lacking.figures, "peak_memory_bytes") is None


def test_the_page_is_whole_and_keeps_what_is_from_elsewhere_apart() -> None:
    text = comparison_to_html(example())
    page = Page(text)
    assert page.links == []
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert "http" not in text
    words = " ".join(page.words)
    for expected in (HOSTILE, "f32 was left out: too large", "-75.0 %", "requantised", "Random weights", "noisy"):
        assert expected in words
    here, elsewhere = words.index("On this machine"), words.index("Elsewhere")
    assert here < elsewhere < words.index("2358 MB") < words.index("another machine")
    assert page.tags.count("svg") == 6  # one ratio here, two from elsewhere, three figures
    Page(comparison_to_html(replace(example(), rows=example().rows[:1], published=(), filled=True)))


def test_the_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    table.show(example())
    printed = capsys.readouterr()
    assert "f32 was left out: too large" in printed.err
    assert printed.out.index("-75.0 %") < printed.out.index("another machine") < printed.out.index("-54.1 %")
    for expected in ("bf16 (BF16)", "2.50x", "2.00 to 3.00", "not measured", "requantised", "random weights"):
        assert expected in printed.out


def test_a_prompt_that_fills_the_context() -> None:
    sizes = filling(8192, Sizes())
    assert sizes.prompt_tokens == sizes.decode_prompt_tokens == sizes.first_token_prompt_tokens
    assert sizes.prompt_tokens + sizes.decode_tokens == 8192
    assert sizes.answer_tokens <= sizes.decode_tokens
    with pytest.raises(ConfigurationError, match="no room"):
        filling(64, Sizes())


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_file_pages_that_processes_share_are_counted_once() -> None:
    sleeping = [subprocess.Popen(["sleep", "60"]) for _ in range(3)]
    try:
        pids = [each.pid for each in sleeping]
        for pid in pids:
            while b"libc" not in Path(f"/proc/{pid}/maps").read_bytes():  # until it runs
                pass
        two, three = shared_bytes(pids[:2]), shared_bytes(pids)
        assert 0 < two < min(map(peak_bytes, pids))
        assert two < three <= 3 * two
        assert shared_bytes(pids[:1]) == 0
    finally:
        for each in sleeping:
            each.kill()
            each.wait()
    assert shared_bytes(pids) == 0  # they are gone


def tiny(store: Store, quantisation: str) -> str:
    (made,) = find([f"random:tiny:{quantisation}"], store=store, specs=[TINY])
    return made.model


def of(model: str | None, store: Store) -> Family:
    return family(model, store=store, device=DEVICE, conditions=Conditions(), specs=[TINY])


def test_what_is_here_counts_and_the_rest_is_made_of_the_most_exact(store: Store) -> None:
    for quantisation, variant in (("Q4_0", "int4-plain"), ("Q4_1", "int4"), ("F16", "f16")):
        store.add(tiny(store, quantisation), name="mine", variant=variant)
    found = of("mine", store)
    assert {precision: model.variant for precision, model in found.here.items()} == {"int4": "int4", "f16": "f16"}
    assert found.source is not None
    assert found.source.variant == "f16"
    one = of("mine:int4", store)  # others are made of this one, whatever else is here
    assert set(one.here) == {"int4"}
    assert one.source == one.here["int4"]
    assert one.bytes_at_least("int4") == one.source.size()
    assert one.bytes_at_least("bf16") == pytest.approx(2 * sum(t.values for t in gguf.read_tensors(one.source.path)))
    file = of(tiny(store, "Q8_0"), store)
    assert (file.label, set(file.here), file.origin) == ("tiny-test-model-Q8_0.gguf", {"int8"}, "file")


def test_random_weights_need_no_file(store: Store) -> None:
    found = of("random:tiny", store)
    assert (found.label, found.origin, found.here, found.source) == ("random:tiny", "random", {}, None)
    assert found.bytes_at_least("f32") > 2 * found.bytes_at_least("int8") > 2 * found.bytes_at_least("int4")
    assert not store.root.exists()
    with pytest.raises(NoModelFits, match="weights alone need"):
        comparison._require_memory(5_000_000_000, DEVICE)


def test_models_that_cannot_be_compared(store: Store, echo_path: Path) -> None:
    for word, error in (
        ("random:tiny:Q4_0", ConfigurationError),
        ("random:nonsense", ConfigurationError),
        ("smollm2-135m-instruct", ModelNotInstalled),
        ("smollm2-135m-instruct:int8", ModelNotInstalled),
        ("no-such-model", ConfigurationError),
        (None, ModelNotInstalled),
        (str(echo_path), Unsupported),
        ("/no/such/file.gguf", ModelNotInstalled),
    ):
        with pytest.raises(error) as caught:
            of(word, store)
        assert isinstance(caught.value, Unsupported) or caught.value.hint or caught.value.message


@pytest.mark.slow
def test_missing_precisions_are_made_measured_and_removed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "4000")
    seen: list[Progress] = []
    model = tiny(store, "BF16")
    made = compare(["bf16", "int4"], model=model, pairs=2, sizes=SIZES, store=store, on_progress=seen.append)
    assert [(each.precision, each.quantisation, each.origin) for each in made.rows] == [
        ("bf16", "BF16", "file"), ("int4", "Q4_0", "made"),
    ]  # fmt: skip
    assert [each.made_from for each in made.rows] == [None, "BF16"]
    assert not any(each.requantised for each in made.rows)
    for each in made.rows:
        assert set(COLUMNS) <= set(each.figures)
        assert all(min(each.figures[name].samples) > 0 for name in COLUMNS)
        assert all(len(each.figures[name].samples) == 2 for name in COLUMNS[1:])
        together, app, worker = (each.figures[f"peak_{what}_bytes"].samples for what in ("memory", "app", "worker"))
        assert all(max(a, w) < t <= a + w for t, a, w in zip(together, app, worker, strict=True))
    assert [set(each.ratios) for each in made.rows] == [set(), set(COLUMNS)]
    assert made.rows[1].ratios["file_bytes"].high < 0.5
    assert (made.filled, made.published[0].model) == (False, "Llama 3.2 1B")
    assert {"write int4 (Q4_0)", "cold int4"} <= {event.stage for event in seen}
    assert list((store.root / "tmp").iterdir()) == []
    assert [path.name for path in (store.root / "random").iterdir()] == [Path(model).name]


@pytest.mark.slow
def test_a_full_context_and_what_has_no_room(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is one on which int8 has just enough memory, and f32 has not."""
    monkeypatch.setenv("GOMP_SPINCOUNT", "4000")
    model, context = tiny(store, "Q4_0"), 256
    sizes = [Path(tiny(store, quantisation)).stat().st_size for quantisation in ("Q8_0", "F32")]
    most, least = (LlamaCppBackend().estimate(SHAPE, size, LoadOptions(context, 1)).total for size in reversed(sizes))
    device = replace(detect(), memory_available_bytes=(most + least) // 2 + LEAST_MARGIN)

    def small(_: Conditions) -> DeviceProfile:
        return device

    monkeypatch.setattr(comparison, "device_seen", small)
    conditions = Conditions(context_tokens=context)
    go: Callable[..., Comparison] = compare
    made = go(
        ["f32", "int8", "int4"], model=model, pairs=1, sizes=SIZES, conditions=conditions, store=store,
    )  # fmt: skip
    assert [each.precision for each in made.left_out] == ["f32"]
    assert [each.precision for each in made.rows] == ["int8", "int4"]
    assert (made.rows[0].requantised, made.rows[0].made_from, made.rows[1].origin) == (True, "Q4_0", "file")
    assert made.filled
    assert made.sizes.prompt_tokens + made.sizes.decode_tokens == context
    assert all(set(COLUMNS) <= set(each.figures) and each.context_tokens == context for each in made.rows)
    assert set(made.rows[1].ratios) == set(COLUMNS)
    device = replace(device, memory_available_bytes=50_000_000)
    with pytest.raises(NoModelFits):
        go(["int8", "int4"], model=model, pairs=1, sizes=SIZES, conditions=conditions, store=store)
    assert list((store.root / "tmp").iterdir()) == []
    assert len(list((store.root / "stamps").iterdir())) == 1  # of the source: nothing is known of what was made


@pytest.mark.slow
def test_ctrl_c_removes_what_was_made(tmp_path: Path) -> None:
    home = tmp_path / "home"
    store = Store.open(home)
    words = ("--compare", "bf16,int4", "--model", tiny(store, "Q4_0"), "--json")
    environment = {**os.environ, "ONDEVICE_HOME": str(home), "GOMP_SPINCOUNT": "4000"}
    line = [sys.executable, "-W", "error", "-m", "ondevice_sdk", "bench", *words]
    with subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        made = home / "tmp"
        while not list(made.glob("*/bf16/*.gguf")):
            assert process.poll() is None
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, b"")
    assert b"Traceback" not in error
    assert not [child for child in started if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert list(made.iterdir()) == []


def test_the_comparison_is_json() -> None:
    from pydantic_core import to_jsonable_python

    plain = json.loads(json.dumps(to_jsonable_python(example())))
    assert plain["rows"][1]["ratios"]["file_bytes"] == {"value": 0.25, "low": 0.25, "high": 0.25}
    assert plain["rows"][1]["figures"]["peak_memory_bytes"]["samples"] == [2e9, 2e9, 2e9]
    assert plain["published"][1]["method"] == "SpinQuant"
    assert plain["left_out"] == [{"precision": "f32", "reason": "too large"}]
