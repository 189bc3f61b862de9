"""This device measured, kept, and believed only where it can be."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from ondevice_sdk import Client, calibration, errors
from ondevice_sdk.backends.api import Calibrator
from ondevice_sdk.backends.calibration import Calibration
from ondevice_sdk.backends.llama_cpp import LlamaCppBackend
from ondevice_sdk.device import detect
from ondevice_sdk.store import Store

ENTRY = "ondevice_sdk.backends.llama_cpp:LlamaCppBackend"


def llama_cpp() -> Calibrator:
    made = LlamaCppBackend().calibrator()
    assert made is not None
    return made


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Calibration]:
    folder = tmp_path_factory.mktemp("kept") / "calibration"
    told: list[float] = []
    one = dataclasses.replace(llama_cpp(), formats=("Q4_0", "Q8_0"))
    made = calibration.measure(folder, ENTRY, one, detect(), seconds=60, on_progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    return folder, made


@pytest.mark.slow
def test_the_figures_are_possible_ones(measured: tuple[Path, Calibration]) -> None:
    _, made = measured
    assert made.library == llama_cpp().library
    assert {each.format for each in made.rates} == {"Q4_0", "Q8_0"}
    assert {each.threads for each in made.rates} == set(calibration.threads(detect()))
    for each in made.rates:
        assert 1e-13 < each.prompt_s <= each.decode_s * 2 < 1e-6
    assert made.disturbance >= 1.0


@pytest.mark.slow
def test_it_is_kept_for_this_hardware_and_library_only(measured: tuple[Path, Calibration]) -> None:
    folder, made = measured
    one = dataclasses.replace(llama_cpp(), formats=("Q4_0", "Q8_0"))
    assert calibration.kept(folder, one, detect()) == made
    assert calibration.kept(folder, dataclasses.replace(one, library="llama.cpp 99"), detect()) is None
    assert calibration.kept(folder, one, dataclasses.replace(detect(), cpu_name="another")) is None
    assert calibration.kept(folder, one, dataclasses.replace(detect(), usable_cores=99)) is None
    (file,) = folder.iterdir()
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 0}', "nan", "negative", "empty"])
def test_damaged_figures_are_measured_again(measured: tuple[Path, Calibration], damage: str, tmp_path: Path) -> None:
    folder, _ = measured
    one = dataclasses.replace(llama_cpp(), formats=("Q4_0", "Q8_0"))
    (source,) = folder.iterdir()
    value: dict[str, Any] = json.loads(source.read_text())
    if damage == "nan":
        value["calibration"]["layer_s"] = float("nan")
    elif damage == "negative":
        value["calibration"]["rates"][0]["decode_s"] = -1.0
    elif damage == "empty":
        value["calibration"]["rates"] = []
    text = json.dumps(value) if damage in ("nan", "negative", "empty") else damage
    (tmp_path / source.name).write_text(text)
    assert calibration.kept(tmp_path, one, detect()) is None


def test_a_writer_that_fails_is_a_typed_error(tmp_path: Path) -> None:
    broken = dataclasses.replace(llama_cpp(), writer="json:dumps")
    with pytest.raises(errors.LoadFailed):
        calibration.measure(tmp_path, ENTRY, broken, detect(), seconds=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_client_measures_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    short = dataclasses.replace(llama_cpp(), formats=("Q8_0",))
    monkeypatch.setattr(LlamaCppBackend, "calibrator", lambda self: short)
    with Client(store=store, privacy="off", backends=("llama_cpp",)) as ai:  # plugins may have no calibrator
        before = ai.explain()
        assert not any(candidate.calibrated for candidate in before.candidates)
        (first,) = ai.calibrate()
        assert ai.calibrate() == (first,)
        assert all(candidate.calibrated for candidate in ai.explain().candidates)
        (second,) = ai.calibrate(again=True)
        assert second != first
