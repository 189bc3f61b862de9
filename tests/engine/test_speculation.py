from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from numpy.typing import NDArray

from ondevice_sdk.backends.api import (
    GREEDY,
    Batch,
    Generate,
    Generated,
    Grammar,
    LoadOptions,
    LocalModel,
    ModelRunner,
    Request,
    Sampling,
    Segment,
    TextDelta,
)
from ondevice_sdk.engine import BatchedEngine
from ondevice_sdk.engine.lookup import PassCosts
from ondevice_sdk.testing import drain

from .support import chat, generated, raw

LETTERS = "abcdefghijklmnop"
END = len(LETTERS)  # a prompt has it as a full stop
HOT = Sampling(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=7)


class Letters(ModelRunner):
    """A model of letters whose logits depend on the last two tokens alone, and which watches its cache."""

    context_tokens = cache_tokens = 4096
    max_sequences = 6
    vocabulary = END + 1
    end_tokens = frozenset({END})

    def __init__(self, *, certainty: float = 4.0, rows: int = 128, seed: int = 0) -> None:
        self.max_batch_tokens = rows
        self.passes: list[Batch] = []
        self._certainty = certainty
        self._seed = seed
        self._known: dict[tuple[int, int], NDArray[np.float32]] = {}
        self._cache: dict[int, list[int]] = {index: [] for index in range(self.max_sequences)}

    @property
    def written_rows(self) -> int:
        """Rows that were not of a prompt."""
        return sum(sum(batch.logits) for batch in self.passes)

    def tokenize(self, segments: Sequence[Segment]) -> list[int]:
        return [f"{LETTERS}.".index(letter) for segment in segments for letter in segment.text]

    def token_bytes(self, token: int) -> bytes:
        return LETTERS[token].encode() if token < END else b""

    def logits(self, tokens: list[int]) -> NDArray[np.float32]:
        pair = (tokens[-2] if len(tokens) > 1 else 0, tokens[-1])
        if pair not in self._known:
            values = np.random.default_rng((*pair, self._seed)).standard_normal(self.vocabulary) * self._certainty
            values[END] = -6.0
            self._known[pair] = values.astype(np.float32)
        return self._known[pair].copy()

    def forward(self, batch: Batch) -> NDArray[np.float32]:
        assert 0 < len(batch) <= self.max_batch_tokens
        assert sum(batch.logits) <= self.max_logits
        self.passes.append(batch)
        rows = [np.empty((0, self.vocabulary), np.float32)]
        for sequence, position, token, wanted in zip(
            batch.sequences, batch.positions, batch.tokens, batch.logits, strict=True
        ):
            cached = self._cache[sequence]
            assert position == len(cached), "positions follow what is cached"
            assert not (wanted and token in self.end_tokens), "a draft stops before what would end the answer"
            cached.append(token)
            if wanted:
                rows.append(self.logits(cached)[None])
        assert sum(map(len, self._cache.values())) <= self.cache_tokens
        return np.concatenate(rows)

    def kv_copy(self, source: int, target: int, start: int, end: int) -> None:
        self._cache[target][start:end] = self._cache[source][start:end]

    def kv_remove(self, sequence: int, start: int, end: int | None) -> None:
        del self._cache[sequence][start:end]

    def holds(self, engine: BatchedEngine) -> bool:
        """Whether the engine knows what the cache holds."""
        return all(slot.tokens == self._cache[slot.index] for slot in engine._pool._slots)

    def close(self) -> None:
        self._cache.clear()


class Bytes(Letters):
    """The same model with bytes as tokens, for constraints."""

    vocabulary = 257
    end_tokens = frozenset({256})

    def tokenize(self, segments: Sequence[Segment]) -> list[int]:
        return [byte for segment in segments for byte in segment.text.encode()]

    def token_bytes(self, token: int) -> bytes:
        return bytes((token,)) if token < 256 else b""

    def grammar_tokenizer(self) -> object:
        from llguidance import LLTokenizer, TokenizerWrapper

        class Vocabulary:
            eos_token_id = 256
            bos_token_id = None
            tokens = [*(bytes((value,)) for value in range(256)), b"<end>"]  # noqa: RUF012 - read as it is
            special_token_ids = [256]  # noqa: RUF012

            def __call__(self, text: bytes | str) -> list[int]:
                return list(text.encode() if isinstance(text, str) else text)

        return LLTokenizer(TokenizerWrapper(Vocabulary()))


