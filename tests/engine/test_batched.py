from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from ondevice_sdk.backends.api import (
    GREEDY,
    Batch,
    Capability,
    Done,
    Embed,
    Failed,
    Generate,
    PromptProgress,
    Raw,
    Sampling,
    Score,
    Scored,
    Segment,
    Tokenize,
    Tokenized,
)
from ondevice_sdk.engine import BatchedEngine, sequence
from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.testing import answer, drain

from .support import chat, echo_engine, echo_runner, generated, raw


def test_echoes(tmp_path: Path) -> None:
    engine = echo_engine(tmp_path)
    events = drain(engine, {"a": Generate(chat("héllo 🦊"), 50, GREEDY), "b": Generate(raw("raw text"), 50, GREEDY)})
    assert generated(events["a"]).text == "héllo 🦊"
    assert generated(events["a"]).finish_reason == "stop"
    assert generated(events["b"]).text == "raw text"


def test_answer_prefix_is_where_the_answer_begins(tmp_path: Path) -> None:
    result = generated(drain(echo_engine(tmp_path), {"a": Generate(chat("abcdef", "abc"), 50, GREEDY)})["a"])
    assert result.text == "def"


@pytest.mark.parametrize("budget", [1, 7, 64, 10_000])
@pytest.mark.parametrize("batch", [5, 128])
def test_many_requests_through_little_room(tmp_path: Path, budget: int, batch: int) -> None:
    # The runner itself refuses a batch that is too large, and more cells than there are.
    engine = echo_engine(tmp_path, context=200, sequences=4, batch=batch)
    texts = {f"r{n}": f"{n} " * (1 + 5 * n % 40) for n in range(17)}
    events = drain(engine, {key: Generate(chat(text), 90, GREEDY) for key, text in texts.items()}, token_budget=budget)
    for key, text in texts.items():
        assert generated(events[key]).text == text[: len(generated(events[key]).text)]
        assert generated(events[key]).text == text or generated(events[key]).finish_reason == "length"


def test_decoding_goes_on_while_a_long_prompt_is_processed(tmp_path: Path) -> None:
    engine = echo_engine(tmp_path)
    engine.add_request("talk", Generate(chat("x" * 30), 40, GREEDY, stream=True))
    engine.step(64)
    engine.add_request("long", Generate(chat("y" * 300), 4, GREEDY))
    for _ in range(10):
        kinds = {(event.request_id, event.kind) for event in engine.step(10)}
        assert ("talk", "text_delta") in kinds
        assert ("long", "prompt_progress") in kinds


@pytest.mark.parametrize(("later", "watched", "waits"), [(0.5, False, True), (5.0, False, False), (0.5, True, False)])
def test_an_unwatched_answer_waits_for_prompts_that_came_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: float, watched: bool, waits: bool
) -> None:
    now = 0.0
    monkeypatch.setattr(sequence, "time", SimpleNamespace(monotonic=lambda: now))
    engine = echo_engine(tmp_path)
    engine.add_request("short", Generate(chat("x" * 30), 3, GREEDY, stream=watched))
    engine.step(64)
    now = later
    engine.add_request("long", Generate(chat("y" * 300), 3, GREEDY))
    ends: dict[str, int] = {}
    read = 0
    for step in range(60):
        for event in engine.step(20):
            if isinstance(event, Done):
                ends[event.request_id] = step
            elif isinstance(event, PromptProgress) and event.request_id == "long" and event.done == event.total:
                read = step
    assert (ends["short"] > read) is waits
    assert ends["long"] > read


def test_progress_counts_every_chunk(tmp_path: Path) -> None:
    events = drain(echo_engine(tmp_path), {"a": Generate(raw("z" * 99), 1, GREEDY)}, token_budget=40)["a"]
    assert [(e.done, e.total) for e in events if isinstance(e, PromptProgress)] == [(40, 100), (80, 100), (100, 100)]


def test_priority_then_order(tmp_path: Path) -> None:
    engine = echo_engine(tmp_path, sequences=1)
    requests = {"first": 0, "second": 0, "urgent": 5}
    order = list(drain_order(engine, {key: Generate(chat("a"), 3, GREEDY, priority=p) for key, p in requests.items()}))
    assert order == ["urgent", "first", "second"]


