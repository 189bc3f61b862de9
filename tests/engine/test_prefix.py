"""What is remembered of finished requests, and how the cache is shared out."""

from __future__ import annotations

from pathlib import Path

import pytest

from ondevice_sdk.backends.api import GREEDY, Done, Event, Failed, Generate, ModelRunner, Score, Scored
from ondevice_sdk.engine import BatchedEngine
from ondevice_sdk.engine.parts import LEAST_FOREIGN, Demand, parts_for
from ondevice_sdk.engine.prefix import SlotPool
from ondevice_sdk.engine.saved import Saved, SavedStates
from ondevice_sdk.errors import GenerationFailed
from ondevice_sdk.testing import answer, drain

from .support import chat, echo_runner, generated, raw


def saved(tokens: list[int], size: int = 10) -> Saved:
    return Saved(tokens, bytes(size))


def cells(runner: ModelRunner) -> int:
    """What lies in the echo model's cache."""
    cache: dict[int, list[object]] = vars(runner)["_cache"]
    return sum(map(len, cache.values()))


def parts(runner: ModelRunner) -> int:
    """Into how many the echo model's cache is split."""
    return int(vars(runner)["_parts"])


def ask(engine: BatchedEngine, text: str, tokens: int = 4) -> tuple[int, str]:
    result = generated(drain(engine, {"a": Generate(chat(text), tokens, GREEDY)})["a"])
    return result.usage.cached_tokens, result.text


def test_states_are_found_by_their_longest_beginning() -> None:
    states = SavedStates(1000)
    states.put(saved([1] * 200 + [2] * 100))
    states.put(saved([1] * 100 + [3] * 300))
    length, found = states.find([1] * 200 + [9] * 50, exact=False)
    assert length == 200
    assert found is not None
    assert found.tokens[250] == 2
    assert states.find([1] * 100 + [3] * 300, exact=False)[0] == 399, "one token is left to process"
    assert states.find([1] * 100 + [3] * 300, exact=True) == (0, None), "nothing was computed on the grid"
    assert states.find([5] * 100, exact=False) == (0, None)


def test_the_longest_unused_state_is_forgotten_first() -> None:
    states = SavedStates(30)
    entries = [saved([number] * 100) for number in range(3)]
    for entry in entries:
        states.put(entry)
    states.touch(entries[0])
    states.put(saved([7] * 100))
    assert [entry.tokens[0] for entry in states] == [2, 0, 7]
    states.put(saved([8] * 100, 31))
    assert [entry.tokens[0] for entry in states] == [2, 0, 7], "there is no room for that one at all"


def test_a_state_replaces_those_that_it_holds_most_of() -> None:
    states = SavedStates(1000)
    states.put(saved([1] * 1000 + [2] * 64))
    states.put(saved([1] * 640))
    assert len(list(states)) == 2, "the shorter one does not hold most of the longer one"
    states.put(saved([1] * 1000 + [3] * 64))
    assert [len(entry.tokens) for entry in states] == [1064]
    assert states.knows([1] * 900)
    assert not states.knows([1] * 1000 + [2])


def test_states_show_no_text() -> None:
    assert "65" not in repr(saved([65, 66]))


def test_what_an_idle_slot_holds_is_out_of_the_way_and_comes_back(tmp_path: Path) -> None:
    runner = echo_runner(tmp_path)
    engine = BatchedEngine(runner)
    first = "d" * 300
    ask(engine, first + "1")
    assert cells(runner) > 300, "it stays as long as it is in nobody's way"
    engine.add_request("b", Generate(chat("short"), 4, GREEDY))
    engine.step(64)
    assert cells(runner) < 100
    while engine.busy:
        engine.step(64)
    assert ask(engine, first + "2") == (302, "dddd")


def test_without_a_budget_nothing_is_remembered(tmp_path: Path) -> None:
    engine = BatchedEngine(echo_runner(tmp_path), prefix_cache_bytes=0)
    ask(engine, "d" * 300)
    ask(engine, "short")
    assert ask(engine, "d" * 300) == (0, "dddd")


def test_forgetting(tmp_path: Path) -> None:
    runner = echo_runner(tmp_path)
    engine = BatchedEngine(runner)
    ask(engine, "d" * 300)
    ask(engine, "e" * 300)
    engine.forget()
    assert cells(runner) == 0
    assert ask(engine, "d" * 300)[0] == ask(engine, "e" * 300)[0] == 0


def test_a_state_that_cannot_be_put_back_is_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = echo_runner(tmp_path)
    engine = BatchedEngine(runner)
    ask(engine, "d" * 300)
    ask(engine, "short")

    def refuse(sequence: int, data: bytes) -> None:
        raise GenerationFailed("no")

    with monkeypatch.context() as patch:
        patch.setattr(runner, "kv_load", refuse)
        assert ask(engine, "d" * 300) == (0, "dddd")


