"""What holds for every device, catalogue and need."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from random import Random
from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice_sdk.catalogue import ModelSpec
from ondevice_sdk.selection import Need, record, replay, select, usable_memory
from ondevice_sdk.types import DeviceProfile, Prefer, Selection, TaskName

from .support import GB, MB, device, estimate, offer, spec

OFFERS = [offer(), offer("broken", usable=False, reason="not here")]
INSTALLED = frozenset({("m0", "int4"), ("m1", "int8")})

devices = st.builds(
    device,
    available=st.integers(0, 16 * GB),
    bandwidth=st.none() | st.floats(1e9, 2e11),
    cores=st.integers(1, 16),
)
needs = st.builds(
    Need,
    task=st.none() | st.sampled_from(get_args(TaskName)),
    tokens=st.none() | st.integers(0, 50_000),
    prefer=st.sampled_from(get_args(Prefer)),
    context=st.none() | st.integers(1, 40_000),
    model=st.none() | st.sampled_from(["m0", "m1", "none"]),
)


@st.composite
def catalogues(draw: st.DrawFn) -> list[ModelSpec]:
    count = draw(st.integers(0, 4))
    made = [
        spec(
            f"m{index}",
            draw(st.integers(10 * MB, 8 * GB)),
            draw(st.floats(0, 1)),
            context=draw(st.sampled_from([1024, 8192, 131_072])),
            chat=draw(st.booleans()),
        )
        for index in range(count)
    ]
    return [replace(each, embeds=draw(st.booleans())) for each in made]


def accepted(selection: Selection) -> set[tuple[str, str, str]]:
    return {(each.name, each.variant, each.backend) for each in selection.candidates if each.rank is not None}


@settings(max_examples=150, deadline=None)
@given(devices, catalogues(), needs)
def test_every_candidate_is_ranked_or_rejected(machine: DeviceProfile, specs: list[ModelSpec], need: Need) -> None:
    selection = select(machine, specs, OFFERS, INSTALLED, need)
    assert all((each.rank is None) != (each.rejected is None) for each in selection.candidates)
    assert all(each.rejected for each in selection.candidates if each.rank is None)
    ranks = [each.rank for each in selection.candidates if each.rank is not None]
    assert ranks == list(range(1, len(ranks) + 1))
    assert all(each.rank is not None for each in selection.candidates[: len(ranks)])  # the ranked come first
    assert selection.chosen == (selection.candidates[0] if ranks else None)
    fitting = [each for each in specs if each.embeds == (need.task == "embed")]
    wanted = fitting if need.model is None else [each for each in specs if each.name == need.model]
    assert len(selection.candidates) == len(wanted) * 2 * len(OFFERS)
    assert selection.reason
    for each in selection.candidates:
        assert each.rank is None or each.memory_bytes <= usable_memory(machine)
        assert each.rank is None or each.name in {spec.name for spec in fitting}
        assert each.installed == ((each.name, each.variant) in INSTALLED)
        assert all(0 < value < math.inf for value in (each.ttft_s, each.prefill_tokens_per_s))
        writes = not next(spec.embeds for spec in specs if spec.name == each.name)
        assert 0 < each.decode_tokens_per_s < math.inf if writes else each.decode_tokens_per_s == 0


@settings(max_examples=150, deadline=None)
@given(devices, catalogues(), needs, st.integers(0, 16 * GB), st.floats(1e9, 2e11))
def test_a_poorer_device_never_gains_candidates(
    machine: DeviceProfile, specs: list[ModelSpec], need: Need, available: int, bandwidth: float
) -> None:
    richer = select(machine, specs, OFFERS, INSTALLED, need)
    poorer = device(
        available=min(available, machine.memory_available_bytes),
        bandwidth=min(bandwidth, machine.cpu_bandwidth),
        cores=1,
    )
    assert accepted(select(poorer, specs, OFFERS, INSTALLED, need)) <= accepted(richer)


@settings(max_examples=100, deadline=None)
@given(devices, catalogues(), needs, st.randoms(use_true_random=False))
def test_the_order_of_the_inputs_does_not_matter(
    machine: DeviceProfile, specs: list[ModelSpec], need: Need, random: Random
) -> None:
    shuffled, offers = list(specs), list(OFFERS)
    random.shuffle(shuffled)
    random.shuffle(offers)
    first, second = (select(machine, s, o, INSTALLED, need) for s, o in ((specs, OFFERS), (shuffled, offers)))
    assert first == second


@settings(max_examples=100, deadline=None)
@given(devices, catalogues(), needs)
def test_leaving_a_model_out_keeps_the_order_of_the_others(
    machine: DeviceProfile, specs: list[ModelSpec], need: Need
) -> None:
    everything = select(machine, specs, OFFERS, INSTALLED, need)
    fewer = select(machine, specs[1:], OFFERS, INSTALLED, need)
    gone = specs[0].name if specs else ""

    def order(selection: Selection) -> list[tuple[str, str]]:
        return [(each.name, each.variant) for each in selection.candidates if each.name != gone and each.rank]

    assert order(everything) == order(fewer)


@settings(max_examples=100, deadline=None)
@given(devices, catalogues(), needs)
def test_a_choice_can_be_made_again_from_its_record(machine: DeviceProfile, specs: list[ModelSpec], need: Need) -> None:
    made = select(machine, specs, OFFERS, INSTALLED, need)
    text = json.dumps(record(machine, specs, OFFERS, INSTALLED, need))
    assert replay(json.loads(text), {"llama_cpp": estimate, "broken": estimate}) == made
