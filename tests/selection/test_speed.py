"""The predictions against what was measured with llama.cpp on two x86 cores with AVX-512 VNNI and 42 GB/s."""

from __future__ import annotations

import dataclasses

import pytest

from ondevice_sdk import catalogue
from ondevice_sdk.catalogue import Variant
from ondevice_sdk.selection import speed
from ondevice_sdk.selection.score import WEIGHTS, effective_quality, score
from ondevice_sdk.types import ModelShape

from .support import device

MEASURED_ON = dataclasses.replace(device(bandwidth=42e9, cores=2))
SMOLLM2 = catalogue.get("smollm2-135m-instruct").shape
HALF_BILLION = ModelShape(494_032_768, 24, 896, 14, 2, 64, 4864, 151_936, 32_768)


def variant(quantisation: str) -> Variant:
    return Variant("int8" if quantisation == "Q8_0" else "int4", "gguf", quantisation, 5.0, ())


@pytest.mark.parametrize(
    ("shape", "quantisation", "size", "prefill", "decode"),
    [
        (SMOLLM2, "Q8_0", 145e6, 868, 113),
        (SMOLLM2, "Q4_0", 92e6, 1100, 97),
        (SMOLLM2, "Q4_1", 98e6, 410, 136),
        (HALF_BILLION, "Q8_0", 531e6, 265, 47),
        (HALF_BILLION, "Q4_0", 352e6, 391, 61),
    ],
)
def test_predictions_come_near_the_measurements(
    shape: ModelShape, quantisation: str, size: float, prefill: float, decode: float
) -> None:
    predicted = speed.prefill_tokens_per_s(MEASURED_ON, shape, variant(quantisation), 512)
    assert predicted == pytest.approx(prefill, rel=0.35)
    predicted = speed.decode_tokens_per_s(MEASURED_ON, shape, variant(quantisation), int(size), 100)
    assert predicted == pytest.approx(decode, rel=0.45)


def test_long_prompts_and_long_contexts_are_slower() -> None:
    int8 = variant("Q8_0")
    prefill = [speed.prefill_tokens_per_s(MEASURED_ON, SMOLLM2, int8, tokens) for tokens in (100, 1000, 8000)]
    decode = [
        speed.decode_tokens_per_s(MEASURED_ON, SMOLLM2, int8, 145_000_000, tokens) for tokens in (100, 1000, 8000)
    ]
    assert prefill == sorted(prefill, reverse=True)
    assert decode == sorted(decode, reverse=True)


def test_arithmetic_bounds_decoding_on_a_processor_without_vector_instructions() -> None:
    weak = dataclasses.replace(MEASURED_ON, instruction_sets=(), usable_cores=1)
    assert speed.decode_tokens_per_s(weak, SMOLLM2, variant("Q8_0"), 145_000_000, 0) < 16


def test_weights_sum_to_one() -> None:
    for weights in WEIGHTS.values():
        assert sum(dataclasses.astuple(weights)) == pytest.approx(1.0)


def test_scores_lie_between_0_and_1() -> None:
    for prefer in WEIGHTS:
        best = score(prefer, quality=1.0, answer_seconds=0.0, memory_bytes=1, bytes_per_token=1)
        worst = score(prefer, quality=0.0, answer_seconds=1e9, memory_bytes=1e12, bytes_per_token=1e12)
        assert (best, worst) == (1.0, 0.0)


def test_int8_loses_less_than_int4() -> None:
    for spec in (each for each in catalogue.load() if not each.embeds):
        assert (
            spec.quality > effective_quality(spec, spec.variant("int8")) > effective_quality(spec, spec.variant("int4"))
        )
