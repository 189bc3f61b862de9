"""How soon others and a cancel get through while a prompt of 4,000 tokens is read; and two clients at once.

(a) `cancel`: a stream is cancelled at a random moment of its prompt; from `.cancel()` to the end of the stream.
(b) `flow`: two streams write while a third one's prompt is read; the time between two pieces of text of either.
(c) `two`: two clients, each with its worker, write at the same time, beside one alone, in turns.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import figures

from ondevice_sdk import Client, ConfigurationError, GenerationFailed, PromptProgress, intervals
from ondevice_sdk.bench import Subject, find, prompts
from ondevice_sdk.bench.goals import Goal, Row, compared
from ondevice_sdk.bench.streams import stream_speed
from ondevice_sdk.intervals import Interval

PARTS: Final = ("cancel", "flow", "two")
LONGEST_S: Final = 0.3  # of a small model
TRIES: Final = 5  # for a cancel that comes after the prompt
STREAMS: Final = 2


class Documents:
    """Long prompts, each with a new beginning, so that no part of one is found in a cache."""

    def __init__(self, ai: Client, tokens: int) -> None:
        self._text = prompts.exact(lambda texts: [ai.count_tokens(text) for text in texts], tokens - 8, 1, fan=1)
        self._number = 0

    def new(self) -> str:
        """Another one."""
        self._number += 1
        return f"{7919 * self._number} {self._text}"


@dataclass(slots=True)
class Reading:
    """When progress of a prompt was told, and the end, in seconds since the submission."""

    progress: list[float] = field(default_factory=list)
    cancelled_s: float | None = None  # from the cancel to the end

    @property
    def longest_chunk_s(self) -> float:
        """Most time between two signs of progress."""
        return max((after - before for before, after in itertools.pairwise(self.progress)), default=0.0)


def read(ai: Client, document: str, cancel_after: float | None = None) -> Reading:
    """Read a prompt for one token, and cancel meanwhile."""
    reading = Reading()
    told: list[float] = []
    start = time.perf_counter()
    with ai.stream(document, max_tokens=1, temperature=0, ignore_eos=True) as stream:

        def cancel() -> None:
            told.append(time.perf_counter())
            stream.cancel()

        timer = None if cancel_after is None else threading.Timer(cancel_after, cancel)
        if timer is not None:
            timer.start()
        try:
            for event in stream.events():
                if isinstance(event, PromptProgress):
                    reading.progress.append(time.perf_counter() - start)
            end = time.perf_counter()
        finally:
            if timer is not None:
                timer.cancel()
        if stream.result().finish_reason == "cancelled" and told:
            reading.cancelled_s = end - told[0]
    return reading


def cancelling(subject: Subject, ai: Client, documents: Documents, options: argparse.Namespace) -> list[Row]:
    """Cancels at random moments."""
    whole = read(ai, documents.new())
    chance = random.Random(1)
    samples: list[float] = []
    chunks = [whole.longest_chunk_s]
    for _ in range(TRIES * options.pairs):
        if len(samples) == options.pairs:
            break
        reading = read(ai, documents.new(), chance.uniform(0.02, 0.9) * whole.progress[-1])
        chunks.append(reading.longest_chunk_s)
        if reading.cancelled_s is not None:
            samples.append(reading.cancelled_s)
            figures.tell(f"{subject.label} cancel {len(samples)}/{options.pairs}: {samples[-1]:.3f} s")
    if not samples:
        raise ConfigurationError("every prompt was read before it could be cancelled", hint="a longer --document")
    chunk = statistics.median(chunks)
    name = f"cancel while {options.document} tokens are read, from .cancel() to the end"
    small = is_small(subject)
    goal = Goal(LONGEST_S if small else chunk, at_least=False, unit="s")
    most = largest(samples)
    said = f"median {statistics.median(samples):.3f} s, p90 {quantile(samples, 0.9):.3f} s, figure: the longest"
    return [Row(name, subject.label, most, len(samples), goal, said, f"longest chunk {chunk:.3f} s (median)")]


def flowing(subject: Subject, ai: Client, documents: Documents, options: argparse.Namespace) -> list[Row]:
    """Two streams beside a long prompt."""
    gaps: list[list[float]] = [[] for _ in range(STREAMS)]
    reads: list[float] = []
    tokens = max(64, (ai.context_length - options.document - 512) // (STREAMS + 1))
    for turn in range(options.pairs):
        arrivals: list[list[float]] = [[] for _ in range(STREAMS)]
        flow = [threading.Event() for _ in range(STREAMS)]
        over = threading.Event()
        ended = [False] * STREAMS  # by themselves

        def write(
            place: int,
            turn: int,
            arrivals: list[list[float]],
            flow: list[threading.Event],
            over: threading.Event,
            ended: list[bool],
        ) -> None:
            text = f"{turn} {place}: {prompts.words(20, 10_000 + STREAMS * turn + place)}"
            with ai.stream(text, max_tokens=tokens, temperature=0, ignore_eos=True) as stream:
                for _ in stream:
                    arrivals[place].append(time.perf_counter())
                    flow[place].set()
                    if over.is_set():
                        stream.cancel()
                ended[place] = stream.result().finish_reason == "length"

        with ThreadPoolExecutor(STREAMS) as pool:
            writers = [pool.submit(write, place, turn, arrivals, flow, over, ended) for place in range(STREAMS)]
            try:
                for place, writer in enumerate(writers):
                    while not flow[place].wait(0.5):
                        if writer.done():
                            writer.result()
                            raise GenerationFailed("a stream ended before the prompt was read")
                start = time.perf_counter()
                read(ai, documents.new())
                end = time.perf_counter()
            finally:
                over.set()
            for writer in writers:
                writer.result()
        reads.append(end - start)
        for place, times in enumerate(arrivals):
            during = [start, *(now for now in times if start <= now <= end)]
            if times[-1] < end and ended[place]:
                figures.tell(f"  stream {place} ended {end - times[-1]:.1f} s before the prompt was read")
            else:
                during.append(min(now for now in (*times, end) if now >= end))
            gaps[place] += [after - before for before, after in itertools.pairwise(during)]
        longest = ", ".join(f"{max(each):.3f} s" for each in gaps)
        figures.tell(
            f"{subject.label} flow {turn + 1}/{options.pairs}: read in {reads[-1]:.1f} s, longest so far {longest}"
        )
    goal = Goal(LONGEST_S, at_least=False, unit="s") if is_small(subject) else None
    name = f"gap between two pieces of text while {options.document} tokens are read, stream"
    return [
        Row(
            f"{name} {place + 1} of {STREAMS}",
            subject.label,
            largest(each),
            len(each),
            goal,
            f"p50 {quantile(each, 0.5):.3f} s, p99 {quantile(each, 0.99):.3f} s, figure: the longest",
            f"{options.pairs} prompts, each read in {statistics.median(reads):.1f} s",
            "s",
        )
        for place, each in enumerate(gaps)
    ]


def two_clients(subject: Subject, one: Client, options: argparse.Namespace) -> list[Row]:
    """Two clients at once and one alone, in turns."""
    alone: list[float] = []
    both: list[tuple[float, float]] = []
    with Client(subject.model, backends=figures.backends_for(subject.model)) as other, ThreadPoolExecutor(2) as pool:

        def speed(ai: Client) -> float:
            return stream_speed(ai, prompts.words(40, random.getrandbits(30)), options.tokens)

        speed(one)
        speed(other)
        for turn in range(options.pairs):
            for together in (False, True) if turn % 2 else (True, False):
                if together:
                    first, second = pool.map(speed, (one, other))
                    both.append((first, second))
                else:
                    alone.append(speed(one if turn % 4 < 2 else other))
            figures.tell(
                f"{subject.label} two {turn + 1}/{options.pairs}: alone {alone[-1]:.1f}, "
                f"together {both[-1][0]:.1f} and {both[-1][1]:.1f} tokens/s"
            )
    sums = [first + second for first, second in both]
    slower = [min(pair) for pair in both]
    return [
        compared("two clients at once, both together", subject.label, sums, alone, unit="tokens/s", whom="one alone"),
        compared(
            "two clients at once, the slower one", subject.label, slower, alone, unit="tokens/s", whom="one alone"
        ),
    ]


def largest(samples: Sequence[float]) -> Interval:
    """The largest sample, which is what a limit is about; its interval is that of drawing again."""
    return intervals.bootstrap(samples, max)


def quantile(samples: Sequence[float], share: float) -> float:
    return sorted(samples)[min(len(samples) - 1, int(share * len(samples)))]


def is_small(subject: Subject) -> bool:
    """Whether it is the model that the limit in seconds is for."""
    return subject.label.startswith("smollm2-135m")


def main() -> None:
    parser = figures.parser(__doc__, pairs=20)
    parser.add_argument("--document", type=figures.at_least(100), default=4000, help="tokens of the long prompt (4000)")
    parser.add_argument("--tokens", type=figures.at_least(8), default=128, help="that each of two clients writes (128)")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this; may be repeated")
    options = parser.parse_args()
    if options.quick:
        options.pairs, options.document, options.tokens = min(options.pairs, 2), min(options.document, 600), 16
    parts = options.part or PARTS
    table = figures.Table(as_json=options.json)
    for subject in find(options.models):
        with Client(subject.model, backends=figures.backends_for(subject.model)) as ai:
            documents = Documents(ai, options.document)
            read(ai, prompts.words(60, 0))  # to warm up
            if "cancel" in parts:
                table.add(*cancelling(subject, ai, documents, options))
            if "flow" in parts:
                table.add(*flowing(subject, ai, documents, options))
            if "two" in parts:
                table.add(*two_clients(subject, ai, options))
    table.close()


if __name__ == "__main__":
    figures.run(main)
