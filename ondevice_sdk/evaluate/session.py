"""The calls of an evaluation: many at a time through the public client, timed, with failures counted by kind."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from ondevice_sdk.client import Client
from ondevice_sdk.errors import ClientClosed, OnDeviceError, WorkerCrashed
from ondevice_sdk.types import Analysis, Generation, JsonValue, Summary, Tool

T = TypeVar("T")
P = TypeVar("P")

_THREADS: Final = 4
_MOST_CRASHES: Final = 3  # of the calls of one set
_PATIENCE_S: Final = 300.0  # for one value of a schema: some schemas keep the mask of every token busy


@dataclass(frozen=True, slots=True)
class Prompt:
    """A naive prompt. `template` has `{text}` and may have what else the family gives."""

    id: str
    template: str


@dataclass(frozen=True, slots=True)
class Answers(Generic[T]):
    """The results in the order of the rows, None where a call failed."""

    values: list[T | None] = field(repr=False)
    seconds: float
    failures: Mapping[str, int]  # code of the error -> how often

    @property
    def note(self) -> str:
        """The failures in words; empty without any."""
        if not self.failures:
            return ""
        kinds = ", ".join(f"{count} {code}" for code, count in sorted(self.failures.items()))
        return f"{sum(self.failures.values())} of {len(self.values)} calls failed and count as wrong ({kinds})"


@dataclass(frozen=True, slots=True)
class Asked:
    """The answers to naive prompts by their ids, none where these are not wanted. One that failed is empty."""

    answers: Mapping[str, list[str]] = field(repr=False)
    seconds: float = 0.0
    failed: int = 0

    def noted(self, note: str) -> str:
        """A note on the SDK's own calls, with what is to be said of these."""
        failed = f"{self.failed} naive answers failed and count as wrong" if self.failed else ""
        return "; ".join(part for part in (note, failed) if part)


@dataclass(frozen=True, slots=True)
class Session:
    """The client of a run, whether naive prompts are asked too, and whom to tell of each finished call."""

    client: Client
    naive: bool = True
    tick: Callable[[], None] = field(default=lambda: None)

    def analyse(
        self, texts: Sequence[str], form: Any, *, examples: Sequence[tuple[str, Any]] = ()
    ) -> Answers[Analysis[Any]]:
        """One analysis per text."""
        made: Iterator[Any] = self.client.analyse_many(texts, form, examples=examples, on_error="return")
        return self._collect(made)

    def analyse_each(self, pairs: Sequence[tuple[str, Mapping[str, JsonValue]]]) -> Answers[Analysis[JsonValue]]:
        """One analysis per text, each in a form of its own; texts of one form go together."""
        forms: dict[str, list[int]] = {}
        for index, (_, form) in enumerate(pairs):
            forms.setdefault(repr(form), []).append(index)
        values: list[Analysis[JsonValue] | None] = [None] * len(pairs)
        seconds = 0.0
        failures: Counter[str] = Counter()
        for indexes in forms.values():
            answers = self.analyse([pairs[index][0] for index in indexes], pairs[indexes[0]][1])
            for index, value in zip(indexes, answers.values, strict=True):
                values[index] = value
            seconds += answers.seconds
            failures.update(answers.failures)
        return Answers(values, seconds, dict(failures))

    def summarise(self, texts: Sequence[str], *, words: int, contexts: Sequence[str | None]) -> Answers[Summary]:
        """One summary per text within a number of words, each for what its reader wants to know."""
        if not any(contexts):
            made: Iterator[Any] = self.client.summarise_many(texts, style="tldr", length=words, on_error="return")
            return self._collect(made)

        def one(pair: tuple[str, str | None]) -> Summary:
            return self.client.summarise(pair[0], style="tldr", length=words, context=pair[1])

        return self._collect(_at_once(one, list(zip(texts, contexts, strict=True))))

    def generate(self, prompts: Sequence[str], max_tokens: int) -> Answers[Generation[str]]:
        """The likeliest words after each prompt."""
        made: Iterator[Any] = self.client.generate_many(
            prompts, max_tokens=max_tokens, temperature=0, on_error="return"
        )
        return self._collect(made)

    def call(self, asked: Sequence[tuple[str, Sequence[Tool]]], max_tokens: int) -> Answers[Generation[str]]:
        """What each request is answered with by its tools, or with words."""

        def one(pair: tuple[str, Sequence[Tool]]) -> Generation[str]:
            return self.client.generate(pair[0], tools=pair[1], max_tokens=max_tokens, temperature=0)

        return self._collect(_at_once(one, asked))

    def fill(
        self, prompts: Sequence[tuple[str, Mapping[str, JsonValue]]], max_tokens: int
    ) -> tuple[list[Generation[JsonValue] | OnDeviceError], float]:
        """One JSON value per prompt and schema, or the error in its place, and the seconds of all."""

        def one(pair: tuple[str, Mapping[str, JsonValue]]) -> Generation[JsonValue]:
            return self.client.generate(
                pair[0], output_type=pair[1], max_tokens=max_tokens, temperature=0, timeout=_PATIENCE_S
            )

        found: list[Generation[JsonValue] | OnDeviceError] = []
        started = time.perf_counter()
        for result in _at_once(one, prompts):
            found.append(result)
            if isinstance(result, OnDeviceError):
                _raise_if_hopeless(result, found)
            self.tick()
        return found, time.perf_counter() - started

    def ask(self, prompts: Sequence[Prompt], fills: Sequence[Mapping[str, str]], max_tokens: int) -> Asked:
        """Ask the model itself, with each of the prompts on every row."""
        asked = prompts if self.naive else ()
        # All at once, so that few rows fill a batch too; prompts on one text side by side, which may share its prefix.
        answers = self.generate([prompt.template.format(**fill) for fill in fills for prompt in asked], max_tokens)
        said = [answer.text if answer is not None else "" for answer in answers.values]
        found = {prompt.id: said[index :: len(asked)] for index, prompt in enumerate(asked)}
        return Asked(found, answers.seconds, sum(answers.failures.values()))

    def _collect(self, results: Iterable[T | OnDeviceError]) -> Answers[T]:
        values: list[T | None] = []
        seen: list[OnDeviceError] = []
        failures: Counter[str] = Counter()
        started = time.perf_counter()
        for result in results:
            if isinstance(result, OnDeviceError):
                seen.append(result)
                failures[result.code] += 1
                values.append(None)
                _raise_if_hopeless(result, seen)
            else:
                values.append(result)
            self.tick()
        return Answers(values, time.perf_counter() - started, dict(failures))


def _raise_if_hopeless(error: OnDeviceError, results: Sequence[object]) -> None:
    """Go on after an error of one row; but not without a client, nor with a worker that crashes again and again."""
    crashes = sum(isinstance(result, WorkerCrashed) for result in results)
    if isinstance(error, ClientClosed) or crashes > _MOST_CRASHES:
        raise error


def _at_once(call: Callable[[P], T], items: Sequence[P]) -> Iterator[T | OnDeviceError]:
    """Results in order of calls that the `_many` methods cannot make; the client batches those of several threads."""

    def result(item: P) -> T | OnDeviceError:
        try:
            return call(item)
        except OnDeviceError as error:
            return error

    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="ondevice-evaluate")
    try:
        yield from pool.map(result, items)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # after Ctrl-C the client is closed, which ends the calls
