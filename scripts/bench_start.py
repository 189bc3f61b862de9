"""What a start consists of, measured apart: spawn, seal, import of the library, load, and the first prompt.

First an empty worker of each privacy level, until it is sealed and verified; then workers with a model, strict and
with privacy off in turns, until the first token of a prompt of 128 tokens. All in seconds that pass for the app.
`ondevice bench --measure cold` has the same seen from a new app process, with the choice of the model.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import get_args

import figures

from ondevice_sdk import intervals
from ondevice_sdk.bench import Subject, find, prompts
from ondevice_sdk.bench.goals import Row
from ondevice_sdk.bench.session import Session
from ondevice_sdk.bench.stations import Target
from ondevice_sdk.runtime import open_executor
from ondevice_sdk.runtime.channel import Channel
from ondevice_sdk.runtime.child import WorkerProcess
from ondevice_sdk.runtime.handshake import seal
from ondevice_sdk.types import PrivacyLevel

PROMPT = 128  # tokens
LEVELS: Sequence[PrivacyLevel] = ("strict", "off")


def empty(level: PrivacyLevel) -> float:
    """Seconds from the start of a worker that loads nothing until it is told to go on."""
    began = time.perf_counter()
    process = WorkerProcess(None, level)
    try:
        sealed = seal(Channel(process), level, read=(), role="function")
        seconds = time.perf_counter() - began
        sealed.close()
        return seconds
    finally:
        process.dispose()


def with_model(target: Target, level: PrivacyLevel, seed: int) -> dict[str, float]:
    """Seconds of each part of a start up to the first token."""
    began = time.perf_counter()
    executor = open_executor(
        target.chosen.entry, target.chosen.model, target.chosen.options, isolation="process", privacy=level
    )
    try:
        loaded = time.perf_counter()
        Session(executor).generate([prompts.words(PROMPT, seed)], 1)
        first = time.perf_counter()
        parts = executor.loaded.start
        return {
            "spawn": parts.spawn_s,
            "seal": parts.seal_s,
            "import": parts.import_s,
            "load": parts.load_s,
            "the rest until it is ready": loaded - began - parts.total_s,
            f"first token of {PROMPT} words": first - loaded,
            "all": first - began,
        }
    finally:
        executor.close()


def row(name: str, model: str, samples: Sequence[float]) -> Row:
    ninth = f"p90 {statistics.quantiles(samples, n=10)[-1]:.3f} s" if len(samples) > 1 else ""
    return Row(name, model, intervals.median(samples), len(samples), ours=ninth, unit="s")


def empty_workers(options: argparse.Namespace, table: figures.Table) -> None:
    """All levels in turns."""
    levels: Sequence[PrivacyLevel] = get_args(PrivacyLevel)
    times: dict[PrivacyLevel, list[float]] = {level: [] for level in levels}
    for turn in range(-1, options.pairs):  # the first warms the disk's caches
        for place in range(len(levels)):
            level = levels[(place + turn) % len(levels)]
            seconds = empty(level)
            if turn >= 0:
                times[level].append(seconds)
    for level, samples in times.items():
        table.add(row(f"start of an empty worker, {level}", "", samples))


def models(subject: Subject, options: argparse.Namespace, table: figures.Table) -> None:
    """Strict and off in turns."""
    target = figures.target(subject)
    times: dict[PrivacyLevel, list[dict[str, float]]] = {level: [] for level in LEVELS}
    for turn in range(-1, options.pairs):
        for level in LEVELS if turn % 2 else reversed(LEVELS):
            parts = with_model(target, level, 2 * turn)
            if turn >= 0:
                times[level].append(parts)
        if turn >= 0:
            last = ", ".join(f"{name} {seconds:.3f}" for name, seconds in times["strict"][-1].items())
            figures.tell(f"{subject.label} {turn + 1}/{options.pairs}: {last}")
    for level, samples in times.items():
        for name in samples[0]:
            table.add(row(f"{level}: {name}", subject.label, [sample[name] for sample in samples]))


def main() -> None:
    parser = figures.parser(__doc__, pairs=20)
    options = parser.parse_args()
    if options.quick:
        options.pairs = min(options.pairs, 2)
    table = figures.Table(as_json=options.json)
    subjects = find(options.models)
    empty_workers(options, table)
    for subject in subjects:
        models(subject, options, table)
    table.close()


if __name__ == "__main__":
    figures.run(main)
