"""Adapters with llama.cpp, on a model of random weights in F32: what they change is what their numbers say."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ondevice_sdk.backends.api import (
    GREEDY,
    Batch,
    Capability,
    Engine,
    Generate,
    LoadOptions,
    LocalAdapter,
    LocalModel,
    Score,
    Scored,
)
from ondevice_sdk.backends.llama_cpp import LlamaCppBackend
from ondevice_sdk.backends.llama_cpp.runner import LlamaCppRunner
from ondevice_sdk.catalogue import lora
from ondevice_sdk.engine import BatchedEngine
from ondevice_sdk.errors import ConfigurationError, LoadFailed, ModelCorrupt, ModelUnsupported, OnDeviceError
from ondevice_sdk.testing import answer, drain

from ..engine.support import generated, raw
from ..fuzzing.tiny_model import Gguf
from .lora_files import Change, adapter, random_changes, tiny_base, write

ALPHA = 3.0
TOKENS = [5, 80, 3, 200, 41, 7, 7, 119]
OPTIONS = LoadOptions(context_tokens=128, max_sequences=4, threads=1, batch_tokens=64, kv_type="f32")


def load(path: Path, *adapters: Path) -> LlamaCppRunner:
    named = tuple(LocalAdapter(each.stem, str(each), f"digest of {each.stem}") for each in adapters)
    model = LocalModel("tiny", "other", "gguf", str(path), "")
    runner = LlamaCppBackend().load(model, dataclasses.replace(OPTIONS, adapters=named))
    assert isinstance(runner, LlamaCppRunner)
    return runner


def logits(runner: LlamaCppRunner, name: str | None = None, sequence: int = 0) -> NDArray[np.float32]:
    """Of all positions of the same tokens."""
    runner.kv_remove(sequence, 0, None)
    batch = Batch(adapter="" if name is None else runner.adapter_digest(name))
    for position, token in enumerate(TOKENS):
        batch.add(sequence, position, token, True)
    return runner.forward(batch).copy()


def merged(content: Gguf, changes: dict[str, Change], scale: float) -> Gguf:
    """The model with the changes in its own matrices."""
    made = content.copy()
    for tensor in made.tensors:
        if tensor.name in changes:
            a, b = changes[tensor.name]
            values = np.frombuffer(tensor.data, "<f4").reshape(tensor.sizes[1], tensor.sizes[0])
            tensor.data = (values + scale * (b.astype(float) @ a.astype(float))).astype("<f4").tobytes()
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, and adapters of all its matrices."""
    folder = tmp_path_factory.mktemp("adapters")
    base = write(folder / "base.gguf", tiny_base())
    for seed, name in enumerate(("one", "two", "three")):
        changes = random_changes(base, size=0.8, seed=seed)
        write(folder / f"{name}.gguf", adapter(changes, alpha=ALPHA))
        write(folder / f"merged-{name}.gguf", merged(tiny_base(), changes, ALPHA / 4))
    nothing = {name: (a, np.zeros_like(b)) for name, (a, b) in random_changes(base).items()}
    write(folder / "nothing.gguf", adapter(nothing, alpha=ALPHA))
    return folder


@pytest.fixture(scope="module")
def runner(folder: Path) -> Iterator[LlamaCppRunner]:
    names = ("one", "two", "three", "nothing")
    runner = load(folder / "base.gguf", *(folder / f"{name}.gguf" for name in names))
    yield runner
    runner.close()


@pytest.fixture
def engine(folder: Path) -> Iterator[Engine]:
    engine = BatchedEngine(load(folder / "base.gguf", *(folder / f"{name}.gguf" for name in ("one", "two", "three"))))
    yield engine
    engine.close()


@pytest.mark.parametrize("name", ["one", "two", "three"])
def test_an_adapter_is_what_merging_it_gives(folder: Path, runner: LlamaCppRunner, name: str) -> None:
    by_hand = load(folder / f"merged-{name}.gguf")
    try:
        expected = logits(by_hand)
    finally:
        by_hand.close()
    plain = logits(runner)
    for sequence in (0, runner.isolated_sequence):
        found = logits(runner, name, sequence)
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
        assert np.abs(plain - expected).max() > 0.01 * np.abs(expected).max(), "it changes much more than rounding does"


def test_one_that_adds_nothing_changes_no_bit(runner: LlamaCppRunner) -> None:
    for sequence in (0, runner.isolated_sequence):
        assert np.array_equal(logits(runner, "nothing", sequence), logits(runner, None, sequence))


def test_adapters_come_and_go_without_a_trace(runner: LlamaCppRunner) -> None:
    lane = runner.isolated_sequence
    first = {name: logits(runner, name, lane) for name in (None, "one", "two")}
    for name in ("two", None, "one", "one", "two", None):
        assert np.array_equal(logits(runner, name, lane), first[name])


def test_numbers_of_16_bits(folder: Path, tmp_path: Path) -> None:
    changes = random_changes(folder / "base.gguf")
    content = adapter(changes)
    for tensor in content.tensors:
        tensor.kind, tensor.data = lora.F16, np.frombuffer(tensor.data, "<f4").astype("<f2").tobytes()
    content.lay_out()
    rounded = {name: (a.astype(np.float16), b.astype(np.float16)) for name, (a, b) in changes.items()}
    by_hand = load(write(tmp_path / "merged.gguf", merged(tiny_base(), rounded, 1.0)))
    runner = load(folder / "base.gguf", write(tmp_path / "half.gguf", content))
    try:
        expected, found = logits(by_hand), logits(runner, "half")
    finally:
        by_hand.close()
        runner.close()
    # llama.cpp rounds the other factor to 16 bits too
    assert np.abs(found - expected).max() <= 3e-3 * np.abs(expected).max()


