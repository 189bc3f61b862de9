"""Every measure end to end. Nothing here asserts a speed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from ondevice_sdk import ConfigurationError, InputTooLong, ModelNotInstalled, Progress
from ondevice_sdk.bench import Conditions, MeasureName, Subject, SubjectResult, find, measure, run
from ondevice_sdk.bench.conditions import MEASURES
from ondevice_sdk.bench.library import BareLibrary
from ondevice_sdk.bench.process import Child
from ondevice_sdk.errors import GenerationFailed
from ondevice_sdk.store import Store
from tests.bench.support import SIZES, TINY

QUICK: tuple[MeasureName, ...] = ("prompt", "decode", "first_token", "batched")
LOADED_FIGURES = {
    "prompt_tokens_per_s", "decode_tokens_per_s", "decode_in_model_share", "first_token_warm_s", "first_token_cached_s",
    "batched_1_tokens_per_s", "batched_3_tokens_per_s",
}  # fmt: skip
SERVED_FIGURES = {
    "documents_per_minute", "streamed_tokens_per_s", "sampled_tokens_per_s", "schema_tokens_per_s",
}  # fmt: skip
COLD_FIGURES = {
    "first_token_cold_s", "app_import_s", "choose_s", "seal_s", "worker_start_s", "load_s", "first_prompt_s",
    "peak_memory_bytes", "peak_worker_bytes", "peak_app_bytes",
}  # fmt: skip
COMPARED = SERVED_FIGURES | {
    "prompt_tokens_per_s", "decode_tokens_per_s", "read_bandwidth_share", "first_token_warm_s",
    "batched_1_tokens_per_s", "batched_3_tokens_per_s", "first_token_cold_s", "peak_memory_bytes",
}  # fmt: skip


@pytest.fixture(autouse=True)
def bounded_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bare library's threads spin while they wait, which on a busy machine takes minutes."""
    monkeypatch.setenv("GOMP_SPINCOUNT", "4000")


def check(result: SubjectResult, pairs: int) -> None:
    for name, figure in result.figures.items():
        assert len(figure.samples) == pairs, name
        assert all(math.isfinite(value) and value > 0 for value in figure.samples), name
        assert figure.median.low <= figure.median.value <= figure.median.high


@pytest.mark.slow
def test_the_loaded_measures_on_the_echo_backend(echo_path: Path, store: Store) -> None:
    seen: list[Progress] = []
    result = measure(str(echo_path), measures=QUICK, pairs=2, sizes=SIZES, store=store, on_progress=seen.append)
    assert set(result.figures) == LOADED_FIGURES
    check(result, 2)
    assert result.backend == "echo"
    assert "no bare library" in result.notes[0]
    assert {event.stage.split()[0] for event in seen} == set(QUICK)
    assert all(event.total is not None and event.done < event.total for event in seen)


@pytest.mark.slow
def test_documents_and_cold_on_the_echo_backend_side_by_side(echo_path: Path, tmp_path: Path, store: Store) -> None:
    other = tmp_path / "other.echo"
    other.write_bytes(echo_path.read_bytes())
    report = run([str(echo_path), str(other)], measures=("documents", "cold"), pairs=1, sizes=SIZES, store=store)
    assert [subject.label for subject in report.subjects] == ["model.echo", "other.echo"]
    for result in report.subjects:
        assert set(result.figures) == {"documents_per_minute", *COLD_FIGURES}
        check(result, 1)
        figures = {name: figure.median.value for name, figure in result.figures.items()}
        parts = ("choose_s", "worker_start_s", "load_s", "first_prompt_s")
        assert sum(figures[part] for part in parts) == pytest.approx(figures["first_token_cold_s"])
        assert figures["peak_memory_bytes"] <= figures["peak_worker_bytes"] + figures["peak_app_bytes"]
        assert figures["peak_app_bytes"] > 10_000_000  # two Python processes were really looked at
        assert figures["peak_worker_bytes"] > 10_000_000


@pytest.mark.slow
def test_a_random_model_beside_the_bare_library(store: Store) -> None:
    (subject,) = find(["random:tiny:Q8_0"], store=store, specs=[TINY])
    result = measure(subject, pairs=1, sizes=SIZES, store=store)
    assert result.random
    assert result.quantisation == "Q8_0"
    assert set(result.figures) == LOADED_FIGURES | COLD_FIGURES | SERVED_FIGURES | {"read_bandwidth_share"}
    assert {name for name, figure in result.figures.items() if figure.ratio is not None} == COMPARED
    assert result.notes == ()
    check(result, 1)


