"""The measures: each takes one sample of its figures from a station, ours and the bare library's one after the other.

All seconds are those that pass for the app, from the submission of a request to the arrival of what was waited for;
nothing is left out because it happens in another process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from ondevice_sdk.bench import prompts
from ondevice_sdk.bench.conditions import MeasureName
from ondevice_sdk.bench.library import BareLibrary
from ondevice_sdk.bench.memory import children, peak_bytes, shared_bytes
from ondevice_sdk.bench.process import Child
from ondevice_sdk.bench.report import batched_name
from ondevice_sdk.bench.stations import Loaded, Served, Station, Target, loaded, nothing_loaded, served
from ondevice_sdk.bench.streams import endless, stream_speed
from ondevice_sdk.device import bandwidth
from ondevice_sdk.engine.prefix import GRID
from ondevice_sdk.runtime.channel import Channel
from ondevice_sdk.runtime.child import WorkerProcess
from ondevice_sdk.runtime.handshake import seal
from ondevice_sdk.types import JsonValue, Message

S = TypeVar("S", bound=Station)

_BATCHED_PROMPT: Final = GRID + 2  # tokens: one chunk is found in the cache, two are left to read
_LEAST_BATCHED: Final = 8  # tokens per sequence; fewer say nothing


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a figure, and the bare library's beside it where that has one."""

    figure: str
    ours: float
    library: float | None = None


@dataclass(frozen=True, slots=True)
class Measure(Generic[S]):
    """How to take samples. `share` of the pairs is enough where one sample is long; `warm_up`: one more is dropped."""

    name: MeasureName
    open: Callable[[Target], AbstractContextManager[S]]
    sample: Callable[[S, int], Sequence[Sample]]
    share: float = 1.0
    warm_up: bool = True


def prompt(station: Loaded, turn: int) -> Sequence[Sample]:
    """Read a new prompt and choose the first token."""
    tokens = station.target.sizes.prompt_tokens
    text = station.prompt(tokens)
    ours, theirs = station.both(
        turn,
        lambda: station.session.generate([text], 1)[0].prompt_s,
        lambda bare: bare.generate([text], [tokens], 1).prompt_s,
    )
    return [Sample("prompt_tokens_per_s", tokens / ours, None if theirs is None else tokens / theirs)]


def decode(station: Loaded, turn: int) -> Sequence[Sample]:
    """Write tokens one by one, none of them drafted, and read memory as fast as it goes right before."""
    sizes, target = station.target.sizes, station.target
    text = station.prompt(sizes.decode_prompt_tokens)
    steps = sizes.decode_tokens - 1
    speed = bandwidth.measure.__wrapped__(target.device.usable_cores)
    in_model = 0.0

    def ours() -> float:
        nonlocal in_model
        timing = station.session.generate([text], sizes.decode_tokens, stepwise=True)[0]
        in_model = timing.usage.decode_s / (timing.end_s - timing.prompt_s)
        return timing.decode_tokens_per_s

    mine, theirs = station.both(
        turn,
        ours,
        lambda bare: steps / bare.generate([text], [sizes.decode_prompt_tokens], sizes.decode_tokens).decode_s,
    )
    samples = [Sample("decode_tokens_per_s", mine, theirs), Sample("decode_in_model_share", in_model)]
    if target.weights_read_bytes is not None and target.shape is not None:
        cached = sizes.decode_prompt_tokens + sizes.decode_tokens / 2
        read = target.weights_read_bytes + cached * target.shape.kv_bytes_per_token()
        samples.append(
            Sample("read_bandwidth_share", read * mine / speed, None if theirs is None else read * theirs / speed)
        )
    return samples


def new_token(station: Loaded, turn: int) -> Sequence[Sample]:
    """Time to the first token of a loaded model with a new prompt."""
    tokens = station.target.sizes.first_token_prompt_tokens
    text = station.prompt(tokens)
    ours, theirs = station.both(
        turn,
        lambda: station.session.generate([text], 1)[0].prompt_s,
        lambda bare: bare.generate([text], [tokens], 1).prompt_s,
    )
    return [Sample("first_token_warm_s", ours, theirs)]


