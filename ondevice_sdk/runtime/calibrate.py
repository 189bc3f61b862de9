"""What this processor needs per weight, layer and token with a backend: measured with small random models, in a worker.

Everything is measured through the engine that serves requests, so that each figure has in it what a request pays: the
library's kernels and layouts, scheduling, and choosing the token. A model with two layers of the width of those of a
model of a billion parameters gives the time per weight of each format; narrow ones, whose weights cost next to nothing,
give what layers, tokens and attention cost besides.
"""

from __future__ import annotations

import importlib
import os
import statistics
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ondevice_sdk.backends.api import (
    GREEDY,
    Done,
    Engine,
    Failed,
    Generate,
    Generated,
    LoadOptions,
    LocalModel,
    Raw,
    Segment,
)
from ondevice_sdk.backends.calibration import NARROW_WIDTH, WIDTH, entries, prompt_weights
from ondevice_sdk.catalogue import layout
from ondevice_sdk.errors import LoadFailed
from ondevice_sdk.runtime.loading import load_engine
from ondevice_sdk.types import JsonValue, ModelShape

_PROMPT: Final = 100  # characters of a prompt, each a token or more
_LONG: Final = 700
_TOKENS: Final = 12
_READ: Final = 100_000_000  # bytes of weights, several times what processors cache
_SCALED: Final = 1  # formats that are measured with every number of threads, the others with the first only
# Formats that are measured however long it takes: in a slow hour three of nine fitted into the time, and a prompt in a
# format that was guessed from another one was predicted 74 percent too fast.
_ALWAYS: Final = 5
_HEAD_DIM: Final = 64
_VOCABULARY: Final = 512


def _shape(layers: int, width: int, feed_forward: int, heads: int, kv_heads: int, vocabulary: int) -> ModelShape:
    matrices = width * _HEAD_DIM * (2 * heads + 2 * kv_heads) + 3 * width * feed_forward
    parameters = layers * matrices + vocabulary * width
    return ModelShape(parameters, layers, width, heads, kv_heads, _HEAD_DIM, feed_forward, vocabulary, 4096)


def _wide(kind: str) -> ModelShape:
    """As wide as a model of a billion parameters."""
    return _filling(kind, WIDTH, 8192, 32, 8)


def _narrow(kind: str) -> ModelShape:
    """As narrow as a model of a hundred million parameters."""
    return _filling(kind, NARROW_WIDTH, 1536, 8, 4)


