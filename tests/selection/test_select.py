from __future__ import annotations

import dataclasses
import itertools
from typing import get_args

import pytest

from ondevice_sdk import catalogue
from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.selection import (
    BackendOffer,
    Need,
    Plan,
    choose_installed,
    no_model_fits,
    plan,
    select,
    usable_memory,
)
from ondevice_sdk.types import Candidate, DeviceProfile, Prefer, Selection

from .support import GB, MB, device, offer, spec

NOTHING: frozenset[tuple[str, str]] = frozenset()
SPECS = [spec for spec in catalogue.load() if not spec.embeds]
EMBEDDERS = [spec for spec in catalogue.load() if spec.embeds]
OFFERS = [offer()]


def choose(machine: DeviceProfile, need: Need | None = None) -> Selection:
    return select(machine, SPECS, OFFERS, NOTHING, need or Need())


def chosen(machine: DeviceProfile, need: Need | None = None) -> str:
    best = choose(machine, need).chosen
    assert best is not None
    return f"{best.name}:{best.variant}"


def rejection(selection: Selection, name: str, variant: str = "int4", backend: str = "llama_cpp") -> str:
    (found,) = (
        each for each in selection.candidates if (each.name, each.variant, each.backend) == (name, variant, backend)
    )
    assert found.rank is None
    assert found.rejected is not None
    return found.rejected


def test_a_512_mb_device_gets_the_smallest_model() -> None:
    machine = dataclasses.replace(device(available=450 * MB), memory_bytes=512 * MB)
    for prefer in ("quality", "balanced", "speed", "memory", "battery"):
        assert chosen(machine, Need(prefer=prefer)).startswith("smollm2-135m-instruct:")


def test_a_64_mb_device_gets_the_reasons() -> None:
    selection = choose(device(available=60 * MB))
    assert selection.chosen is None
    assert all(each.rank is None for each in selection.candidates)
    error = no_model_fits(selection)
    assert len(error.rejections) == len(selection.candidates) == 2 * len(SPECS)
    assert "MB, 20 MB can be used" in error.rejections["smollm2-135m-instruct:int4 (llama_cpp)"]
    assert "smollm2-135m-instruct:int4" in error.message
    assert "ondevice explain" in (error.hint or "")


def test_no_memory_at_all() -> None:
    assert usable_memory(device(available=0)) == 0
    assert choose(device(available=0)).chosen is None


def test_more_memory_allows_better_models() -> None:
    need = Need(prefer="quality")
    picks = [chosen(device(available=size), need).split(":")[0] for size in (450 * MB, 2 * GB, 12 * GB)]
    qualities = [catalogue.get(name).quality for name in picks]
    assert qualities == sorted(qualities)
    assert len(set(picks)) == 3


def test_quality_takes_int8_where_it_fits_and_int4_where_memory_is_tight() -> None:
    need = Need(prefer="quality", model="llama-3.2-1b-instruct")
    assert chosen(device(available=12 * GB), need) == "llama-3.2-1b-instruct:int8"
    tight = device(available=1400 * MB)
    assert chosen(tight, need) == "llama-3.2-1b-instruct:int4"
    assert rejection(choose(tight, need), "llama-3.2-1b-instruct", "int8") == "needs 1.5 GB, 1.3 GB can be used"


def test_preferences_lead_to_sensible_choices() -> None:
    def pick(prefer: Prefer) -> Candidate:
        best = choose(device(), Need(prefer=prefer)).chosen
        assert best is not None
        return best

    quality, balanced, speed, memory, battery = (pick(each) for each in get_args(Prefer))
    assert catalogue.get(quality.name).quality == max(each.quality for each in SPECS)
    assert quality.decode_tokens_per_s < balanced.decode_tokens_per_s < speed.decode_tokens_per_s
    assert memory.memory_bytes == min(each.memory_bytes for each in choose(device(), Need(prefer="memory")).candidates)
    assert battery.variant == "int4"  # fewest bytes moved per token
    assert memory.memory_bytes < balanced.memory_bytes < quality.memory_bytes


def test_on_battery_a_balance_saves_energy() -> None:
    plugged, battery = (dataclasses.replace(device(), on_battery=each) for each in (False, True))

    def moved(at: DeviceProfile, prefer: Prefer) -> float:
        best = choose(at, Need(prefer=prefer)).chosen
        assert best is not None
        return best.memory_bytes

    assert moved(battery, "balanced") <= moved(plugged, "balanced")
    weak = [spec("small", 100 * MB, 0.2), spec("large", 600 * MB, 0.62)]
    names = [select(at, weak, [offer()], frozenset(), Need()).chosen for at in (plugged, battery)]
    assert [each.name if each else None for each in names] == ["large", "small"]
    assert moved(battery, "quality") == moved(plugged, "quality")  # what was asked for by name stays