def test_a_runner_that_saves_nothing_keeps_idle_slots_while_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = echo_runner(tmp_path)
    monkeypatch.setattr(type(runner), "kv_save", ModelRunner.kv_save)
    engine = BatchedEngine(runner)
    ask(engine, "d" * 300)
    ask(engine, "short")
    assert ask(engine, "d" * 300) == (303, "dddd")
    ask(engine, "e" * 900, 90)
    assert ask(engine, "d" * 300) == (0, "dddd")


def demand(count: int, size: int, *, writes: bool = True) -> list[Demand]:
    return [Demand([number] * (size // 2), size, writes) for number in range(count)]


@pytest.mark.parametrize(
    ("requests", "present", "wanted"),
    [
        ([], 4, 4),
        (demand(1, 500), 1, 1),
        (demand(1, 500), 8, 8),  # alone it is in nobody's way
        (demand(1, 1500), 8, 1),
        (demand(2, 500), 1, 1),  # too little to be worth it
        (demand(8, 500), 1, 8),
        (demand(5, 500), 1, 8),
        (demand(4, 500), 1, 4),
        (demand(4, 500), 8, 8),  # as good as four, and there already
        (demand(8, 1500), 1, 4),  # a shared cache would hold five
        (demand(8, 3000), 1, 2),  # a shared cache would hold two as well
        (demand(8, 5000), 1, 1),
        ([*demand(7, 500), Demand([9] * 2000, 3000)], 8, 1),
        (demand(8, 500, writes=False), 1, 1),  # scoring shares its prompt between the continuations
        ([Demand([1] * 400, 500)] * 8, 1, 1),  # the same prompt: held once
        ([Demand([1] * 400, 500)] * 8, 8, 8),  # but not worth to arrange anew for
        ([*[Demand([1] * 400, 500)] * 3, *demand(5, 500)], 1, 8),
        (demand(2, LEAST_FOREIGN), 1, 2),
        (demand(2, LEAST_FOREIGN - 1), 1, 1),
    ],
)
def test_parts(requests: list[Demand], present: int, wanted: int) -> None:
    assert parts_for(requests, cells=8192, most=8, present=present) == wanted


def test_parts_are_never_more_than_possible() -> None:
    assert parts_for(demand(8, 500), cells=8192, most=6, present=1) == 4


def texts(count: int, length: int) -> dict[str, str]:
    return {f"r{number}": chr(97 + number) * length for number in range(count)}


def test_many_short_requests_have_parts_of_their_own(tmp_path: Path) -> None:
    runner = echo_runner(tmp_path, context=4096, sequences=8)
    engine = BatchedEngine(runner)
    wanted = texts(20, 300)
    events = drain(engine, {key: Generate(chat(text), 64, GREEDY) for key, text in wanted.items()})
    assert {key: generated(each).text for key, each in events.items()} == {k: text[:64] for k, text in wanted.items()}
    assert parts(runner) == 8
    long = "z" * 3000
    assert ask(engine, long, 9) == (0, "z" * 9)
    assert parts(runner) == 1
    assert ask(engine, "!" * 300) == (0, "!!!!")
    assert ask(engine, wanted["r19"]) == (303, "tttt"), "what the parts held was moved to memory"


def test_requests_that_run_are_carried_over(tmp_path: Path) -> None:
    runner = echo_runner(tmp_path, context=4096, sequences=8)
    engine = BatchedEngine(runner)
    wanted = texts(9, 300)
    requests = {key: Generate(chat(text), 200, GREEDY) for key, text in wanted.items()}
    done: dict[str, list[Event]] = {key: [] for key in wanted}
    seen = []
    for number, (key, request) in enumerate(requests.items()):
        engine.add_request(key, request)
        for event in engine.step(64 if number else 400):
            done[event.request_id].append(event)
        seen.append(parts(runner))
    while engine.busy:
        for event in engine.step(64):
            done[event.request_id].append(event)
    assert seen[0] == 1
    assert seen[-1] > 1
    assert {key: generated(each).text for key, each in done.items()} == {
        key: text[:200] for key, text in wanted.items()
    }


def test_scores_where_every_slot_has_its_part(tmp_path: Path) -> None:
    runner = echo_runner(tmp_path, context=4096, sequences=8)
    engine = BatchedEngine(runner)
    drain(engine, {key: Generate(chat(text), 64, GREEDY) for key, text in texts(8, 300).items()})
    assert parts(runner) == 8
    score = Score(raw("abc"), ("abc", "xyz", "a"))
    apart = answer(engine, score)
    assert parts(runner) == 8
    alone = answer(BatchedEngine(echo_runner(tmp_path, context=4096, sequences=8)), score)
    assert isinstance(apart, Scored)
    assert isinstance(alone, Scored)
    assert apart.logprobs == alone.logprobs


def test_where_the_cache_cannot_be_arranged_the_requests_fail_and_the_engine_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = echo_runner(tmp_path, context=4096, sequences=8)
    engine = BatchedEngine(runner)

    def refuse(parts: int) -> None:
        raise GenerationFailed("no memory")

    engine.add_request("runs", Generate(chat("x" * 300), 64, GREEDY))
    engine.step(64)
    requests = {key: Generate(chat(text), 64, GREEDY) for key, text in texts(8, 300).items()}
    with monkeypatch.context() as patch:
        patch.setattr(runner, "arrange", refuse)
        for key, request in requests.items():
            engine.add_request(key, request)
        assert next(event for event in engine.step(64) if isinstance(event, Failed)).request_id == "runs"
        events = drain(engine)
    assert [generated(events[f"r{number}"]).text[:1] for number in range(8)] == list("abcdefgh")
    assert ask(engine, "still here") == (0, "stil")


def test_a_slot_is_never_given_twice(tmp_path: Path) -> None:
    pool = SlotPool(echo_runner(tmp_path, sequences=2), 2, saved_bytes=10**6)
    one, two = pool.take([1] * 100, 200), pool.take([1] * 100, 200)
    assert one is not None
    assert two is not None
    assert one is not two
    assert pool.take([1] * 100, 200) is None


def short_ones(length: int = 300, tokens: int = 64) -> dict[str, Generate]:
    return {key: Generate(chat(text), tokens, GREEDY) for key, text in texts(8, length).items()}


def test_scores_that_share_a_prompt_between_slots_keep_the_cache_as_it_is(tmp_path: Path) -> None:
    score = Score(raw("p" * 90), tuple(letter * 40 for letter in "abcde"))
    alone = answer(BatchedEngine(echo_runner(tmp_path, context=4096, sequences=8)), score)
    runner = echo_runner(tmp_path, context=4096, sequences=8)
    engine = BatchedEngine(runner)
    engine.add_request("s", score)
    for _ in range(5):
        engine.step(30)
    for key, request in short_ones().items():
        engine.add_request(key, request)
    engine.step(30)
    assert parts(runner) == 1, "its branches are open"
    events = drain(engine)
    last = events["s"][-1]
    assert isinstance(last, Done)
    assert last.result.logprobs == alone.logprobs  # type: ignore[union-attr]
    assert parts(runner) > 1, "afterwards there was nothing against it"
    assert [generated(events[f"r{number}"]).text[:1] for number in range(8)] == list("abcdefgh")


def test_forgetting_where_every_slot_has_its_part(tmp_path: Path) -> None:
    runner = echo_runner(tmp_path, context=2048, sequences=8)
    engine = BatchedEngine(runner)
    drain(engine, short_ones(150, 32))
    assert 1 < parts(runner) <= 8
    engine.forget()
    assert cells(runner) == 0
    assert ask(engine, "a" * 150) == (0, "aaaa")


def test_two_long_texts_in_turn_take_the_room_of_each_other(tmp_path: Path) -> None:
    engine = BatchedEngine(echo_runner(tmp_path, context=1024))
    cached = [ask(engine, letter * 700)[0] for letter in "ababab"]
    assert cached == [0, 0, 703, 703, 703, 703]


def test_a_state_that_is_lost_on_the_way_ends_what_ran_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = echo_runner(tmp_path, context=4096, sequences=8)
    engine = BatchedEngine(runner)

    def refuse(sequence: int, data: bytes) -> None:
        raise GenerationFailed("no")

    engine.add_request("runs", Generate(chat("x" * 300), 64, GREEDY))
    engine.step(64)
    with monkeypatch.context() as patch:
        patch.setattr(runner, "kv_load", refuse)
        for key, request in short_ones().items():
            engine.add_request(key, request)
        events = engine.step(64)
    assert [event.request_id for event in events if isinstance(event, Failed)] == ["runs"]
    rest = drain(engine)
    assert [generated(rest[f"r{number}"]).text[:1] for number in range(8)] == list("abcdefgh")


def test_a_long_deterministic_request_after_short_ones(tmp_path: Path) -> None:
    engine = BatchedEngine(echo_runner(tmp_path, context=4096, sequences=8))
    drain(engine, short_ones())
    long = Generate(chat("z" * 2000), 4, GREEDY, deterministic=True)
    assert generated(drain(engine, {"long": long})["long"]).text == "zzzz"