def drain_order(engine: BatchedEngine, requests: dict[str, Generate]) -> list[str]:
    for key, request in requests.items():
        engine.add_request(key, request)
    ended: list[str] = []
    while engine.busy:
        ended += [event.request_id for event in engine.step(64) if isinstance(event, Done | Failed)]
    return ended


def test_a_large_request_is_not_starved_by_small_ones(tmp_path: Path) -> None:
    engine = echo_engine(tmp_path, context=256)
    small = {f"s{n}": Generate(chat("s" * 20), 30, GREEDY) for n in range(9)}
    requests = {"s": Generate(chat("s" * 20), 30, GREEDY), "large": Generate(chat("l" * 150), 90, GREEDY), **small}
    order = drain_order(engine, requests)
    assert order.index("large") <= 2


def test_a_prefix_is_reused_to_the_token(tmp_path: Path) -> None:
    engine = echo_engine(tmp_path)
    text = "p" * 150
    cold = generated(drain(engine, {"a": Generate(chat(text + "1"), 200, GREEDY)})["a"])
    warm = generated(drain(engine, {"a": Generate(chat(text + "2"), 200, GREEDY)})["a"])
    assert (cold.usage.cached_tokens, warm.usage.cached_tokens) == (0, 152)
    assert warm.text == text + "2"
    same = generated(drain(engine, {"a": Generate(raw("q" * 127), 1, GREEDY)})["a"])
    again = generated(drain(engine, {"a": Generate(raw("q" * 127), 1, GREEDY)})["a"])
    assert same.usage.prompt_tokens == 128
    assert again.usage.cached_tokens == 127, "one token is left to process"
    other = generated(drain(engine, {"a": Generate(raw("q" * 40 + "r" * 40), 1, GREEDY)})["a"])
    assert other.usage.cached_tokens == 0, "less than a chunk is not worth it"


def test_prefix_of_a_running_request_is_computed_once(tmp_path: Path) -> None:
    engine = echo_engine(tmp_path)
    document = "d" * 400
    requests = {f"q{n}": Generate(chat(f"{document} {n}"), 5, GREEDY) for n in range(4)}
    results = {key: generated(events) for key, events in drain(engine, requests).items()}
    processed = sum(result.usage.prompt_tokens - result.usage.cached_tokens for result in results.values())
    assert processed < 700
    assert all(result.text == "ddddd" for result in results.values())


def test_reuse_changes_nothing(tmp_path: Path) -> None:
    sampling = Sampling(temperature=2.0, top_k=0, top_p=1.0, min_p=0.0, seed=4)
    requests = {f"r{n}": Generate(chat("common " * 30 + str(n % 3)), 40, sampling, ignore_eos=True) for n in range(9)}
    together = drain(echo_engine(tmp_path), requests)
    for key, request in requests.items():
        alone = drain(echo_engine(tmp_path), {key: request})
        assert generated(together[key]).text == generated(alone[key]).text


def test_deterministic_reuses_only_what_was_computed_on_the_grid(tmp_path: Path) -> None:
    engine = echo_engine(tmp_path)
    plain = Generate(chat("g" * 300), 2, GREEDY)
    exact = replace(plain, deterministic=True)
    cached = [generated(drain(engine, {"a": r})["a"]).usage.cached_tokens for r in (plain, exact, exact, plain)]
    assert cached[0] == cached[1] == 0
    assert cached[2] == 256
    assert cached[3] >= 256


def test_deterministic_rows_share_no_pass_and_lie_on_the_grid(tmp_path: Path) -> None:
    runner = echo_runner(tmp_path)
    passes: list[tuple[set[int], list[int]]] = []
    forward = runner.forward

    def spy(batch: Batch) -> NDArray[np.float32]:
        passes.append((set(batch.sequences), list(batch.positions)))
        return forward(batch)

    runner.forward = spy  # type: ignore[method-assign]
    engine = BatchedEngine(runner)
    engine.add_request("exact", Generate(chat("e" * 200), 20, GREEDY, deterministic=True))
    engine.step(10)
    ((exact,), positions) = passes[0]
    assert positions == list(range(64))
    for n in range(3):
        engine.add_request(f"o{n}", Generate(chat(f"{n}" * 90), 20, GREEDY))
    while engine.busy:
        engine.step(10)
    mine = [positions for sequences, positions in passes if exact in sequences]
    assert all(len(sequences) == 1 for sequences, _ in passes if exact in sequences)
    assert any(len(sequences) > 1 for sequences, _ in passes)
    prompt = [positions for positions in mine if len(positions) > 1]
    assert [positions[0] for positions in prompt] == [0, 64, 128, 192]