class CheapRows(PassCosts):
    """Learns from durations that a test can rely on."""

    def observe(self, batch: Batch, seconds: float) -> None:
        super().observe(batch, 1 + 0.1 * (len(batch) - 1) + 0 * seconds)


class EagerRows(PassCosts):
    """Rows that cost nothing: whatever can be drafted is."""

    def added(self, rows: int, more: int) -> float:
        return 0.0 * (rows + more)


class Unseeded(BatchedEngine):
    """Draws as the seed of a request says, but without being told that they are to be the same again."""

    def add_request(self, request_id: str, request: Request) -> None:
        if not isinstance(request, Generate):
            super().add_request(request_id, request)
            return
        unseeded = replace(request, sampling=replace(request.sampling, seed=None))
        with mock.patch("ondevice_sdk.engine.sampling.secrets.randbits", return_value=request.sampling.seed or 0):
            super().add_request(request_id, unseeded)


def engine_of(runner: ModelRunner, *, speculate: bool = True, costs: type[PassCosts] = CheapRows) -> BatchedEngine:
    engine = Unseeded(runner, speculate=speculate)
    if speculate:
        engine._costs = costs()
    return engine


def write(
    runner: Letters, request: Request, *, speculate: bool = True, costs: type[PassCosts] = CheapRows
) -> Generated:
    engine = engine_of(runner, speculate=speculate, costs=costs)
    result = generated(drain(engine, {"a": request})["a"])
    assert runner.holds(engine)
    return result


def text_of(length: int, seed: int) -> str:
    return "".join(LETTERS[index] for index in np.random.default_rng(seed).integers(0, len(LETTERS), length))


def same(result: Generated, other: Generated) -> bool:
    return (result.text, result.finish_reason, result.usage.completion_tokens) == (
        other.text,
        other.finish_reason,
        other.usage.completion_tokens,
    )


SAMPLINGS = [
    GREEDY,
    HOT,
    Sampling(seed=3),
    Sampling(seed=3, repetition_penalty=1.3),
    replace(GREEDY, repetition_penalty=1.2),
    Sampling(temperature=1.5, top_k=3, seed=1),
]


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("costs", [CheapRows, EagerRows])
def test_the_text_is_the_same(sampling: Sampling, seed: int, costs: type[PassCosts]) -> None:
    request = Generate(raw(text_of(300, seed)), 200, sampling)
    plain, drafting = Letters(seed=seed), Letters(seed=seed)
    assert same(write(plain, request, speculate=False), write(drafting, request, costs=costs))
    assert len(plain.passes) == plain.written_rows + 4
    if costs is EagerRows or sampling is GREEDY:
        assert len(drafting.passes) < len(plain.passes)
    if costs is EagerRows and sampling is not GREEDY:
        assert drafting.written_rows > plain.written_rows, "some drafts are wrong"


def test_what_a_seed_draws_is_not_drafted() -> None:
    runner = Letters(seed=1)
    engine = BatchedEngine(runner)
    engine._costs = EagerRows()
    request = Generate(raw(text_of(300, 1)), 200, replace(HOT, seed=3), ignore_eos=True)
    assert generated(drain(engine, {"a": request})["a"]).usage.completion_tokens == 200
    assert all(len(batch) == 1 for batch in runner.passes[-199:]), "the bits of a logit depend on the size of its pass"


def test_copies_take_few_passes() -> None:
    runner = Letters(certainty=9.0)
    result = write(runner, Generate(raw(text_of(300, 1)), 400, GREEDY, ignore_eos=True))
    assert result.usage.completion_tokens == 400
    assert len(runner.passes) < 400 / 5
    assert runner.written_rows < 1.1 * 400


@pytest.mark.parametrize("seed", range(4))
def test_random_text_is_not_drafted(seed: int) -> None:
    runner = Letters(certainty=0.0, seed=seed)
    result = write(runner, Generate(raw(text_of(300, seed)), 400, replace(HOT, seed=seed), ignore_eos=True))
    assert result.usage.completion_tokens == 400
    assert runner.written_rows <= 1.03 * 400


@pytest.mark.parametrize("sampling", [GREEDY, HOT])
@pytest.mark.parametrize("limit", range(1, 60, 3))
def test_max_tokens_ends_in_the_middle_of_a_draft(sampling: Sampling, limit: int) -> None:
    request = Generate(raw(text_of(300, 2)), limit, sampling, ignore_eos=True)
    drafting = Letters(certainty=9.0)
    result = write(drafting, request)
    assert same(result, write(Letters(certainty=9.0), request, speculate=False))
    assert (result.usage.completion_tokens, result.finish_reason) == (limit, "length")
    assert max(max(batch.positions) for batch in drafting.passes) < 300 + limit - 1 or limit == 1


