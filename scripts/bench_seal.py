"""What the sealed worker costs: decode speed sealed beside unsealed, and the time a token takes through the pipes.

Decode: two workers of the same kind, one strict and one with privacy off, decode the same model greedily in turns; the
ratio is taken pair by pair. Pipes: an engine that writes the time at which it made each token, in a thread of this
process and in a sealed worker; the difference of the medians is what worker and pipes add.
Run: `make bench`, or `python scripts/bench_seal.py --pairs 40`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

from ondevice_sdk import Client, intervals
from ondevice_sdk.backends.api import Done, Failed, Generate, LoadOptions, LocalModel, Raw, Segment, TextDelta
from ondevice_sdk.runtime import Executor, open_executor
from ondevice_sdk.types import Isolation, PrivacyLevel

PROMPT = "Write a long story about a lighthouse keeper and her dog."


def decode(pairs: int, tokens: int, model: str) -> dict[str, Any]:
    """Sealed and unsealed decode speed in turns."""
    with contextlib.ExitStack() as stack:
        levels: tuple[PrivacyLevel, ...] = ("strict", "off")
        clients = {level: stack.enter_context(Client(model, privacy=level)) for level in levels}

        def speed(level: PrivacyLevel) -> float:
            usage = clients[level].generate(PROMPT, temperature=0, max_tokens=tokens, ignore_eos=True).usage
            return (tokens - 1) / usage.decode_s

        measured: dict[PrivacyLevel, list[float]] = {level: [] for level in clients}
        for level in clients:
            assert clients[level].privacy_report().enforced == (level == "strict")
            speed(level)
        for pair in range(pairs):
            for level in levels if pair % 2 else reversed(levels):
                measured[level].append(speed(level))
    ratio = intervals.ratio(measured["strict"], measured["off"])
    return {
        "pairs": pairs,
        "sealed_tokens_per_s": statistics.median(measured["strict"]),
        "unsealed_tokens_per_s": statistics.median(measured["off"]),
        "ratio": ratio.value,
        "ratio_interval_95": [ratio.low, ratio.high],
    }


def pipes(rounds: int, tokens: int) -> dict[str, Any]:
    """Microseconds from the making of a token to its arrival, in a thread and through a sealed worker."""
    sys.path.append(str(Path(__file__).parent))
    model = LocalModel("clock", "int4", "clock", "/nowhere", "0" * 64)
    arrivals: dict[Isolation, list[float]] = {"thread": [], "process": []}
    with contextlib.ExitStack() as stack:
        ways: dict[Isolation, PrivacyLevel] = {"thread": "off", "process": "strict"}
        executors: dict[Isolation, Executor] = {}
        for isolation, privacy in ways.items():
            executors[isolation] = open_executor(
                "clock_backend:ClockBackend", model, LoadOptions(), isolation=isolation, privacy=privacy
            )
            stack.callback(executors[isolation].close)
        for _ in range(rounds):
            for isolation, executor in executors.items():
                arrivals[isolation] += _delays(executor, tokens)
    medians = {isolation: statistics.median(values) for isolation, values in arrivals.items()}
    return {
        "tokens": rounds * tokens,
        "thread_us": medians["thread"],
        "worker_us": medians["process"],
        "added_us": medians["process"] - medians["thread"],
    }


def _delays(executor: Executor, tokens: int) -> list[float]:
    arrived = threading.Event()
    ticket = executor.submit(Generate(Raw((Segment("go"),)), tokens, stream=True))
    ticket.set_wakeup(arrived.set)
    delays: list[float] = []
    while True:
        arrived.wait()
        arrived.clear()
        events = ticket.take()
        now = time.monotonic_ns()
        for event in events:
            if isinstance(event, TextDelta):  # pieces that had to wait are joined: the newest was made last
                delays.append((now - int(event.text.split()[-1])) / 1000)
            elif isinstance(event, Failed):
                raise SystemExit(event.error.message)
            elif isinstance(event, Done):
                return delays


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    through = pipes(10, 200)
    speeds = decode(options.pairs, options.tokens, options.model)
    if options.json:
        print(json.dumps({"pipes": through, "decode": speeds}))
        return
    print(f"a streamed token reaches the app in {through['thread_us']:.0f} us from a thread of its own,")
    print(f"  in {through['worker_us']:.0f} us from a sealed worker: {through['added_us']:.0f} us added (medians)")
    low, high = speeds["ratio_interval_95"]
    print(f"decode, {speeds['pairs']} pairs: sealed {speeds['sealed_tokens_per_s']:.1f} tokens/s,")
    print(f"  unsealed {speeds['unsealed_tokens_per_s']:.1f}, ratio {speeds['ratio']:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