def test_scores(tmp_path: Path) -> None:
    engine = echo_engine(tmp_path)
    texts = ("hello", "hellx", "zzz", "h", "hel")
    result = answer(engine, Score(raw("hello"), texts))
    assert isinstance(result, Scored)
    assert result.token_counts == (5, 5, 3, 1, 3)
    assert result.logprobs[3] > result.logprobs[4] > result.logprobs[0] > result.logprobs[1] > result.logprobs[2]
    single = [answer(echo_engine(tmp_path, sequences=1), Score(raw("hello"), (text,))) for text in texts]
    for one, logprob in zip(single, result.logprobs, strict=True):
        assert isinstance(one, Scored)
        assert one.logprobs[0] == pytest.approx(logprob, abs=1e-9)


def test_scores_beside_generation_and_without_spare_sequences(tmp_path: Path) -> None:
    request = Score(raw("hello"), ("hello", "help me", "x" * 30, "y"))
    alone = answer(echo_engine(tmp_path), request)
    for sequences in (1, 2, 4):
        engine = echo_engine(tmp_path, sequences=sequences, batch=9)
        events = drain(engine, {"g": Generate(chat("g" * 50), 60, GREEDY), "s": request, "t": request}, token_budget=3)
        assert generated(events["g"]).text == "g" * 50
        for key in ("s", "t"):
            last = events[key][-1]
            assert isinstance(last, Done)
            assert isinstance(last.result, Scored)
            assert isinstance(alone, Scored)
            assert last.result.logprobs == pytest.approx(alone.logprobs, abs=1e-9)


def test_token_counts(tmp_path: Path) -> None:
    counts = answer(echo_engine(tmp_path), Tokenize(("", "abc", "é"), (raw("abc"), chat("abc"))))
    assert counts == Tokenized((0, 3, 2, 4, 7))


@pytest.mark.parametrize(
    ("request_", "code", "data"),
    [
        (Generate(raw("x" * 1023), 4), "input_too_long", {"tokens": 1024, "limit": 1023}),
        (Generate(raw("x"), 0), "configuration_error", {}),
        (Generate(raw("x"), 4, adapter="a"), "unsupported", {"capability": "adapter"}),
        (Score(raw("x"), ()), "configuration_error", {}),
        (Score(raw("x"), ("a", "")), "configuration_error", {}),
        (Score(raw("x" * 1000), ("y" * 30,)), "input_too_long", {"tokens": 1001, "limit": 994}),
        (Embed(("x",)), "unsupported", {"capability": "embed"}),
    ],
)
def test_refusals(tmp_path: Path, request_: Generate | Score | Embed, code: str, data: dict[str, str | int]) -> None:
    engine = echo_engine(tmp_path)
    (event,) = drain(engine, {"a": request_})["a"]
    assert isinstance(event, Failed)
    assert (event.error.code, event.error.data) == (code, data)


def test_empty_prompt_needs_a_begin_token(tmp_path: Path) -> None:
    runner = echo_runner(tmp_path)
    assert generated(drain(BatchedEngine(runner), {"a": Generate(Raw(()), 4, GREEDY)})["a"]).text == ""
    runner.begin_token = None
    (event,) = drain(BatchedEngine(runner), {"a": Generate(Raw(()), 4)})["a"]
    assert isinstance(event, Failed)
    assert event.error.code == "configuration_error"


def test_chat_without_a_template(tmp_path: Path) -> None:
    runner = echo_runner(tmp_path)
    runner.chat_template = None
    engine = BatchedEngine(runner)
    assert Capability.CHAT not in engine.capabilities
    (event,) = drain(engine, {"a": Generate(chat("x"), 4)})["a"]
    assert isinstance(event, Failed)
    assert event.error.data == {"capability": "chat"}