@pytest.mark.parametrize("at", range(10, 90, 7))
def test_stop_strings_end_in_the_middle_of_a_draft(at: int) -> None:
    request = Generate(raw(text_of(300, 3)), 150, GREEDY, ignore_eos=True, stream=True)
    whole = write(Letters(certainty=3.0, seed=5), request, speculate=False).text
    stopped = replace(request, stop=(whole[at : at + 3],))
    plain = write(Letters(certainty=3.0, seed=5), stopped, speculate=False)
    engine = engine_of(Letters(certainty=3.0, seed=5))
    events = drain(engine, {"a": stopped})["a"]
    assert same(generated(events), plain)
    assert plain.finish_reason == "stop"
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == plain.text


@pytest.mark.parametrize("ignored", [False, True])
def test_end_tokens_of_the_prompt_are_not_drafted(ignored: bool) -> None:
    # Letters that are drawn after each other in an answer, each time followed by the end.
    runner = Letters()
    prompt = "".join(f"{one}{other}." for one in LETTERS for other in LETTERS) + "ab"
    result = write(runner, Generate(raw(prompt), 100, GREEDY, ignore_eos=ignored), costs=EagerRows)
    assert result.usage.completion_tokens == 100
    assert runner.written_rows > len(runner.passes)


class Ending(Letters):
    """Ends after one pair of letters, which its text reaches in a loop of others."""

    def logits(self, tokens: list[int]) -> NDArray[np.float32]:
        values = super().logits(tokens)
        if len(tokens) > 340 and tokens[-1] == self.loop[0]:
            values[END] = 100.0
        return values

    loop: tuple[int, ...] = ()


@pytest.mark.parametrize("ignored", [False, True])
def test_the_end_token_ends_in_the_middle_of_a_draft(ignored: bool) -> None:
    request = Generate(raw(text_of(300, 4)), 120, GREEDY, ignore_eos=ignored)
    last = write(Letters(certainty=9.0), replace(request, ignore_eos=True), speculate=False).text[-1]
    results = []
    for speculate in (False, True):
        runner = Ending(certainty=9.0)
        runner.loop = (LETTERS.index(last),)
        results.append(write(runner, request, speculate=speculate))
    assert same(*results)
    assert results[0].finish_reason == ("length" if ignored else "stop")
    assert 40 <= results[0].usage.completion_tokens <= 120


def test_cancelled_between_drafts() -> None:
    runner = Letters(seed=4)
    request = Generate(raw(text_of(300, 1)), 400, GREEDY, ignore_eos=True)
    whole = write(Letters(seed=4), request, speculate=False).text
    engine = engine_of(runner)
    engine.add_request("a", request)
    for _ in range(40):
        engine.step(64)
        assert runner.holds(engine)
    engine.abort_request("a")
    (event,) = engine.step(64)
    result = generated([event])
    assert result.finish_reason == "cancelled"
    assert 40 < len(result.text) < 400
    assert whole.startswith(result.text)
    assert runner.holds(engine)
    again = generated(drain(engine, {"b": request})["b"])
    assert again.text == whole
    assert again.usage.cached_tokens == 299


@pytest.mark.parametrize("sampling", [GREEDY, HOT])
@pytest.mark.parametrize("rows", [6, 9, 128])
def test_several_sequences(sampling: Sampling, rows: int) -> None:
    requests = {f"r{n}": Generate(raw(text_of(100 + 31 * n, n)), 40 + 13 * n, sampling) for n in range(9)}
    runner = Letters(certainty=6.0, rows=rows)
    engine = engine_of(runner)
    events = drain(engine, requests)
    assert runner.holds(engine)
    for key, request in requests.items():
        alone = write(Letters(certainty=6.0, rows=rows), request, speculate=False)
        assert same(generated(events[key]), alone)


@pytest.mark.parametrize(("sequences", "drafts"), [(2, True), (6, False)])
def test_drafts_need_idle_hardware(sequences: int, drafts: bool) -> None:
    runner = Letters(certainty=9.0)
    requests = {f"r{n}": Generate(raw(text_of(64, n)), 100, GREEDY, ignore_eos=True) for n in range(sequences)}
    drain(engine_of(runner), requests)
    full = [batch for batch in runner.passes if set(batch.sequences) == set(range(sequences)) and all(batch.logits)]
    assert any(len(batch) > sequences for batch in full) == drafts