def test_a_slow_machine_is_not_offered_what_it_would_crawl_with() -> None:
    slow = device(bandwidth=4e9)
    selection = choose(slow)
    assert rejection(selection, "phi-4-mini-instruct", "int8").startswith("too slow: about 0.")
    assert selection.chosen is not None
    assert selection.chosen.decode_tokens_per_s >= 4
    assert chosen(slow, Need(prefer="quality")).startswith(
        "qwen3-4b-instruct-2507"
    )  # asked for quality, whatever it takes
    assert choose(slow, Need(model="phi-4-mini-instruct")).chosen is not None  # asked for by name


def test_unmeasured_bandwidth_is_taken_to_be_low() -> None:
    unknown, known = (choose(device(bandwidth=value)).candidates for value in (None, 40e9))
    speeds = {(each.name, each.variant): each.decode_tokens_per_s for each in known}
    assert all(each.decode_tokens_per_s < speeds[each.name, each.variant] for each in unknown)


def test_a_context_that_the_model_does_not_have() -> None:
    selection = choose(device(available=100 * GB), Need(task="generate", tokens=11_488))
    assert rejection(selection, "smollm2-135m-instruct") == "context 8192 < 12000 needed"
    assert selection.chosen is not None
    asked = choose(device(available=100 * GB), Need(context=12_000))
    assert rejection(asked, "smollm2-135m-instruct") == "context 8192 < 12000 needed"


def test_a_long_document_is_summarised_by_any_model() -> None:
    selection = choose(device(), Need(task="summarise", tokens=1_000_000, model="smollm2-135m-instruct"))
    assert selection.chosen is not None


def test_the_context_planned_is_the_largest_that_fits() -> None:
    model = spec("m", 100 * MB, 0.5)  # 24,576 bytes of cache for a token

    def context(available: int, need: Need) -> int:
        return (
            plan(device(available=available), model, model.variant("int4"), offer(), need).options.context_tokens or 0
        )

    assert context(2 * GB, Need()) == 8192
    assert context(420 * MB, Need()) == 4096
    assert context(300 * MB, Need()) == 2048
    assert context(2 * GB, Need(context=3000)) == 3000
    assert context(2 * GB, Need(prefer="memory")) == 2048
    assert context(2 * GB, Need(task="generate", tokens=5000)) == 8192
    assert context(420 * MB, Need(task="generate", tokens=2000)) == 4096
    assert context(300 * MB, Need(context=4096)) == 4096  # does not fit, and says so
    small = dataclasses.replace(model, shape=dataclasses.replace(model.shape, context_tokens=1024))
    assert plan(device(), small, small.variant("int4"), offer(), Need()).options.context_tokens == 1024


def test_a_cache_of_fewer_bits_is_the_last_resort() -> None:
    model = spec("m", 100 * MB, 0.5)
    exact = offer()
    both = dataclasses.replace(exact, kv_types=("f16", "q8_0"))

    def made(available: int, backend: BackendOffer, context: int | None = None) -> Plan:
        return plan(device(available=available), model, model.variant("int4"), backend, Need(context=context))

    assert made(2 * GB, both, 8192).options.kv_type == "f16"
    assert not made(400 * MB, exact, 8192).fits
    assert made(400 * MB, both, 8192).fits
    assert made(400 * MB, both, 8192).options.kv_type == "q8_0"
    assert made(400 * MB, both).options.kv_type == "f16"  # a shorter context comes first
    refused = made(100 * MB, both, 8192)
    assert not refused.fits
    assert refused.options.kv_type == "f16"


def test_memory_shown_is_the_memory_planned() -> None:
    machine, need = device(), Need(model="gemma-3-1b-it", variant="int8")
    best = choose(machine, need).chosen
    assert best is not None
    model = catalogue.get("gemma-3-1b-it")
    assert best.memory_bytes == plan(machine, model, model.variant("int8"), offer(), need).memory_bytes


def test_a_base_model_is_no_chat_model_unless_asked_for() -> None:
    base = spec("base", 100 * MB, 0.9, chat=False)
    assert rejection(select(device(), [base], OFFERS, NOTHING, Need()), "base") == "not a chat model"
    assert select(device(), [base], OFFERS, NOTHING, Need(model="base")).chosen is not None


def test_a_backend_that_does_not_work_is_a_reason() -> None:
    offers = [offer("broken", usable=False, reason="libgomp is missing"), offer("works")]
    selection = select(device(), [spec("m", 100 * MB, 0.5)], offers, NOTHING, Need())
    assert selection.chosen is not None
    assert selection.chosen.backend == "works"
    assert rejection(selection, "m", backend="broken") == "backend not usable: libgomp is missing"