def first_token(station: Loaded, turn: int) -> Sequence[Sample]:
    """The same, and with a prompt whose beginning is cached."""
    samples = [*new_token(station, turn)]
    sizes = station.target.sizes
    long = station.prompt(sizes.prompt_tokens)
    beginning = long[: len(long) * sizes.cached_tokens // sizes.prompt_tokens]
    station.session.generate([beginning], 1)
    timing = station.session.generate([long], 1)[0]
    if timing.usage.cached_tokens:
        samples.append(Sample("first_token_cached_s", timing.prompt_s))
    return samples


def batched(station: Loaded, turn: int) -> Sequence[Sample]:
    """Several sequences at a time."""
    sizes = station.target.sizes
    texts = [station.prompt(_BATCHED_PROMPT) for _ in range(max(sizes.batch_sizes))]
    samples = []
    for sequences in sizes.batch_sizes:
        tokens = min(sizes.batch_tokens, station.session.context_tokens // sequences - _BATCHED_PROMPT)
        if tokens >= _LEAST_BATCHED:
            samples.append(_together(station, turn, texts[:sequences], tokens))
    return samples


def _together(station: Loaded, turn: int, texts: Sequence[str], tokens: int) -> Sample:
    """Total tokens/s. The prompts are in the cache, so that decoding alone is measured."""
    sequences = len(texts)
    station.session.generate(texts, 1)

    def ours() -> float:
        timings = station.session.generate(texts, tokens)
        return max(timing.end_s for timing in timings) - min(timing.prompt_s for timing in timings)

    seconds, theirs = station.both(
        turn, ours, lambda bare: bare.generate(texts, [_BATCHED_PROMPT] * sequences, tokens).decode_s
    )
    total = sequences * (tokens - 1)
    return Sample(batched_name(sequences), total / seconds, None if theirs is None else total / theirs)


def documents(station: Served, turn: int) -> Sequence[Sample]:
    """Answers to several documents through the public call; the bare library takes one after another."""
    sizes, ai = station.target.sizes, station.ai
    texts = [station.document(sizes.document_tokens) for _ in range(sizes.documents)]
    lengths = [ai.count_tokens([Message("user", text)]) for text in texts]

    def ours() -> float:
        start = time.perf_counter()
        answers = ai.generate_many(texts, max_tokens=sizes.answer_tokens, temperature=0, ignore_eos=True)
        assert sum(1 for _ in answers) == len(texts)
        return 60 * len(texts) / (time.perf_counter() - start)

    def theirs(bare: BareLibrary) -> float:
        start = time.perf_counter()
        for text, length in zip(texts, lengths, strict=True):
            bare.generate([text], [length], sizes.answer_tokens)
        return 60 * len(texts) / (time.perf_counter() - start)

    return [Sample("documents_per_minute", *station.both(turn, ours, theirs))]


def streamed(station: Served, turn: int) -> Sequence[Sample]:
    """One greedy stream of an app, through the public call."""
    return [_stream(station, turn, "streamed_tokens_per_s", sampled=False)]


def sampled(station: Served, turn: int) -> Sequence[Sample]:
    """The same with the client's default sampling; the bare library uses its own samplers, set alike."""
    return [_stream(station, turn, "sampled_tokens_per_s", sampled=True)]


def schema(station: Served, turn: int) -> Sequence[Sample]:
    """The same held to a JSON schema, greedily; the bare library writes what it likes."""
    return [
        _stream(station, turn, "schema_tokens_per_s", sampled=False, form=endless(station.target.sizes.decode_tokens))
    ]


def _stream(
    station: Served, turn: int, figure: str, *, sampled: bool, form: Mapping[str, JsonValue] | None = None
) -> Sample:
    sizes = station.target.sizes
    text = station.document(sizes.decode_prompt_tokens)
    length = station.ai.count_tokens([Message("user", text)])
    speed, theirs = station.both(
        turn,
        lambda: stream_speed(station.ai, text, sizes.decode_tokens, sampled=sampled, form=form),
        lambda bare: (
            (sizes.decode_tokens - 1) / bare.generate([text], [length], sizes.decode_tokens, sampled=sampled).decode_s
        ),
    )
    return Sample(figure, speed, theirs)


@dataclass(frozen=True, slots=True)
class Cold:
    """One question to a new app with a new worker: when which stage was reached, and the most memory they had."""

    began: float  # on the clock of `times`
    times: Mapping[str, float]
    prompt_tokens: int
    app_bytes: int
    worker_bytes: int
    shared_bytes: int  # counted in both

    @property
    def memory(self) -> Sequence[Sample]:
        """The figures of memory. Each had its most at its own time, so that together it was at most this much."""
        return [
            Sample("peak_memory_bytes", self.app_bytes + self.worker_bytes - self.shared_bytes),
            Sample("peak_worker_bytes", self.worker_bytes),
            Sample("peak_app_bytes", self.app_bytes),
        ]


def ask_cold(target: Target, text: str) -> Cold:
    """Start an app process that asks one question, and end it."""
    conditions = target.conditions
    began = time.monotonic()
    with Child.of_module("ondevice_sdk.bench.app", environment={"ONDEVICE_HOME": str(target.store.root)}) as app:
        app.tell(
            model=target.subject.model,
            privacy=conditions.privacy,
            backends=conditions.backends,
            context=conditions.context_tokens,
            threads=conditions.threads,
            prompt=text,
            count=target.sizes.answer_tokens,
        )
        answer = app.hear()
        workers = children(app.pid)
        app_bytes, worker_bytes = peak_bytes(app.pid), sum(map(peak_bytes, workers))
        shared = shared_bytes([app.pid, *workers])
    times = {name: float(value) for name, value in answer["times"].items()}
    return Cold(began, times, int(answer["prompt_tokens"]), app_bytes, worker_bytes, shared)


def cold_start(station: Station, turn: int) -> Sequence[Sample]:  # noqa: ARG001 - the app goes first: it counts the prompt
    """A new app process, a new worker, the model loaded, the first answer; and the memory that took."""
    target = station.target
    text = prompts.words(target.sizes.first_token_prompt_tokens, station.seed())
    cold = ask_cold(target, text)
    times = cold.times
    library_s = library_bytes = None
    if target.compared:
        with target.bare() as bare:
            loop = bare.generate([text], [cold.prompt_tokens], target.sizes.answer_tokens)
            library_s = bare.import_s + bare.load_s + loop.prompt_s
            library_bytes = float(peak_bytes(bare.pid))
    loading = times.get("loading", times["loaded"])
    memory, *parts = cold.memory
    return [
        Sample("first_token_cold_s", times["first"] - times["told"], library_s),
        Sample("app_import_s", times["imported"] - cold.began),
        Sample("choose_s", times["chosen"] - times["told"]),
        Sample("seal_s", _seal(target)),
        Sample("worker_start_s", loading - times["chosen"]),
        Sample("load_s", times["loaded"] - loading),
        Sample("first_prompt_s", times["first"] - times["loaded"]),
        replace(memory, library=library_bytes),
        *parts,
    ]


def _seal(target: Target) -> float:
    """Seconds from the start of a worker process until it is sealed and verified, before it imports anything."""
    began = time.perf_counter()
    process = WorkerProcess(None, target.conditions.privacy)
    try:
        sealed = seal(Channel(process), target.conditions.privacy, read=(), role="function")
        seconds = time.perf_counter() - began
        sealed.close()
        return seconds
    finally:
        process.dispose()


LOADED: Final[Sequence[Measure[Loaded]]] = (
    Measure("prompt", loaded, prompt),
    Measure("decode", loaded, decode),
    Measure("first_token", loaded, first_token),
    Measure("batched", loaded, batched, 0.35),
)
SERVED: Final[Sequence[Measure[Served]]] = (
    Measure("documents", served, documents, 0.35, warm_up=False),
    Measure("streamed", served, streamed),
    Measure("sampled", served, sampled),
    Measure("schema", served, schema),
)
COLD: Final[Sequence[Measure[Station]]] = (Measure("cold", nothing_loaded, cold_start, 0.5),)


def rounds(measure: Measure[S], pairs: int) -> int:
    """How many samples: a share of the pairs, but three if there are so many."""
    return min(pairs, max(3, round(measure.share * pairs)))
