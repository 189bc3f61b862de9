"""Predictions from a calibration: the arithmetic, with figures made up so that it can be done by hand."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from ondevice_sdk import catalogue
from ondevice_sdk.backends.calibration import Calibration, FormatRates
from ondevice_sdk.selection import Need, calibrated, record, replay, select
from ondevice_sdk.types import ModelShape

from .support import GB, device, estimate, offer, spec

SHAPE = ModelShape(1_000_000, 2, 256, 4, 2, 64, 512, 600, 4096)
MADE = Calibration(
    library="test 1",
    threads=2,
    rates=(
        FormatRates("Q8_0", 2, decode_s=2e-10, narrow_s=4e-10, prompt_s=1e-10),
        FormatRates("Q4_0", 2, decode_s=2e-10, narrow_s=2e-10, prompt_s=1.5e-10),
        FormatRates("Q8_0", 1, decode_s=8e-10, narrow_s=8e-10, prompt_s=2e-10),
    ),
    pass_s=1e-3,
    layer_s=1e-4,
    row_s=1e-9,
    vocabulary_s=1e-9,
    attention_decode_s=1e-10,
    attention_prompt_s=1e-11,
    few_rows=1.0,
    disturbance=1.0,
)


def test_a_token_costs_what_was_measured() -> None:
    work = calibrated.work(SHAPE, "Q8_0")
    layers = 2 * (256 * 256 * 2 + 256 * 128 * 2 + 3 * 256 * 512)
    assert work.layers == {"Q8_0": layers}
    assert work.output == {"Q8_0": 600 * 256}
    expected = (layers + 600 * 256) * 4e-10 + 1e-3 + 2e-4 + 600e-9 + 1e-10 * 100 * 2 * 4 * 64
    assert calibrated.decode_s(MADE, work, 100) == pytest.approx(expected)


def test_narrow_matrices_are_read_less_well() -> None:
    def read(width: int) -> float:
        shape = dataclasses.replace(SHAPE, width=width)
        made = calibrated.decode_s(
            dataclasses.replace(MADE, pass_s=0.0), calibrated.Work(shape, {"Q8_0": 10**9}, {}), 0
        )
        assert made is not None
        return made

    assert read(256) == read(512) == pytest.approx(0.4, rel=0.01)
    assert read(1024) == pytest.approx(0.3, rel=0.01)
    assert read(2048) == read(8192) == pytest.approx(0.2, rel=0.01)


def test_a_prompt_costs_arithmetic_and_each_pass_its_fixed_time() -> None:
    work = calibrated.work(SHAPE, "Q8_0")
    (layers,) = work.layers.values()
    fixed = 2 * (1e-3 + 2e-4)
    rows = 1024 * 2 * 1e-9 * (8 * 256 + 3 * 512)
    attention = 1e-11 * 1024 * 1024 / 2 * 2 * 4 * 64
    computed = layers / 2 + 256 * 128 * 2 + 256 * 256  # all of the first layer, the projections of the last
    expected = computed * 1024 * 1e-10 + 600 * 256 * 4e-10 + fixed + attention + rows
    assert calibrated.prefill_s(MADE, work, 1024) == pytest.approx(expected)


def test_several_sequences_share_the_reading_until_arithmetic_bounds_them() -> None:
    work = calibrated.work(SHAPE, "Q8_0")
    times = [calibrated.decode_s(MADE, work, 0, number) for number in (1, 2, 4, 8, 16)]
    assert all(time is not None for time in times)
    seconds = [time or 0.0 for time in times]
    assert seconds[2] < 1.2 * seconds[0]  # four rows still cost about one reading
    assert seconds[4] > 1.8 * seconds[2]  # sixteen cost four times the arithmetic, and the fixed part once
    assert all(early <= late for early, late in itertools.pairwise(seconds))


def test_passes_of_a_few_rows_cost_more_for_each() -> None:
    work = calibrated.Work(SHAPE, {"Q8_0": 10**9}, {})
    dear = dataclasses.replace(MADE, few_rows=3.0)
    cheap, dearer = calibrated.decode_s(MADE, work, 0, 32), calibrated.decode_s(dear, work, 0, 32)
    assert cheap is not None
    assert dearer is not None
    assert dearer - cheap == pytest.approx(2 * 32 * 1e9 * 1e-10)
    assert calibrated.decode_s(MADE, work, 0, 64) == calibrated.decode_s(dear, work, 0, 64)


def test_a_format_that_was_not_measured_is_taken_from_the_next_in_size() -> None:
    known, near = calibrated.work(SHAPE, "Q4_0"), calibrated.work(SHAPE, "Q4_1")
    q4_0, q4_1 = calibrated.decode_s(MADE, known, 0), calibrated.decode_s(MADE, near, 0)
    assert q4_0 is not None
    assert q4_1 is not None
    assert q4_1 > q4_0
    assert calibrated.decode_s(MADE, calibrated.work(SHAPE, "of-a-plugin"), 0) is None


def test_the_choice_follows_what_was_measured() -> None:
    """A processor that is slow with four bits gets eight."""
    model = spec("m", 400_000_000, 0.5)
    slow4 = dataclasses.replace(
        MADE,
        rates=(
            FormatRates("Q8_0", 2, 2e-11, 2e-11, 1e-12),
            FormatRates("Q4_K", 2, 8e-11, 8e-11, 8e-12),
            FormatRates("Q6_K", 2, 8e-11, 8e-11, 8e-12),
        ),
    )
    fast4 = dataclasses.replace(
        MADE,
        rates=(
            FormatRates("Q8_0", 2, 8e-11, 8e-11, 8e-12),
            FormatRates("Q4_K", 2, 2e-11, 2e-11, 1e-12),
            FormatRates("Q6_K", 2, 2e-11, 2e-11, 1e-12),
        ),
    )
    for calibration, variant in ((slow4, "int8"), (fast4, "int4")):
        offers = [dataclasses.replace(offer(), calibration=calibration)]
        need = Need(prefer="speed", model="m")
        made = select(device(available=8 * GB), [model], offers, frozenset(), need)
        assert made.chosen is not None
        assert made.chosen.variant == variant
        assert made.chosen.calibrated
        again = replay(record(device(available=8 * GB), [model], offers, frozenset(), need), {"llama_cpp": estimate})
        assert again == made


def test_every_model_of_the_catalogue_has_a_prediction() -> None:
    for each in catalogue.load():
        for variant in each.variants:
            work = calibrated.work(each.shape, variant.quantisation)
            assert (calibrated.decode_s(MADE, work, 1000) or 0) > 0
            assert (calibrated.prefill_s(MADE, work, 1000) or 0) > 0