def test_a_format_that_the_backend_does_not_read() -> None:
    selection = select(device(), [spec("m", 100 * MB, 0.5)], [offer("mlc", form="mlc")], NOTHING, Need())
    assert rejection(selection, "m", backend="mlc") == "format gguf is not among those of mlc: mlc"


def test_only_the_backends_asked_for() -> None:
    offers = [offer("one"), offer("two")]
    selection = select(device(), SPECS, offers, NOTHING, Need(backends=("two",)))
    assert {each.backend for each in selection.candidates} == {"two"}
    assert select(device(), SPECS, offers, NOTHING, Need(backends=())).candidates == ()


def test_a_named_model_is_measured_against_its_variants_only() -> None:
    selection = choose(device(), Need(model="qwen3-1.7b"))
    assert {(each.name, each.variant) for each in selection.candidates} == {
        ("qwen3-1.7b", "int4"),
        ("qwen3-1.7b", "int8"),
    }
    selection = choose(device(), Need(model="qwen3-1.7b", variant="int4"))
    assert selection.reason.startswith("qwen3-1.7b:int4 with llama_cpp is the only one that can run here: about ")


def test_nothing_to_choose_from() -> None:
    selection = choose(device(), Need(model="unheard-of", variant="int4"))
    assert selection.chosen is None
    assert selection.candidates == ()
    assert selection.reason == "There is nothing to choose from for unheard-of:int4."


def test_installed_is_noted_and_changes_nothing_else() -> None:
    installed = frozenset({("smollm2-135m-instruct", "int4")})
    with_it, without = (select(device(), SPECS, OFFERS, each, Need()) for each in (installed, NOTHING))
    assert [dataclasses.replace(each, installed=False) for each in with_it.candidates] == list(without.candidates)
    best = choose_installed(with_it)
    assert best is not None
    assert (best.name, best.variant, best.installed) == ("smollm2-135m-instruct", "int4", True)
    assert choose_installed(without) is None


def test_what_is_installed_but_cannot_run_is_not_chosen() -> None:
    installed = frozenset({("phi-4-mini-instruct", "int8")})
    assert choose_installed(select(device(available=1 * GB), SPECS, OFFERS, installed, Need())) is None


def test_equal_candidates_have_a_fixed_order() -> None:
    twins = [spec(name, 100 * MB, 0.5) for name in ("b", "a", "c")]
    offers = [offer("y"), offer("x")]
    orders = {
        tuple((each.name, each.variant, each.backend) for each in select(device(), s, o, NOTHING, Need()).candidates)
        for s in itertools.permutations(twins)
        for o in itertools.permutations(offers)
    }
    assert len(orders) == 1
    (order,) = orders
    assert [name for name, variant, backend in order if (variant, backend) == ("int4", "x")] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"prefer": "beauty"}, "prefer is one of quality"),
        ({"task": "translate"}, "task is one of summarise"),
        ({"tokens": -1}, "tokens"),
        ({"context": 0}, "context"),
    ],
)
def test_a_need_that_makes_no_sense(values: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        Need(**values)  # type: ignore[arg-type]


def test_an_offer_keeps_its_hint() -> None:
    made = BackendOffer("x", frozenset(), False, "missing", "pip install it", estimate=offer().estimate)
    assert made.hint == "pip install it"


def test_models_are_weighed_for_their_own_kind_of_work() -> None:
    def names(need: Need) -> dict[str, str | None]:
        selection = select(device(), catalogue.load(), OFFERS, NOTHING, need)
        return {each.name: each.rejected for each in selection.candidates}

    assert [*names(Need("embed"))] == [spec.name for spec in EMBEDDERS]
    assert {*names(Need()), *names(Need("summarise"))} == {spec.name for spec in SPECS}
    assert names(Need("embed"))[EMBEDDERS[0].name] is None
    assert names(Need(model=EMBEDDERS[0].name)) == {EMBEDDERS[0].name: "gives embeddings, and writes no text"}
    assert names(Need("embed", model=SPECS[0].name)) == {SPECS[0].name: "writes text, and gives no embeddings"}


def test_a_model_that_gives_embeddings_is_loaded_with_its_own_context() -> None:
    spec = EMBEDDERS[0]
    for need in (Need("embed"), Need("embed", tokens=5000), Need("embed", prefer="memory")):
        made = plan(device(), spec, spec.variants[0], OFFERS[0], need)
        assert (made.options.context_tokens, made.fits) == (256, True)
        assert made.memory_bytes < 200 * MB
