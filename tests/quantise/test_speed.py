from __future__ import annotations

from pathlib import Path

import pytest

from ondevice_sdk.quantise import search, speed
from ondevice_sdk.quantise.divergence import to_load
from ondevice_sdk.quantise.speed import Round, Speeds, read_rounds
from ondevice_sdk.runtime.probe_worker import run_in_worker
from ondevice_sdk.store import Store
from ondevice_sdk.types import JsonValue

from .support import install

ROW: JsonValue = [2.0, 1.0, 3.0, 1.0, 1.0, 1.0]


def test_the_medians_of_paired_rounds() -> None:
    rounds = [Round(Speeds(2.0 * k, 1.0 * k, 3.0 * k), Speeds(1.0 * k, 1.0 * k, 1.0 * k)) for k in (1, 2, 3, 10)]
    made = search.speed_up(rounds)  # a machine that is now quick, now slow, makes no difference
    assert (made.prompt.value, made.decode.value, made.batched.value) == (2, 1, 3)
    assert made.score.value == pytest.approx(2**0.4 * 3**0.35)
    assert made.score.low == pytest.approx(made.score.high)


def test_rounds_of_a_worker() -> None:
    assert read_rounds({"rounds": [ROW] * 3}) == (Round(Speeds(2.0, 1.0, 3.0), Speeds(1.0, 1.0, 1.0)),) * 3


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"rounds": None},
        {"rounds": [ROW] * 2},
        {"rounds": [ROW] * 10},
        {"rounds": [ROW, ROW, [1.0] * 5]},
        {"rounds": [ROW, ROW, [1.0] * 5 + [0.0]]},
        {"rounds": [ROW, ROW, [1.0] * 5 + [-1.0]]},
        {"rounds": [ROW, ROW, [1.0] * 5 + [float("nan")]]},
        {"rounds": [ROW, ROW, [1.0] * 5 + [1]]},
        {"rounds": [ROW, ROW, "abc"]},
    ],
)
def test_what_is_no_answer(value: dict[str, JsonValue]) -> None:
    assert read_rounds(value) is None


def test_two_models_run_in_turns_in_a_sealed_worker(store: Store, tmp_path: Path) -> None:
    install(store, tmp_path)
    model = store.resolve("small")
    told: list[float] = []
    entry = "ondevice_sdk.backends.llama_cpp:LlamaCppBackend"
    returned = run_in_worker(
        speed.ENTRY,
        privacy="strict",
        arguments={
            "copy": to_load(entry, model),
            "source": to_load(entry, model),
            "text": search.reading(),
            "threads": 1,
            "seconds": 0.01,
        },
        read=(model.path,),
        on_progress=told.append,
    )
    assert isinstance(returned.value, dict)
    rounds = read_rounds(returned.value)
    assert rounds is not None
    assert len(rounds) == speed.LEAST_ROUNDS
    assert told