def _filling(kind: str, width: int, feed_forward: int, heads: int, kv_heads: int) -> ModelShape:
    """With layers enough that the weights come from memory, and two: a prompt leaves out most of the last one."""
    one, two = (_shape(layers, width, feed_forward, heads, kv_heads, _VOCABULARY) for layers in (1, 2))
    values, size = layout.BLOCKS.get(kind, (1, 1))
    layers = -(-_READ // ((two.parameters - one.parameters) * size // values))
    return _shape(max(2, layers), width, feed_forward, heads, kv_heads, _VOCABULARY)


DEEP: Final = _shape(16, 256, 256, 1, 1, _VOCABULARY)
SHALLOW: Final = _shape(2, 256, 256, 1, 1, _VOCABULARY)
WORDY: Final = _shape(2, 256, 256, 1, 1, 65_536)
ATTENTIVE: Final = _shape(4, 256, 256, 32, 8, _VOCABULARY)


def measure(
    entry: str, writer: str, model_format: str, formats: list[str], threads: list[int], seconds: float
) -> Generator[float, None, dict[str, JsonValue]]:
    """Measure a backend with these numbers of threads, the first of which is the one that models run with.

    Yields the share of the work that is done, and returns the fields of `backends.calibration.Calibration` that are
    measured. What does not fit into the time is left out, the last formats first, but not the first five.

    Args:
        entry: the backend as "module:attribute".
        writer: its function that makes a random model, as "module:function"; see `Calibrator`.
        model_format: of the files that it makes.
        formats: of weights, the most important first.
        threads: numbers of threads.
        seconds: about how long it may take.
    """
    end = time.monotonic() + seconds
    bed = _Bed(entry, writer, model_format)
    plain, main = formats[0], threads[0]
    small = {shape: bed.small_s(shape, plain, main) for shape in (SHALLOW, DEEP, WORDY)}
    yield 0.1
    attention = bed.attention_s(plain, main)
    narrow = bed.weights_s(_narrow(plain), plain, main)
    few = bed.few_rows(plain, main)
    yield 0.2
    wide: dict[tuple[str, int], _Seconds] = {}
    for number, kind in enumerate(formats, 1):
        began = time.monotonic()
        for count in threads if number <= _SCALED else threads[:1]:
            wide[kind, count] = bed.weights_s(_wide(kind), kind, count)
        yield 0.2 + 0.8 * number / len(formats)
        if number >= _ALWAYS and 2 * time.monotonic() - began > end:
            break
    return {**_fit(small, wide, narrow, plain, main), "attention_decode_s": attention.decode,
            "attention_prompt_s": attention.prompt, "few_rows": few, "disturbance": bed.disturbance}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Seconds:
    """Of a token that is decoded, and of each row of a prompt; or of a position that attention looks at in either."""

    decode: float
    prompt: float


def _fit(
    small: Mapping[ModelShape, _Seconds],
    wide: Mapping[tuple[str, int], _Seconds],
    narrow: _Seconds,
    plain: str,
    main: int,
) -> dict[str, JsonValue]:
    """Take the times apart: what layers, passes and rows cost, and the rest is the weights'."""
    shallow, deep, wordy = (small[shape] for shape in (SHALLOW, DEEP, WORDY))
    more = DEEP.layers - SHALLOW.layers
    layer = max(0.0, deep.decode - shallow.decode) / more
    fixed = max(0.0, shallow.decode - SHALLOW.layers * layer)
    shape = _wide(plain)
    products = wide[plain, main].prompt / prompt_weights(shape) * (prompt_weights(DEEP) - prompt_weights(SHALLOW))
    row = max(0.0, (deep.prompt - shallow.prompt - products) / more) / entries(DEEP)

    def read_s(seconds: _Seconds, shape: ModelShape) -> float:
        """Of a weight; none is free: no pass of these models takes less than a millisecond."""
        values = shape.parameters - shape.vocabulary * shape.width
        return max(seconds.decode - fixed - shape.layers * layer, 1e-3) / values

    # Measured to be nearly the same for all formats: 1.3 here.
    slower = max(1.0, read_s(narrow, _narrow(plain)) / read_s(wide[plain, main], _wide(plain)))
    rates: list[JsonValue] = []
    for (kind, count), seconds in wide.items():
        shape = _wide(kind)
        decode = read_s(seconds, shape)
        prompt = (seconds.prompt - shape.layers * row * entries(shape)) / prompt_weights(shape)
        rates.append(
            {
                "format": kind,
                "threads": count,
                "decode_s": decode,
                "narrow_s": decode * slower,
                "prompt_s": max(prompt, decode / 1000),
            }
        )
    return {
        "rates": rates,
        "pass_s": fixed,
        "layer_s": layer,
        "row_s": row,
        "vocabulary_s": max(0.0, wordy.decode - shallow.decode) / (WORDY.vocabulary - SHALLOW.vocabulary),
    }


@dataclass(frozen=True, slots=True)
class _Run:
    """Seconds of one prompt, and of each token after the first."""

    prompt_tokens: int
    prefill_s: float
    steps: list[float]


class _Bed:
    """Makes random models for a backend and times them."""

    def __init__(self, entry: str, writer: str, model_format: str) -> None:
        module, _, function = writer.partition(":")
        self._entry = entry
        self._write: Callable[[Path, ModelShape, str], None] = getattr(importlib.import_module(module), function)
        self._format = model_format
        self._asked = 0
        self._disturbed: list[float] = []

    def small_s(self, shape: ModelShape, kind: str, threads: int) -> _Seconds:
        """A model that is too small for its weights to cost much."""
        with self._engine(shape, kind, threads, 512) as engine:
            self._run(engine, 8, 2)
            runs = [self._run(engine, _PROMPT, 3 * _TOKENS) for _ in range(3)]
        decode = self._typical([step for run in runs for step in run.steps])
        return _Seconds(decode, min(run.prefill_s / run.prompt_tokens for run in runs))

    def weights_s(self, shape: ModelShape, kind: str, threads: int) -> _Seconds:
        """A model of which nearly all time goes to its weights."""
        with self._engine(shape, kind, threads, 512) as engine:
            self._run(engine, 8, 2)
            run = self._run(engine, _PROMPT, _TOKENS + 4)
        return _Seconds(self._typical(run.steps), run.prefill_s / run.prompt_tokens)

    def few_rows(self, kind: str, threads: int) -> float:
        """By how much a row costs more in passes of a few rows than in those of many."""
        with self._engine(_wide(kind), kind, threads, 512) as engine:
            self._run(engine, 8, 2)
            many, few = self._run(engine, _PROMPT, 2), self._run(engine, _PROMPT // 2, 2, budget=8)
        return max(1.0, few.prefill_s / few.prompt_tokens / (many.prefill_s / many.prompt_tokens))

    def attention_s(self, kind: str, threads: int) -> _Seconds:
        """Attention alone: per position, layer and dimension of all heads."""
        dimensions = ATTENTIVE.layers * ATTENTIVE.heads * ATTENTIVE.head_dim
        with self._engine(ATTENTIVE, kind, threads, 4096) as engine:
            self._run(engine, 8, 2)
            early = self._typical(self._run(engine, 8, 2 * _TOKENS).steps)
            short, long = self._run(engine, _PROMPT, 2), self._run(engine, _LONG, 2 * _TOKENS)
        beyond = long.prefill_s - short.prefill_s / short.prompt_tokens * long.prompt_tokens
        looked_at = dimensions * (long.prompt_tokens * (long.prompt_tokens - short.prompt_tokens)) / 2
        late = self._typical(long.steps)
        return _Seconds(max(0.0, late - early) / (dimensions * long.prompt_tokens), max(0.0, beyond) / looked_at)

    def _typical(self, steps: Sequence[float]) -> float:
        """What a step takes when nothing disturbs it: the lower quartile, as whatever disturbs only adds."""
        low, middle, _ = statistics.quantiles(steps, n=4)
        self._disturbed.append(middle / low)
        return low

    @property
    def disturbance(self) -> float:
        """By how much the usual step took longer than the undisturbed one: 1 on a quiet machine."""
        return statistics.median(self._disturbed)

    def _run(self, engine: Engine, prompt: int, tokens: int, *, budget: int = 512) -> _Run:
        """Generate after a prompt of about so many tokens that shares no beginning with the ones before."""
        self._asked += 1
        name = f"{self._asked:04}"
        text = (f"{name} " * (prompt // len(name) + 1))[:prompt]
        engine.add_request(name, Generate(Raw((Segment(text),)), tokens, GREEDY, ignore_eos=True))
        steps: list[float] = []
        while engine.busy:
            began = time.perf_counter()
            events = engine.step(budget)
            steps.append(time.perf_counter() - began)
            for event in events:
                if isinstance(event, Failed):
                    raise LoadFailed(f"a random model could not be run: {event.error.message}")
                if isinstance(event, Done) and isinstance(event.result, Generated):
                    usage = event.result.usage
                    return _Run(usage.prompt_tokens, usage.prefill_s, steps[-(tokens - 1) :])
        raise LoadFailed("a random model gave no result")

    @contextmanager
    def _engine(self, shape: ModelShape, kind: str, threads: int, context: int) -> Iterator[Engine]:
        path = Path(os.environ["TMPDIR"]) / f"calibration-{self._asked}.{self._format}"
        self._write(path, shape, kind)
        try:
            model = LocalModel("random", "", self._format, str(path), "")
            options = LoadOptions(context, max_sequences=1, threads=threads)
            engine = load_engine(self._entry, model, options, speculate=False)  # a step is a token
        finally:
            path.unlink()  # what is mapped stays readable
        try:
            yield engine
        finally:
            engine.close()
