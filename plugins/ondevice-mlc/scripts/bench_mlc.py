"""MLC beside llama.cpp on one model, in pairs one after the other in one run; and how long compiling takes.

`python scripts/bench_mlc.py [GGUF] [--to int8] [--pairs 9]`: without a path SmolLM2 in int4, as it is installed. Each
pair runs one after the other, the first of them in turns, so that what disturbs the machine disturbs both. Shown are
the medians of tokens/s, and of the ratios within the pairs with the middle half of them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ondevice_mlc import MlcBackend
from ondevice_mlc.build import make
from ondevice_sdk.backends.api import Batch, LoadOptions, LocalModel, ModelRunner
from ondevice_sdk.backends.llama_cpp import LlamaCppBackend
from ondevice_sdk.store import Store

PROMPT, ANSWER, STREAMS = 512, 64, 8
REST_S = 0.3  # between two measurements: TVM's threads look for work for 0.1 s before they sleep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf", nargs="?")
    parser.add_argument("--to", default="int4")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    path = arguments.gguf or Store.open().resolve("smollm2-135m-instruct:int4").path
    options = LoadOptions(context_tokens=2048, max_sequences=STREAMS, threads=arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        list(make(source=path, folder=folder, precision=arguments.to, target=None, threads=1))
        print(f"compiling to {arguments.to}: {time.perf_counter() - began:.1f} s", flush=True)
        first = str(Path(folder) / "mlc-chat-config.json")
        began = time.perf_counter()
        mlc = MlcBackend().load(LocalModel("m", arguments.to, "mlc", first, ""), options)
        print(f"loading: {time.perf_counter() - began:.2f} s", flush=True)
        other = LlamaCppBackend().load(LocalModel("m", "int4", "gguf", path, ""), options)
        assert isinstance(other, ModelRunner)
        print(f"tokens/s with {arguments.threads} threads: prompt of {PROMPT}, answers of {ANSWER} tokens")
        print(f"{'':24}{'MLC':>8}{'llama.cpp':>12}{'ratio':>8}")
        for name, measure in (
            ("prompt", prompt),
            ("one stream", lambda runner: decode(runner, 1)),
            (f"{STREAMS} streams", lambda runner: decode(runner, STREAMS)),
        ):
            compare(name, measure, mlc, other, arguments.pairs)
        mlc.close()
        other.close()


def compare(
    name: str, measure: Callable[[ModelRunner], float], ours: ModelRunner, theirs: ModelRunner, pairs: int
) -> None:
    """Print a line."""
    found: list[tuple[float, float]] = []
    for pair in range(pairs + 1):
        speeds = {}
        for runner in (ours, theirs) if pair % 2 else (theirs, ours):
            time.sleep(REST_S)
            speeds[runner] = measure(runner)
        if pair:  # the first warms up
            found.append((speeds[ours], speeds[theirs]))
    ratios = sorted(one / two for one, two in found)
    low, _, high = statistics.quantiles(ratios, n=4)
    mine, other = (statistics.median(each) for each in zip(*found, strict=True))
    print(f"{name:24}{mine:8.0f}{other:12.0f}{statistics.median(ratios):8.2f}  ({low:.2f} to {high:.2f})", flush=True)


def prompt(runner: ModelRunner) -> float:
    """Tokens/s of reading a prompt."""
    runner.kv_remove(0, 0, None)
    began = time.perf_counter()
    for start in range(0, PROMPT, runner.max_batch_tokens):
        batch = Batch()
        for position in range(start, min(start + runner.max_batch_tokens, PROMPT)):
            batch.add(0, position, 1000 + position, position == PROMPT - 1)
        runner.forward(batch)
    return PROMPT / (time.perf_counter() - began)


def decode(runner: ModelRunner, streams: int) -> float:
    """Tokens/s of writing after short prompts, all streams together."""
    for stream in range(streams):
        runner.kv_remove(stream, 0, None)
        batch = Batch()
        for position in range(32):
            batch.add(stream, position, 1000 + position, position == 31)
        runner.forward(batch)
    began = time.perf_counter()
    for position in range(32, 32 + ANSWER):
        batch = Batch()
        for stream in range(streams):
            batch.add(stream, position, 2000 + position, True)
        runner.forward(batch)
    return streams * ANSWER / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
