"""Optimised copies in the choice: used where they fit and hold, and explained either way."""

from __future__ import annotations

import dataclasses
import json

import pytest

from ondevice_sdk.backends.api import LoadOptions
from ondevice_sdk.selection import CopyOffer, Need, record, replay, select
from ondevice_sdk.types import Candidate

from .support import MB, device, estimate, offer, spec

SPEC = spec("m", 1000 * MB, 0.5)
INSTALLED = frozenset({("m", "int4")})
OWN = SPEC.variant("int4").size(SPEC.shape)
OPTIONS = LoadOptions()
COPY = CopyOffer("m", "int4", "llama_cpp", "Q8_0", 2 * OWN, prompt=2.0, decode=1.25)


def int4(copies: list[CopyOffer], available: int = 12_000 * MB, need: Need | None = None) -> Candidate:
    made = select(device(available), [SPEC], [offer()], INSTALLED, need or Need(), copies)
    return next(each for each in made.candidates if each.variant == "int4")


def test_a_copy_is_used_with_its_memory_and_speed() -> None:
    without, with_it = int4([]), int4([COPY])
    assert (without.layout, without.notes) == (None, ())
    assert (with_it.layout, with_it.notes) == ("Q8_0", ())
    assert with_it.memory_bytes == without.memory_bytes + OWN
    assert with_it.prefill_tokens_per_s == pytest.approx(2 * without.prefill_tokens_per_s, rel=0.02)
    assert with_it.decode_tokens_per_s == pytest.approx(1.25 * without.decode_tokens_per_s, rel=0.02)
    assert without.ttft_s / 2 <= with_it.ttft_s < without.ttft_s
    made = select(device(), [SPEC], [offer()], INSTALLED, Need(variant="int4"), [COPY])
    assert made.reason.endswith(", as its optimised copy in Q8_0.")


def test_only_its_own_variant_and_backend_have_it() -> None:
    made = select(device(), [SPEC], [offer(), offer("other")], INSTALLED, Need(), [COPY])
    assert {(each.variant, each.backend) for each in made.candidates if each.layout} == {("int4", "llama_cpp")}
    assert len(made.candidates) == 4


def test_one_that_does_not_fit_is_not_used_and_the_model_is() -> None:
    room = next(each for each in range(100, 12_000, 50) if int4([], each * MB).rejected is None) + 100
    tight = int4([COPY], room * MB)
    assert tight.rejected is None
    assert tight.layout is None
    assert tight.memory_bytes == int4([], room * MB).memory_bytes
    (note,) = tight.notes
    assert "optimised copy (Q8_0) is not used: needs " in note
    assert "MB can be used" in note


def test_it_never_costs_context() -> None:
    """Between too little memory and plenty, the memory without the copy is that of the same context."""
    shape, seen = SPEC.shape, set()
    for available in range(700, 4000, 25):
        without, with_it = int4([], available * MB), int4([COPY], available * MB)
        seen.add(with_it.layout)
        extra = estimate(shape, COPY.size, OPTIONS).total - estimate(shape, OWN, OPTIONS).total
        assert with_it.memory_bytes - without.memory_bytes == (extra if with_it.layout else 0)
    assert seen == {None, "Q8_0"}


def test_who_wants_to_save_memory_gets_the_smaller() -> None:
    need = Need(prefer="memory")
    assert int4([COPY], need=need).layout is None
    assert "more" in int4([COPY], need=need).notes[0]
    assert int4([dataclasses.replace(COPY, size=OWN // 2)], need=need).layout == "Q8_0"


def test_one_from_elsewhere_is_explained_and_not_used() -> None:
    made = int4([dataclasses.replace(COPY, stale="it was measured on another processor")])
    assert made.layout is None
    assert made.notes == ("its optimised copy (Q8_0) is not used: it was measured on another processor",)


def test_the_choice_is_made_again_from_its_record() -> None:
    inputs = device(), [SPEC], [offer()], INSTALLED, Need(), [COPY]
    written = json.loads(json.dumps(record(*inputs)))
    assert replay(written, {"llama_cpp": estimate}) == select(*inputs)
    del written["copies"]  # as written before there were copies
    assert replay(written, {"llama_cpp": estimate}) == select(*inputs[:-1])