def test_deterministic_requests_never_draft() -> None:
    runner = Letters(certainty=9.0)
    request = Generate(raw(text_of(300, 1)), 100, GREEDY, deterministic=True, ignore_eos=True)
    write(runner, request)
    assert runner.written_rows == 100
    assert all(sum(batch.logits) <= 1 for batch in runner.passes)


class Biased(Letters):
    """Every next letter is drawn from the same probabilities."""

    weights = np.array([0.55, 0.25, 0.12, 0.08])

    def logits(self, tokens: list[int]) -> NDArray[np.float32]:
        values = np.full(self.vocabulary, -np.inf, np.float32)
        values[:4] = np.log(self.weights) + 0 * tokens[-1]
        return values


def test_draws_have_the_distribution_of_the_model() -> None:
    letters: Counter[str] = Counter()
    after_aa: Counter[str] = Counter()
    drafted = total = 0
    for seed in range(10):
        runner = Biased()
        engine = engine_of(runner, costs=EagerRows)
        request = Generate(raw("abca" * 20), 1000, replace(HOT, seed=seed), ignore_eos=True)
        text = generated(drain(engine, {"a": request})["a"]).text
        total += len(text)
        drafted += runner.written_rows - len(runner.passes) + 2
        letters.update(text)
        after_aa.update(text[index + 2] for index in range(len(text) - 2) if text[index : index + 2] == "aa")
    assert drafted > 0.5 * total, "the drafts are put to the test"
    for counts in (letters, after_aa):
        count = sum(counts.values())
        wanted = {letter: count * weight for letter, weight in zip("abcd", Biased.weights, strict=True)}
        chi_square = sum((counts[letter] - value) ** 2 / value for letter, value in wanted.items())
        assert chi_square < 16.3, "the 0.1 % quantile with three degrees of freedom; the seeds are fixed"


SCHEMAS = [
    Grammar("regex", "([a-f]{3}-){4,30}"),
    Grammar("regex", "(name: [a-z]{2,6}; kind: (small|large|odd)\n){3,9}"),
    Grammar("choice", choices=("yes", "no", "yes, but not today")),
    Grammar(
        "json_schema",
        '{"type":"array","minItems":3,"maxItems":6,"items":{"type":"object","additionalProperties":false,'
        '"properties":{"k\\u00fcrzel":{"enum":["\\u00e9clair","\\ud83e\\udd8a"]},"n":{"type":"integer","maximum":99},'
        '"fixed":{"const":{"x":[1,2.5,null]}}},"required":["k\\u00fcrzel","n","fixed"]}}',
    ),
]


@pytest.mark.parametrize("grammar", SCHEMAS)
@pytest.mark.parametrize("sampling", [GREEDY, HOT])
@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("rows", [7, 128])
def test_constraints(grammar: Grammar, sampling: Sampling, ignored: bool, rows: int) -> None:
    request = Generate(raw("abc-def-" * 20), 250, sampling, grammar=grammar, ignore_eos=ignored)
    plain, drafting = Bytes(certainty=3.0, rows=rows), Bytes(certainty=3.0, rows=rows)
    result = write(drafting, request)
    assert same(result, write(plain, request, speculate=False))
    assert result.usage.completion_tokens == len(result.text.encode())
    assert len(drafting.passes) <= len(plain.passes)


def test_drafts_are_cut_where_the_constraint_is_left() -> None:
    prompt = "aabbX" * 30
    runner = Bytes()
    request = Generate(raw(prompt), 100, GREEDY, grammar=Grammar("regex", "([ab]{4}[YZ]){20}"))
    result = write(runner, request, costs=EagerRows)
    assert result.usage.completion_tokens == 100
    assert runner.written_rows > len(runner.passes), "something is drafted"
    assert sum(batch.tokens.count(ord("X")) for batch in runner.passes) == prompt.count("X")


@pytest.mark.parametrize("limit", [29, 30, 40])
@pytest.mark.parametrize("deterministic", [False, True])
def test_forced_tokens_take_one_pass_and_count(limit: int, deterministic: bool) -> None:
    grammar = Grammar("regex", "hello, world[ab]and all the rest")
    runner = Bytes()
    request = Generate(raw("abc"), limit, GREEDY, grammar=grammar, deterministic=deterministic)
    result = write(runner, request)
    text = "hello, world?and all the rest"
    assert result.usage.completion_tokens == len(text)
    assert (result.text[:12], result.text[13:]) == (text[:12], text[13:])
    assert result.finish_reason == "stop"
    assert len(runner.passes) == 2