@pytest.mark.slow
@pytest.mark.model
def test_the_real_model_beside_the_bare_library(installed_store: Store) -> None:
    result = measure(
        "smollm2-135m-instruct",
        measures=("prompt", "decode"),
        pairs=2,
        sizes=SIZES,
        conditions=Conditions(backend="llama_cpp"),  # plugins may have been measured to be faster
        store=installed_store,
    )
    assert result.quantisation == "Q4_1"
    assert not result.random
    assert result.weights_read_bytes is not None
    assert result.weights_read_bytes <= result.file_bytes
    assert result.weights_read_bytes > 0.9 * result.file_bytes
    for name in ("prompt_tokens_per_s", "decode_tokens_per_s", "read_bandwidth_share"):
        assert result.figures[name].ratio is not None
    check(result, 2)


@pytest.mark.slow
def test_the_bare_library_counts_as_ours_and_ends_with_its_block(store: Store) -> None:
    from ondevice_sdk.bench.stations import Target, loaded
    from ondevice_sdk.device import detect

    (subject,) = find(["random:tiny:Q8_0"], store=store, specs=[TINY])
    target = Target.of(subject, detect(measure=True), Conditions(), SIZES, store)
    with loaded(target) as station:
        texts = [station.prompt(tokens) for tokens in (30, 77)]
        assert station.bare is not None
        loop = station.bare.generate(texts, [30, 77], 3)
        assert loop.tokens == (30, 77) == tuple(station.session.count(texts))
        assert min(loop.prompt_s, loop.decode_s) > 0
        assert station.bare.generate(["short"], [50], 2).tokens != (50,)  # brought to 50 by repeating
        assert station.bare.generate(["short"], [50], 3, sampled=True).decode_s > 0
        first, again = station.bare.ask_again(texts[1], 77, 5)
        assert 0 < again < first
        pid = station.bare.pid
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()


def test_a_bare_library_that_cannot_load_is_an_error(echo_path: Path) -> None:
    with pytest.raises(GenerationFailed, match="not loaded"):
        BareLibrary(str(echo_path), threads=1, context_tokens=64, sequences=1)


@pytest.mark.parametrize("module", ["this", "ondevice_sdk.bench.nothing"])
def test_a_child_that_talks_nonsense_or_ends_is_an_error(module: str) -> None:
    with Child.of_module(module) as child, pytest.raises(GenerationFailed):  # the first prints a poem
        child.hear()


def test_threads_and_context_are_those_asked_for(echo_path: Path, store: Store) -> None:
    conditions = Conditions(context_tokens=512, threads=1)
    result = measure(str(echo_path), measures=("prompt",), pairs=1, sizes=SIZES, conditions=conditions, store=store)
    assert (result.context_tokens, result.threads) == (512, 1)


@pytest.mark.slow
def test_batch_sizes_without_room_are_left_out(echo_path: Path, store: Store) -> None:
    sizes = replace(SIZES, batch_sizes=(1, 3, 30))
    result = measure(str(echo_path), measures=("batched",), pairs=1, sizes=sizes, store=store)
    assert set(result.figures) == {"batched_1_tokens_per_s", "batched_3_tokens_per_s"}


@pytest.mark.slow
def test_typed_errors(echo_path: Path, store: Store) -> None:
    def go(model: str | Subject, *, pairs: int = 1, context: int | None = None, threads: int | None = None) -> None:
        conditions = Conditions(context, threads)
        measure(model, measures=("prompt",), pairs=pairs, sizes=SIZES, conditions=conditions, store=store)

    with pytest.raises(ModelNotInstalled):
        go("smollm2-135m-instruct")
    with pytest.raises(ConfigurationError):
        go("no-such-model")
    with pytest.raises(ConfigurationError, match="pairs"):
        go(str(echo_path), pairs=0)
    with pytest.raises(ConfigurationError, match="threads"):
        go(str(echo_path), threads=0)
    with pytest.raises(InputTooLong):
        go(str(echo_path), context=100)
    with pytest.raises(ConfigurationError, match="elegance"):
        run([str(echo_path)], measures=("elegance",), store=store)  # type: ignore[arg-type]
    assert MEASURES[0] == "prompt"
