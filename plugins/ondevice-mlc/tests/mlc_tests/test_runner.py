"""The runner alone: rows of any sequences in any order, sequences that share what they begin with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ondevice_mlc import MlcBackend
from ondevice_mlc.runner import MlcRunner
from ondevice_sdk.backends.api import Batch, LoadOptions, LocalModel
from ondevice_sdk.errors import ConfigurationError, GenerationFailed, ModelUnsupported

from .conftest import Made
from .tiny import TEMPLATE

pytestmark = pytest.mark.slow

OPTIONS = LoadOptions(context_tokens=256, max_sequences=4, threads=1, batch_tokens=64)
TEXT = [7 + 31 * n % 800 for n in range(200)]
NEAR = 2e-3  # logits differ by rounding, where attention is computed in other parts


@pytest.fixture(scope="module")
def model(of_upstream: LocalModel) -> LocalModel:
    """In 32 bits throughout: where activations are rounded to 8 bits, the last bits of attention may become more."""
    return of_upstream


@pytest.fixture
def runner(model: LocalModel) -> Iterator[MlcRunner]:
    loaded = MlcBackend().load(model, OPTIONS)
    yield loaded
    loaded.close()


def rows(*wanted: tuple[int, int, bool]) -> Batch:
    """Rows of the text: sequence, position, whether the logits are wanted."""
    batch = Batch()
    for sequence, position, logits in wanted:
        batch.add(sequence, position, TEXT[position], logits)
    return batch


def read(runner: MlcRunner, sequence: int, start: int, end: int) -> Any:
    """Read a part of the text in one pass; gives all logits."""
    return np.array(runner.forward(rows(*((sequence, position, True) for position in range(start, end)))))


def test_alone_in_parts_and_among_others(runner: MlcRunner) -> None:
    whole = read(runner, 0, 0, 40)
    assert whole.shape == (40, runner.vocabulary)
    assert whole.dtype == np.float32
    parts = np.concatenate([read(runner, 1, 0, 17), read(runner, 1, 17, 18), read(runner, 1, 18, 40)])
    assert np.abs(parts - whole).max() < NEAR
    mixed = rows((0, 40, True), *((2, position, position == 39) for position in range(40)), (1, 40, True))
    first, second, third = np.array(runner.forward(mixed))
    assert np.abs(first - third).max() < NEAR
    assert np.abs(second - whole[39]).max() < NEAR


def test_rows_of_sequences_in_turns(runner: MlcRunner) -> None:
    """Logits come in the order of the rows, whatever order the runtime needs."""
    whole = read(runner, 3, 0, 9)
    batch = rows(*((sequence, position, True) for position in range(9) for sequence in (1, 0, 2)))
    found = np.array(runner.forward(batch)).reshape(9, 3, -1)
    for sequence in range(3):
        assert np.abs(found[:, sequence] - whole).max() < NEAR


def test_only_the_logits_that_are_wanted(runner: MlcRunner) -> None:
    whole = read(runner, 0, 0, 8)
    assert runner.forward(rows(*((1, position, False) for position in range(7)))).shape == (0, runner.vocabulary)
    assert np.abs(runner.forward(rows((1, 7, True)))[0] - whole[7]).max() < NEAR
    both = rows((0, 8, False), (1, 8, True))
    assert runner.forward(both).shape == (1, runner.vocabulary)


@pytest.mark.parametrize("length", [1, 15, 16, 17, 32, 47])
def test_sequences_that_share_their_beginning(runner: MlcRunner, length: int) -> None:
    """At borders of pages and within them; each then goes its own way, and may be cut back into what is shared."""
    whole = read(runner, 0, 0, 48)
    runner.kv_copy(0, 1, 0, length)
    runner.kv_copy(0, 2, 0, length)
    assert np.abs(read(runner, 1, length, 48) - whole[length:]).max() < NEAR
    runner.kv_remove(0, length, None)
    assert np.abs(read(runner, 0, length, 48) - whole[length:]).max() < NEAR
    runner.kv_remove(1, max(1, length - 3), None)
    assert np.abs(read(runner, 1, max(1, length - 3), 48) - whole[max(1, length - 3) :]).max() < NEAR
    runner.kv_remove(0, 0, None)
    assert np.abs(read(runner, 2, length, 48) - whole[length:]).max() < NEAR


def test_all_of_the_cache_is_there(runner: MlcRunner) -> None:
    """Every sequence leaves its last page unfinished, and there is room nevertheless; then all of it again."""
    for _ in range(3):
        for sequence, count in enumerate((1, 65, 129, 61)):
            for start in range(0, count, 64):
                read(runner, sequence, start, min(start + 64, count))
        for sequence in range(4):
            runner.kv_remove(sequence, 0, None)


def test_the_isolated_sequence_is_exact(runner: MlcRunner) -> None:
    """The same bytes cold, and after others were there or it was cut back."""
    own = runner.isolated_sequence
    first = read(runner, own, 0, 50)
    runner.kv_remove(own, 0, None)
    read(runner, 0, 0, 33)
    runner.kv_copy(0, 1, 0, 20)
    assert np.array_equal(read(runner, own, 0, 50), first)
    runner.kv_remove(own, 16, None)
    runner.kv_remove(own, 0, None)
    assert np.array_equal(read(runner, own, 0, 50), first)


def test_positions_have_to_follow(runner: MlcRunner) -> None:
    read(runner, 0, 0, 4)
    for positions in ([5], [3], [4, 6]):
        with pytest.raises(GenerationFailed):
            runner.forward(rows(*((0, position, True) for position in positions)))
    read(runner, 0, 4, 6)
    with pytest.raises(GenerationFailed):
        runner.kv_copy(0, 1, 2, 4)
    with pytest.raises(GenerationFailed):
        runner.kv_copy(0, 1, 0, 7)
    with pytest.raises(GenerationFailed):
        runner.kv_remove(0, 1, 3)


def test_after_a_failure_others_go_on(runner: MlcRunner) -> None:
    whole = read(runner, 0, 0, 4)
    runner.kv_remove(0, 0, None)
    for start in range(0, 192, 64):
        read(runner, 1, start, start + 64)

    def fill() -> None:
        for sequence in (0, 2, 3):
            for start in range(0, 192, 64):
                read(runner, sequence, start, start + 64)

    with pytest.raises(GenerationFailed):  # there is no room for it
        fill()
    for sequence in range(4):
        runner.kv_remove(sequence, 0, None)
    assert np.abs(read(runner, 0, 0, 4) - whole).max() < NEAR


def test_closed(runner: MlcRunner) -> None:
    runner.close()
    assert [name for name, value in vars(runner).items() if type(value).__module__.startswith("tvm_ffi")] == []
    runner.close()
    runner.kv_remove(0, 0, None)
    with pytest.raises(GenerationFailed):
        read(runner, 0, 0, 2)


def test_what_the_engine_is_told(made: Made) -> None:
    runner = MlcBackend().load(made("llama", "int8"), OPTIONS)
    assert runner.chat_template == TEMPLATE
    assert runner.token_bytes(min(runner.end_tokens)) == b""
    assert runner.template_variables["eos_token"] == "<|im_end|>"
    assert (runner.cache_tokens, runner.context_tokens, runner.max_batch_tokens) == (256, 256, 64)
    assert runner.begin_token is None
    runner.close()


@pytest.mark.parametrize("change", [{"context_tokens": 0}, {"max_sequences": 0}, {"batch_tokens": 0}])
def test_wrong_options(model: LocalModel, change: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError):
        MlcBackend().load(model, replace(OPTIONS, **change))  # type: ignore[arg-type]


def test_a_processor_that_lacks_something(made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ondevice_mlc import features

    (tmp_path / "cpuinfo").write_text("flags : sse2 fpu\n")
    monkeypatch.setattr(features, "_CPUINFO", tmp_path / "cpuinfo")
    with pytest.raises(ModelUnsupported, match="processor lacks"):
        MlcBackend().load(made("llama", "int8"), OPTIONS)