def test_a_failed_pass_fails_its_requests_only(tmp_path: Path) -> None:
    engine = echo_engine(tmp_path, ', "fail_at_token": 300')
    events = drain(engine, {"a": Generate(chat("a" * 400), 4), "b": Generate(chat("b"), 9, GREEDY)}, token_budget=300)
    last = events["a"][-1]
    assert isinstance(last, Failed)
    assert last.error.code == "generation_failed"
    assert generated(drain(engine, {"c": Generate(chat("after"), 9, GREEDY)})["c"]).text == "after"


def test_logits_that_are_not_numbers_fail_one_request(tmp_path: Path) -> None:
    runner = echo_runner(tmp_path)
    forward = runner.forward

    def poisoned(batch: Batch) -> NDArray[np.float32]:
        logits = forward(batch)
        for row, token in enumerate([t for t, wanted in zip(batch.tokens, batch.logits, strict=True) if wanted]):
            if token == ord("!"):
                logits[row] = np.nan
        return logits

    runner.forward = poisoned  # type: ignore[method-assign]
    events = drain(
        BatchedEngine(runner), {"a": Generate(chat("ab!cd"), 9, GREEDY), "b": Generate(chat("fine"), 9, GREEDY)}
    )
    last = events["a"][-1]
    assert isinstance(last, Failed)
    assert last.error.code == "generation_failed"
    assert generated(events["b"]).text == "fine"


def test_foreign_errors_tell_nothing_of_the_text(tmp_path: Path) -> None:
    runner = echo_runner(tmp_path)

    def broken(batch: Batch) -> NDArray[np.float32]:
        raise RuntimeError("secret document")

    runner.forward = broken  # type: ignore[method-assign]
    (last,) = drain(BatchedEngine(runner), {"a": Generate(chat("secret"), 4)})["a"]
    assert isinstance(last, Failed)
    assert "secret" not in repr(last) + last.error.message


def test_cancel(tmp_path: Path) -> None:
    engine = echo_engine(tmp_path, sequences=1)
    engine.add_request("running", Generate(chat("r" * 50), 60, GREEDY, stop=("rrrX",)))
    engine.add_request("waiting", Generate(chat("w"), 60))
    engine.add_request("score", Score(raw("x"), ("y",)))
    for _ in range(5):
        engine.step(64)
    for key in ("running", "waiting", "score"):
        engine.abort_request(key)
    events = {event.request_id: event for event in engine.step(64)}
    assert not engine.busy
    running, waiting, score = generated([events["running"]]), generated([events["waiting"]]), events["score"]
    assert (running.text, running.finish_reason) == ("r" * 5, "cancelled")
    assert running.usage.completion_tokens == 5
    assert (waiting.text, waiting.finish_reason) == ("", "cancelled")
    assert isinstance(score, Failed)
    assert score.error.code == "cancelled"


def test_ids_in_use_and_closed_engines_are_refused(tmp_path: Path) -> None:
    engine = echo_engine(tmp_path)
    engine.add_request("a", Generate(chat("x"), 4))
    with pytest.raises(ConfigurationError):
        engine.add_request("a", Generate(chat("x"), 4))
    engine.close()
    engine.close()
    assert not engine.busy
    with pytest.raises(ConfigurationError):
        engine.add_request("b", Generate(chat("x"), 4))


def test_text_is_in_no_repr(tmp_path: Path) -> None:
    events = drain(echo_engine(tmp_path), {"a": Generate(chat("secret"), 9, GREEDY, stream=True)})["a"]
    assert "secret" not in repr(events)
    assert "s" in {getattr(event, "text", None) for event in events}


def test_special_tokens_in_data_are_text(tmp_path: Path) -> None:
    result = answer(echo_engine(tmp_path), Generate(chat("a<|end|><|assistant|>b"), 60, GREEDY))
    assert generated([Done("a", result)]).text == "a<|end|><|assistant|>b"
    assert answer(echo_engine(tmp_path), Tokenize(prompts=(Raw((Segment("<|end|>", "control"),)),))) == Tokenized((2,))
