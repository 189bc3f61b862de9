"""What the engine does with adapters, whatever a runner makes of them: who shares a pass, and who a prefix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ondevice_sdk.backends.api import GREEDY, Batch, Capability, Engine, Failed, Generate, ModelRunner, Score
from ondevice_sdk.engine import BatchedEngine
from ondevice_sdk.engine.disk import DiskPrefixes
from ondevice_sdk.engine.parts import Demand, parts_for
from ondevice_sdk.engine.sequence import Sequence
from ondevice_sdk.engine.turns import by_adapter
from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.privacy.vault import CallerKey, EncryptedCache
from ondevice_sdk.testing import drain

from .support import echo_runner, generated, raw

NAMES = {"one": "1" * 64, "two": "2" * 64, "same as two": "2" * 64}
TEXT = "what is read by several requests. " * 9


def with_adapters(runner: ModelRunner, passes: list[Batch]) -> ModelRunner:
    """The same runner, which knows some adapters and tells the passes that it runs."""
    plain: Any = type(runner)

    class Adapted(plain):  # type: ignore[misc]
        special_capabilities = frozenset({Capability.ADAPTER})

        def adapter_digest(self, name: str) -> str:
            if name not in NAMES:
                raise ConfigurationError("there is none")
            return NAMES[name]

        def forward(self, batch: Batch) -> NDArray[np.float32]:
            passes.append(batch)
            made: NDArray[np.float32] = super().forward(batch)
            return made

    runner.__class__ = Adapted
    return runner


@pytest.fixture
def passes() -> list[Batch]:
    return []


@pytest.fixture
def engine(tmp_path: Path, passes: list[Batch]) -> Engine:
    return BatchedEngine(with_adapters(echo_runner(tmp_path, context=4096), passes))


def asked(name: str | None, text: str = TEXT, **change: Any) -> Generate:
    return Generate(raw(text), 3, GREEDY, adapter=name, **change)


def cached(engine: Engine, name: str | None, text: str = TEXT, **change: Any) -> int:
    return generated(drain(engine, {"a": asked(name, text, **change)})["a"]).usage.cached_tokens


def test_a_pass_has_one_adapter(engine: Engine, passes: list[Batch]) -> None:
    names = (None, "one", "two", "same as two")
    drain(engine, {str(name): asked(name, f"{name}") for name in names})
    rows = {batch.adapter: set[int]() for batch in passes}
    for batch in passes:
        rows[batch.adapter] |= set(batch.sequences)
    assert rows.keys() == {"", *NAMES.values()}
    assert sorted(map(len, rows.values())) == [1, 1, 2], "one file under two names is one adapter"
    assert len(set.union(*rows.values())) == 4


def test_a_name_that_is_not_there(engine: Engine) -> None:
    for request in (asked("three"), Score(raw("a"), ("b",), adapter="three")):
        (event,) = drain(engine, {"a": request})["a"]
        assert isinstance(event, Failed)
        assert event.error.code == "configuration_error"


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_prefix_is_of_one_adapter(engine: Engine, deterministic: bool) -> None:
    for name in (None, "one", "two"):
        assert cached(engine, name, deterministic=deterministic) == 0
    for name in ("one", "same as two", None, "two", "one"):
        assert cached(engine, name, deterministic=deterministic) >= 256


def test_a_remembered_state_is_of_one_adapter(engine: Engine) -> None:
    """Other requests run meanwhile, for which idle slots give up their cells."""
    for name in ("one", "two"):
        cached(engine, name)
    drain(engine, {str(number): asked(None, f"{number} " * 200) for number in range(8)})
    assert cached(engine, None) == 0
    assert min(cached(engine, name) for name in ("one", "two")) >= 256
    assert cached(engine, None) >= 256


@pytest.fixture
def restarted(tmp_path: Path) -> Iterator[Callable[[], Engine]]:
    """Engines that share a cache on the disk, one after another."""
    made: list[Engine] = []

    def make() -> Engine:
        for each in made:
            each.close()
        key = CallerKey(bytes(range(32))).scoped("prefix-state", "ab" * 32)
        cache = EncryptedCache(tmp_path / "cache", key, max_bytes=1 << 24, durable=False)
        runner = with_adapters(echo_runner(tmp_path, context=4096), [])
        made.append(BatchedEngine(runner, disk=DiskPrefixes(cache, "1", limit_bytes=1 << 24)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_stored_state_is_of_one_adapter(restarted: Callable[[], Engine]) -> None:
    cached(restarted(), "one")
    engine = restarted()
    assert cached(engine, None) == 0
    assert cached(engine, "two") == 0
    assert cached(engine, "one") >= 256
    engine = restarted()
    assert min(cached(engine, name) for name in (None, "one", "same as two")) >= 256


def test_nobody_waits_for_a_prompt_with_another_adapter(engine: Engine) -> None:
    engine.add_request("first", asked("one"))
    engine.step(16)
    for name in ("one", "two"):
        engine.add_request(name, asked(name))
    engine.step(16)
    events = drain(engine)
    assert generated(events["one"]).usage.cached_tokens >= 256, "it has waited"
    assert generated(events["two"]).usage.cached_tokens == 0


def test_every_adapter_has_its_turn() -> None:
    class Running:
        def __init__(self, adapter: str) -> None:
            self.adapter = adapter

    running: Any = [Running(adapter) for adapter in "abcab"]
    turns = [["".join(each.adapter for each in group) for group in by_adapter(running, turn)] for turn in range(4)]
    assert turns == [["aa", "bb", "c"], ["c", "aa", "bb"], ["bb", "c", "aa"], ["aa", "bb", "c"]]
    nobody: list[Sequence] = []
    assert by_adapter(nobody, 3) == []


def test_long_prompts_with_different_adapters_are_read_in_turns(engine: Engine, passes: list[Batch]) -> None:
    drain(engine, {name: asked(name, f"{name} " * 200) for name in ("one", "two")}, token_budget=64)
    readers = [batch.adapter for batch in passes if len(batch) > 1]
    changes = sum(before != after for before, after in pairwise(readers))
    assert changes >= 8, "neither waits for the end of the other"


def test_the_same_prompt_with_different_adapters_is_held_as_often() -> None:
    one = [Demand([1] * 400, 500)] * 8
    assert parts_for(one, cells=8192, most=8, present=1) == 1
    different = [Demand([1] * 400, 500, adapter=str(number)) for number in range(8)]
    assert parts_for(different, cells=8192, most=8, present=1) == 8
