"""How much faster a copy of a model is than its source: both in one sealed worker, in turns.

Measured through the engine that serves requests, so that each figure has in it what a request pays.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from ondevice_sdk.backends.api import (
    GREEDY,
    Done,
    Engine,
    Failed,
    Generate,
    Generated,
    LoadOptions,
    Raw,
    Request,
    Result,
    Segment,
    Tokenize,
    Tokenized,
    Usage,
)
from ondevice_sdk.errors import LoadFailed, OnDeviceError
from ondevice_sdk.quantise.logits import ModelToLoad, local_model
from ondevice_sdk.runtime import protocol
from ondevice_sdk.runtime.loading import load_engine
from ondevice_sdk.types import JsonValue

ENTRY: Final = "ondevice_sdk.quantise.speed:measure"
CONTEXT: Final = 2048  # tokens, of all sequences
SEQUENCES: Final = 8
LEAST_ROUNDS: Final = 3
MOST_ROUNDS: Final = 9
_PROMPT: Final = 400  # tokens of the long prompt, about
_SHORT: Final = 16
_TOKENS: Final = 24  # written by each sequence
_BUDGET: Final = 512  # prompt tokens of a step


@dataclass(frozen=True, slots=True)
class Speeds:
    """Tokens/s of one round: of a prompt of about 400, of one stream after it, of eight streams together."""

    prompt: float
    decode: float
    batched: float


@dataclass(frozen=True, slots=True)
class Round:
    """What the copy and its source did one after the other."""

    copy: Speeds
    source: Speeds


def measure(
    *, copy: ModelToLoad, source: ModelToLoad, text: str, threads: int, seconds: float
) -> Generator[float, None, dict[str, JsonValue]]:
    """Load both and let them run in turns; yields the share of the time that has passed.

    The answer has either `rounds`, six speeds each, or `error`, that of the SDK.
    """
    try:
        options = LoadOptions(context_tokens=CONTEXT, max_sequences=SEQUENCES, threads=threads)
        rounds: list[JsonValue] = []
        with ExitStack() as stack:
            tracks = [_Track(_engine(each, options, stack), text) for each in (copy, source)]
            for track in tracks:  # what is only slow the first time
                track.warm()
            began = time.monotonic()
            while len(rounds) < MOST_ROUNDS:
                # The order changes, so that what drifts meanwhile favours neither.
                order = (0, 1) if len(rounds) % 2 == 0 else (1, 0)
                speeds = {at: tracks[at].run() for at in order}
                rounds.append([figure for at in (0, 1) for figure in dataclasses.astuple(speeds[at])])
                passed = time.monotonic() - began
                if len(rounds) >= LEAST_ROUNDS and passed * (1 + 1 / len(rounds)) > seconds:
                    break
                yield min(0.99, max(passed / seconds, len(rounds) / MOST_ROUNDS))
        return {"rounds": rounds}
    except OnDeviceError as error:
        return {"error": dataclasses.asdict(protocol.describe(error))}


def read_rounds(value: Mapping[str, JsonValue]) -> tuple[Round, ...] | None:
    """The rounds in the answer of a worker, which is not trusted; None: it is no answer."""
    rows = value.get("rounds")
    if not isinstance(rows, list) or not LEAST_ROUNDS <= len(rows) <= MOST_ROUNDS:
        return None
    made = []
    for row in rows:
        if not isinstance(row, list) or len(row) != 6:
            return None
        numbers = [each for each in row if type(each) is float and math.isfinite(each) and each > 0]
        if len(numbers) != 6:
            return None
        made.append(Round(Speeds(*numbers[:3]), Speeds(*numbers[3:])))
    return tuple(made)


def _engine(wanted: ModelToLoad, options: LoadOptions, stack: ExitStack) -> Engine:
    engine = load_engine(wanted["entry"], local_model(wanted["model"]), options, speculate=False)
    stack.callback(engine.close)
    return engine


class _Track:
    """One of the two, and how it runs."""

    def __init__(self, engine: Engine, text: str) -> None:
        self._engine = engine
        self._text = text
        self._asked = 0
        self._characters = 1.0  # of a token

    def warm(self) -> None:
        (counted,) = (result for result in self._ask([Tokenize((self._text,))]) if isinstance(result, Tokenized))
        self._characters = len(self._text) / counted.counts[0]
        self._generate([self._prompt(_SHORT)] * 2, 4)

    def run(self) -> Speeds:
        (long,) = self._generate([self._prompt(_PROMPT)], _TOKENS)
        many = self._generate([self._prompt(_SHORT) for _ in range(SEQUENCES)], _TOKENS)
        return Speeds(long.prompt_tokens / long.prefill_s, _decoded(long), sum(map(_decoded, many)))

    def _prompt(self, tokens: int) -> str:
        """A text that shares no beginning with the ones before, so that nothing of it is known already."""
        self._asked += 1
        length = int(tokens * self._characters)
        start = self._asked * 97 % max(1, len(self._text) - length)
        return f"{self._asked} {self._text[start : start + length]}"

    def _generate(self, prompts: Sequence[str], tokens: int) -> list[Usage]:
        requests = [Generate(Raw((Segment(prompt),)), tokens, GREEDY, ignore_eos=True) for prompt in prompts]
        usages = [result.usage for result in self._ask(requests) if isinstance(result, Generated)]
        if len(usages) != len(prompts) or any(min(each.prefill_s, each.decode_s) <= 0 for each in usages):
            raise LoadFailed("the model gave no result that could be timed")
        return usages

    def _ask(self, requests: Sequence[Request]) -> list[Result]:
        for request in requests:
            self._asked += 1
            self._engine.add_request(str(self._asked), request)
        results: list[Result] = []
        while self._engine.busy:
            for event in self._engine.step(_BUDGET):
                if isinstance(event, Failed):
                    raise LoadFailed(f"the model could not be run: {event.error.message}")
                if isinstance(event, Done):
                    results.append(event.result)
        return results


def _decoded(usage: Usage) -> float:
    """Tokens/s after the first, which the prompt gives."""
    return (usage.completion_tokens - 1) / usage.decode_s
