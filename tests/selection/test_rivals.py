"""Backends that compete for one model: figures decide, guesses and noise do not."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice_sdk.backends.api import Footprint, LoadOptions
from ondevice_sdk.backends.measured import ModelSpeed, Round
from ondevice_sdk.catalogue import Artifact, ModelSpec, Variant
from ondevice_sdk.selection import BackendOffer, CopyOffer, Need, choose_installed, record, replay, select
from ondevice_sdk.selection import speed as speeds
from ondevice_sdk.selection.score import effective_quality
from ondevice_sdk.types import Candidate, ModelShape, Prefer, Selection

from .support import MB, device, estimate, offer, spec
from .test_calibrated import MADE as CALIBRATION

OWN = dataclasses.replace(offer(), built_in=True)
OTHER = offer("other")
MLC = offer("mlc", form="mlc")
MODEL = spec("m", 500 * MB, 0.5)
MADE = Variant("int4-mlc", "mlc", "", 0.0, (Artifact("installed", 310 * MB),))
WITH_MADE = dataclasses.replace(MODEL, variants=(*MODEL.variants, MADE))
INSTALLED = frozenset({("m", "int4"), ("m", "int4-mlc")})
STEADY = (1.0,) * 6


def speed(
    backend: str = "llama_cpp",
    token: float = 0.02,
    first: float = 1.0,
    *,
    noise: tuple[float, ...] = STEADY,
    session: str = "one",
    variant: str = "int4",
) -> ModelSpeed:
    rounds = tuple(Round(first * factor, token * factor) for factor in noise)
    return ModelSpeed("m", variant, backend, f"{backend} 1.0", 2, session, 500, 40, rounds)


def choose(
    measured: list[ModelSpeed],
    offers: list[BackendOffer] | None = None,
    prefer: Prefer = "balanced",
    model: ModelSpec = MODEL,
    **need: Any,
) -> Selection:
    wanted = Need(prefer=prefer, **{"variant": "int4", **need})
    return select(device(), [model], offers or [OWN, OTHER], INSTALLED, wanted, (), measured)


def best(selection: Selection) -> str:
    assert selection.chosen is not None
    return selection.chosen.backend


def of(selection: Selection, backend: str) -> Candidate:
    (found,) = (each for each in selection.candidates if each.backend == backend)
    return found


@pytest.mark.parametrize("prefer", ["quality", "balanced", "speed"])
def test_the_faster_backend_is_chosen_whichever_it_is(prefer: Prefer) -> None:
    assert best(choose([speed(token=0.02), speed("other", 0.01)], prefer=prefer)) == "other"
    assert best(choose([speed(token=0.01), speed("other", 0.02)], prefer=prefer)) == "llama_cpp"


def test_the_whole_answer_counts_prompt_and_tokens() -> None:
    slow_reader = speed("other", token=0.019, first=5.0)
    assert best(choose([speed(token=0.02, first=1.0), slow_reader])) == "llama_cpp"
    assert best(choose([speed(token=0.02, first=1.0), slow_reader], tokens=10)) == "other"  # next to nothing to read


def test_candidates_say_that_they_were_measured() -> None:
    selection = choose([speed(token=0.02), speed("other", 0.01)])
    found = of(selection, "other")
    assert found.calibrated
    assert found.notes == ("measured here",)
    assert found.measured is not None
    assert found.measured.decode_tokens_per_s.value == pytest.approx(100)
    assert found.measured.prefill_tokens_per_s.value == pytest.approx(500)
    assert (found.measured.rounds, found.measured.library) == (6, "other 1.0")
    assert "Measured beside it: 4" in selection.reason  # 50 tokens/s at the start, fewer after a prompt
    assert "with llama_cpp (int4)" in selection.reason


def test_a_guess_never_beats_a_measurement() -> None:
    """The other backend is guessed to be many times as fast as the built-in one was measured to be."""
    selection = choose([speed(token=0.2)])
    guessed = of(selection, "other")
    assert not guessed.calibrated
    assert guessed.decode_tokens_per_s > 3 * of(selection, "llama_cpp").decode_tokens_per_s
    assert best(selection) == "llama_cpp"
    assert guessed.notes == ("not measured: comes after llama_cpp",)
    assert guessed.rank == 2


def test_nor_one_that_was_predicted_from_measurements() -> None:
    slow = dataclasses.replace(CALIBRATION, pass_s=0.05)
    predicted = dataclasses.replace(OWN, calibration=slow)
    for offers in itertools.permutations([predicted, OTHER]):
        selection = choose([], list(offers))
        assert of(selection, "other").decode_tokens_per_s > of(selection, "llama_cpp").decode_tokens_per_s
        assert best(selection) == "llama_cpp"


def test_a_guess_keeps_no_model_that_is_known_to_be_too_slow() -> None:
    crawling = dataclasses.replace(OWN, calibration=dataclasses.replace(CALIBRATION, pass_s=1.0))
    selection = choose([], [crawling, OTHER])
    assert selection.chosen is None
    assert (of(selection, "other").rejected or "").startswith("not measured; with llama_cpp too slow: about ")
    assert [each.backend for each in selection.candidates] == ["llama_cpp", "other"]  # what is known comes first
    assert best(choose([speed("other")], [crawling, OTHER])) == "other"  # known to be fast enough
    assert best(choose([], [crawling, OTHER], "quality")) == "llama_cpp"


def test_a_measured_plugin_beats_a_built_in_guess() -> None:
    assert best(choose([speed("other", token=0.2)])) == "other"


def test_guesses_compete_with_guesses() -> None:
    smaller = dataclasses.replace(OTHER, estimate=lambda s, w, o: dataclasses.replace(estimate(s, w, o), kv_cache=0))
    assert best(choose([], [OWN, smaller])) == "other"
    assert best(choose([], [OWN, OTHER])) == "llama_cpp"  # equal: the longer record


def test_a_measured_one_that_does_not_fit_holds_nobody_back() -> None:
    def huge(shape: ModelShape, size: int, options: LoadOptions) -> Footprint:
        return dataclasses.replace(estimate(shape, size, options), weights=10**12)

    selection = choose([speed()], [dataclasses.replace(OWN, estimate=huge), OTHER])
    assert best(selection) == "other"
    assert of(selection, "other").notes == ()


NOISY = (0.9, 1.1, 1.0, 0.95, 1.2, 1.0)


def test_what_the_rounds_cannot_tell_apart_keeps_the_built_in_backend() -> None:
    near = speed("other", 0.0199, first=0.995, noise=NOISY[::-1])
    selection = choose([speed(noise=NOISY), near])
    assert best(selection) == "llama_cpp"
    assert "not clearly faster than llama_cpp" in of(selection, "other").notes
    clear = speed("other", 0.0199, first=0.995, noise=NOISY)  # a little faster in each round
    assert best(choose([speed(noise=NOISY), clear])) == "other"


def test_rounds_of_other_sessions_are_not_compared_one_by_one() -> None:
    clear = speed("other", 0.0199, first=0.995, noise=NOISY, session="two")
    assert best(choose([speed(noise=NOISY), clear])) == "llama_cpp"
    assert best(choose([speed(noise=NOISY), dataclasses.replace(speed("other", 0.014, 0.7), session="two")])) == "other"


def test_a_plugin_alone_has_to_be_faster_than_the_prediction_may_be_off() -> None:
    predicted = dataclasses.replace(OWN, calibration=CALIBRATION)
    alone = of(choose([], [predicted]), "llama_cpp")
    token = 1 / alone.decode_tokens_per_s

    def rival(factor: float) -> str:
        first = alone.ttft_s * 0.45  # of 500 tokens; a typical prompt has 1,000
        return best(choose([speed("other", token * factor, first * factor)], [predicted, OTHER]))

    assert rival(0.97) == "llama_cpp"
    assert rival(0.6) == "other"


def test_equally_fast_the_smaller_may_still_win() -> None:
    smaller = dataclasses.replace(OTHER, estimate=lambda s, w, o: dataclasses.replace(estimate(s, w, o), kv_cache=0))
    assert best(choose([speed(), speed("other")], [OWN, smaller], "memory")) == "other"
    assert best(choose([speed(), speed("other")], [OWN, smaller], "speed")) == "llama_cpp"


def test_what_could_not_be_run_comes_last_and_says_why() -> None:
    failed = dataclasses.replace(speed(), rounds=(), failed="the worker crashed")
    selection = choose([failed])
    assert best(selection) == "other"
    assert of(selection, "llama_cpp").notes == ("it did not run when it was to be measured: the worker crashed",)
    assert of(selection, "llama_cpp").rank == 2  # it may be asked for, and then says what is wrong


def test_a_variant_that_was_made_here_is_one_more_candidate() -> None:
    measured = [speed(token=0.02), speed("mlc", 0.01, variant="int4-mlc")]
    selection = choose(measured, [OWN, MLC], model=WITH_MADE, variant=None)
    found = choose_installed(selection)
    assert found is not None
    assert (found.variant, found.backend, found.rank) == ("int4-mlc", "mlc", 1)
    rows = {(each.variant, each.backend) for each in selection.candidates if each.rejected is None}
    assert rows == {("int4", "llama_cpp"), ("int8", "llama_cpp"), ("int4-mlc", "mlc")}
    slow = choose(
        [speed(token=0.02), speed("mlc", 0.03, variant="int4-mlc")], [OWN, MLC], model=WITH_MADE, variant=None
    )
    found = choose_installed(slow)
    assert found is not None
    assert found.variant == "int4"


def test_it_can_be_asked_for_by_name_or_backend() -> None:
    named = choose([speed()], [OWN, MLC], model=WITH_MADE, variant="int4-mlc")
    assert [each.variant for each in named.candidates] == ["int4-mlc"]
    assert best(named) == "mlc"
    restricted = choose([speed()], [OWN, MLC], model=WITH_MADE, variant=None, backends=("mlc",))
    assert best(restricted) == "mlc"
    assert {each.variant for each in restricted.candidates if each.rank} == {"int4-mlc"}


def test_what_is_made_here_loses_more_than_what_is_listed() -> None:
    int4, int8 = MODEL.variants
    made = dataclasses.replace(MADE, name="int8-mlc")
    assert effective_quality(WITH_MADE, MADE) < effective_quality(MODEL, int4)
    assert effective_quality(WITH_MADE, MADE) < effective_quality(WITH_MADE, made) < effective_quality(MODEL, int8)
    unlisted = dataclasses.replace(MODEL, variants=(made,))
    assert effective_quality(unlisted, made) == pytest.approx(0.5 * 0.99)
    assert effective_quality(unlisted, dataclasses.replace(made, name="other")) == pytest.approx(0.5 * 0.95)


def test_a_copy_counts_on_top_of_what_was_measured() -> None:
    copy = CopyOffer("m", "int4", "llama_cpp", "Q8_0", 600 * MB, prompt=3.0, decode=1.5)
    measured = [speed(token=0.02), speed("other", 0.018, first=0.9)]
    arguments = (device(), [MODEL], [OWN, OTHER], INSTALLED, Need(prefer="speed", variant="int4"))
    assert best(select(*arguments, (), measured)) == "other"
    assert best(select(*arguments, [copy], measured)) == "llama_cpp"


def test_other_lengths_are_scaled_by_the_shape() -> None:
    found, size = speed(first=1.0, token=0.02), MODEL.variant("int4").size(MODEL.shape)

    def at(tokens: int) -> speeds.Speed:
        return speeds.measured(MODEL.shape, size, found, tokens)

    assert at(500).ttft_s == pytest.approx(1.0)
    assert 2.0 < at(1000).ttft_s < 2.2  # attention grows with the square
    assert at(0).ttft_s == pytest.approx(0.02)  # no pass is shorter than that for a token
    assert at(40).decode_tokens_per_s == pytest.approx(50)
    assert at(8000).decode_tokens_per_s < at(40).decode_tokens_per_s
    assert all(at(tokens).calibrated for tokens in (1, 100, 10_000))


@pytest.mark.parametrize("tokens", [0, 10, 1000, 30_000])
def test_no_length_turns_round_what_was_measured_with_one(tokens: int) -> None:
    pair = speed(token=0.02, first=1.0), speed("other", 0.015, first=0.8)
    slow, fast = (speeds.measured(MODEL.shape, 300 * MB, each, tokens).answer_s(200) for each in pair)
    assert fast < slow


tokens_s = st.floats(1e-3, 0.2)
measurements = st.lists(
    st.builds(
        speed,
        st.sampled_from(["llama_cpp", "other"]),
        tokens_s,
        st.floats(0.1, 100),
        noise=st.lists(st.floats(0.5, 2), min_size=6, max_size=12).map(tuple),
        session=st.sampled_from(["one", "two"]),
        variant=st.sampled_from(["int4", "int8"]),
    ),
    max_size=4,
    unique_by=lambda each: (each.variant, each.backend),
)


@settings(max_examples=50, deadline=None)
@given(measurements, st.sampled_from(get_args(Prefer)))
def test_whatever_was_measured_guesses_stay_behind(measured: list[ModelSpeed], prefer: Prefer) -> None:
    offers = [OWN, OTHER, dataclasses.replace(OTHER, name="third")]
    selection = choose(measured, offers, prefer, variant=None)
    known = {(each.variant, each.backend): each for each in measured}
    for one, other in itertools.combinations([each for each in selection.candidates if each.rank], 2):
        if one.variant == other.variant:  # one comes first
            assert one.calibrated or not other.calibrated
        mine, its = known.get((one.variant, one.backend)), known.get((other.variant, other.backend))
        plugin_first = one.backend != "llama_cpp" and other.backend == "llama_cpp"
        if one.variant == other.variant and mine and its and plugin_first and prefer == "speed":
            assert one.ttft_s + 200 / one.decode_tokens_per_s < other.ttft_s + 200 / other.decode_tokens_per_s


def test_the_order_of_the_inputs_does_not_matter() -> None:
    measured = [speed(noise=NOISY), speed("other", 0.0199, noise=NOISY[::-1]), speed("mlc", 0.03, variant="int4-mlc")]
    made = {
        repr(select(device(), [WITH_MADE], list(offers), INSTALLED, Need(), (), list(found)))
        for offers in itertools.permutations([OWN, OTHER, MLC])
        for found in itertools.permutations(measured)
    }
    assert len(made) == 1


def test_the_choice_is_made_again_from_its_record() -> None:
    measured = [speed(noise=NOISY), speed("other", 0.0199, noise=NOISY[::-1]), speed("mlc", 0.01, variant="int4-mlc")]
    inputs = device(), [WITH_MADE], [OWN, OTHER, MLC], INSTALLED, Need(), (), measured
    written = json.loads(json.dumps(record(*inputs)))
    assert replay(written, dict.fromkeys(("llama_cpp", "other", "mlc"), estimate)) == select(*inputs)
    del written["speeds"]  # as written before there were any
    for each in written["backends"]:
        del each["built_in"]
    unmeasured = [dataclasses.replace(each, built_in=False) for each in inputs[2]]
    before = select(inputs[0], inputs[1], unmeasured, INSTALLED, Need())
    assert replay(written, dict.fromkeys(("llama_cpp", "other", "mlc"), estimate)) == before


def test_embedders_are_not_touched() -> None:
    embedder = dataclasses.replace(MODEL, embeds=True)
    selection = select(device(), [embedder], [OWN], INSTALLED, Need("embed"), (), [speed()])
    assert all(each.measured is None and not each.calibrated for each in selection.candidates)