# --- what is refused, with the model still there ----------------------------------------------------------------------


def not_finite(content: Gguf) -> None:
    values = np.frombuffer(content.tensors[1].data, "<f4").copy()
    values[7] = np.nan
    content.tensors[1].data = values.tobytes()


def foreign(content: Gguf) -> None:
    content.pairs[1].value = content.pairs[1].value.replace(b"llama", b"gemma")


def elsewhere(content: Gguf) -> None:
    for tensor in content.tensors:
        tensor.name = tensor.name.replace("blk.1.", "blk.7.")


@pytest.mark.parametrize(
    ("damage", "kind"), [(not_finite, ModelCorrupt), (foreign, ModelUnsupported), (elsewhere, ModelUnsupported)]
)
def test_a_bad_adapter_is_an_error_of_its_own_requests(
    folder: Path, tmp_path: Path, damage: Callable[[Gguf], None], kind: type[OnDeviceError]
) -> None:
    content = adapter(random_changes(folder / "base.gguf"))
    damage(content)
    runner = load(folder / "base.gguf", write(tmp_path / "bad.gguf", content), folder / "one.gguf")
    try:
        with pytest.raises(kind, match="bad"):
            runner.adapter_digest("bad")
        assert runner.adapter_digest("one") == "digest of one"
        assert np.isfinite(logits(runner, "one")).all()
    finally:
        runner.close()


def test_one_that_is_gone(folder: Path, tmp_path: Path) -> None:
    runner = load(folder / "base.gguf", tmp_path / "gone.gguf")
    try:
        with pytest.raises(LoadFailed):
            runner.adapter_digest("gone")
        with pytest.raises(ConfigurationError):
            runner.adapter_digest("one")
    finally:
        runner.close()
    with pytest.raises(ConfigurationError):
        runner.adapter_digest("one")


def test_an_adapter_is_no_model(folder: Path) -> None:
    with pytest.raises(ModelUnsupported, match="adapter"):
        load(folder / "one.gguf")


# --- many requests ----------------------------------------------------------------------------------------------------

PROMPT = "a prompt that is longer than the grid, so that a part of it could be taken from the cache: hello hello "


def written(name: str | None, *, prompt: str = PROMPT, deterministic: bool = True) -> Generate:
    return Generate(raw(prompt), 10, GREEDY, ignore_eos=True, stream=True, deterministic=deterministic, adapter=name)


def test_each_of_many_is_what_it_is_alone(engine: Engine) -> None:
    assert Capability.ADAPTER in engine.capabilities
    names = (None, "one", "two", "three", "one", None)
    alone = {name: generated(drain(engine, {"a": written(name)})["a"]).text for name in names}
    assert len(set(alone.values())) == 4
    engine.forget()
    events = drain(engine, {str(number): written(name) for number, name in enumerate(names)})
    assert [generated(events[str(number)]).text for number in range(len(names))] == [alone[name] for name in names]


def test_streams_with_different_adapters_all_flow(engine: Engine) -> None:
    names = (None, "one", "two", "three")
    for name in names:
        engine.add_request(str(name), written(name, prompt=f"{name}", deterministic=False))
    steps: list[set[str]] = []
    while engine.busy:
        steps.append({event.request_id for event in engine.step(64) if event.kind == "text_delta"})
    assert sum(seen == set(map(str, names)) for seen in steps) >= 5, "most steps bring a part of each"


def test_a_prefix_is_of_one_adapter(engine: Engine) -> None:
    def cached(name: str | None, *, deterministic: bool) -> int:
        events = drain(engine, {"a": written(name, deterministic=deterministic)})["a"]
        return generated(events).usage.cached_tokens

    for deterministic in (False, True):
        assert [cached(name, deterministic=deterministic) for name in (None, "one", "two")] == [0, 0, 0]
        if not deterministic:
            assert min(cached(name, deterministic=False) for name in (None, "one", "two")) >= 64
        engine.forget()


def test_scores_are_those_of_the_adapter(folder: Path, engine: Engine) -> None:
    by_hand = BatchedEngine(load(folder / "merged-two.gguf"))
    try:
        expected = answer(by_hand, Score(raw("hello"), (" the", " and then")))
    finally:
        by_hand.close()
    found = answer(engine, Score(raw("hello"), (" the", " and then"), adapter="two"))
    plain = answer(engine, Score(raw("hello"), (" the", " and then")))
    assert isinstance(expected, Scored)
    assert isinstance(found, Scored)
    assert isinstance(plain, Scored)
    assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-3)
    assert found.logprobs != pytest.approx(plain.logprobs, abs=1e-2)


@pytest.mark.slow
def test_a_closed_model_leaves_nothing_of_its_adapters(folder: Path, tmp_path: Path) -> None:
    """Each load reads 2 MB of adapters; thirty that were kept would be seen."""
    base = folder / "base.gguf"
    large = write(tmp_path / "large.gguf", adapter(random_changes(base, rank=512)))

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    def once() -> None:
        runner = load(base, large)
        logits(runner, "large")
        runner.close()
        runner.close()

    for _ in range(5):
        once()
    before = resident()
    for _ in range(30):
        once()
    assert resident() - before < 15 * large.stat().st_size