def test_stop_strings_end_forced_tokens() -> None:
    request = Generate(raw("abc"), 99, GREEDY, grammar=Grammar("regex", "one two three"), stop=("two",), stream=True)
    engine = engine_of(Bytes())
    events = drain(engine, {"a": request})["a"]
    assert generated(events).text == "one "
    assert generated(events).usage.completion_tokens == 7
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "one "


def test_forced_tokens_fill_small_passes() -> None:
    # The free request is not kept waiting by the forced tokens of another.
    runner = Bytes(rows=4)
    requests: dict[str, Request] = {
        "free": Generate(raw("ab"), 40, HOT, ignore_eos=True),
        "forced": Generate(raw("ab"), 99, GREEDY, grammar=Grammar("regex", "a{60}")),
    }
    events = drain(engine_of(runner, speculate=False), requests)
    assert generated(events["forced"]).text == "a" * 60
    assert generated(events["free"]).usage.completion_tokens == 40


@pytest.fixture(scope="module")
def real_runner(model_path: Path) -> ModelRunner:
    from ondevice_sdk.backends.llama_cpp import LlamaCppBackend

    model = LocalModel("smollm2-135m-instruct", "int4", "gguf", str(model_path), "")
    loaded = LlamaCppBackend().load(model, LoadOptions(context_tokens=1024, max_sequences=2))
    assert isinstance(loaded, ModelRunner)
    return loaded


DOCUMENT = (
    "The harbour of Lindholm was dredged in 1931, and two granite piers were added in the following year. Ferries to "
    "Skarvik leave at 06:40, 11:15 and 17:30 on weekdays. Tickets cost 14 euros for adults and 6 euros for children."
)


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(seed=5)])
def test_the_real_model_writes_the_same(real_runner: ModelRunner, sampling: Sampling) -> None:
    passes: list[int] = []
    forward = real_runner.forward

    def counted(batch: Batch) -> NDArray[np.float32]:
        passes.append(len(batch))
        return forward(batch)

    request = Generate(chat(f"Repeat this text exactly, word for word:\n\n{DOCUMENT}"), 70, sampling)
    counts, texts = [], []
    real_runner.forward = counted  # type: ignore[method-assign]
    try:
        for speculate in (False, True):
            passes.clear()
            events = drain(engine_of(real_runner, speculate=speculate), {"a": request})["a"]
            texts.append(generated(events).text)
            counts.append(len(passes))
            for sequence in range(2):
                real_runner.kv_remove(sequence, 0, None)
    finally:
        real_runner.forward = forward  # type: ignore[method-assign]
    # A draw can fall differently where a pass of another size changes the last bits of the logits.
    assert texts[0] == texts[1] or sampling is not GREEDY
    assert counts[1] < (0.5 if sampling is GREEDY else 1.0) * counts[0]


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=1.0, seed=2)])
def test_the_real_model_jumps_over_forced_tokens(real_runner: ModelRunner, sampling: Sampling) -> None:
    import json

    schema = {
        "type": "object",
        "properties": {
            "ferry_destination": {"enum": ["Skarvik", "Lindholm", "Łódź 🦊"]},
            "price_for_adults": {"type": "integer", "minimum": 0, "maximum": 500},
            "kind_of_document": {"const": "timetable é🦊"},
        },
        "required": ["ferry_destination", "price_for_adults", "kind_of_document"],
        "additionalProperties": False,
    }
    request = Generate(chat(DOCUMENT), 120, sampling, grammar=Grammar("json_schema", json.dumps(schema)))
    passes: list[int] = []
    forward = real_runner.forward

    def counted(batch: Batch) -> NDArray[np.float32]:
        passes.append(len(batch))
        return forward(batch)

    real_runner.forward = counted  # type: ignore[method-assign]
    try:
        result = generated(drain(engine_of(real_runner, speculate=False), {"a": request})["a"])
    finally:
        real_runner.forward = forward  # type: ignore[method-assign]
    value = json.loads(result.text)
    assert list(value) == ["ferry_destination", "price_for_adults", "kind_of_document"]
    assert value["kind_of_document"] == "timetable é🦊"
    assert result.finish_reason == "stop"
    assert len(passes) < 0.7 * result.usage.completion_tokens
    for sequence in range(2):
        real_runner.kv_remove(sequence, 0, None)
