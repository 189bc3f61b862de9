"""How long a worker takes until it is sealed and verified: `python scripts/bench_start.py [rounds]`."""

from __future__ import annotations

import statistics
import sys
import time
from typing import get_args

from ondevice_sdk.runtime.channel import Channel
from ondevice_sdk.runtime.child import WorkerProcess
from ondevice_sdk.runtime.handshake import seal
from ondevice_sdk.types import PrivacyLevel


def start(level: PrivacyLevel) -> float:
    """Milliseconds from the start of the process to "go"."""
    began = time.perf_counter()
    process = WorkerProcess(None, level)
    try:
        sealed = seal(Channel(process), level, read=(), role="function")
        return 1000 * (time.perf_counter() - began)
    finally:
        process.dispose()
        sealed.close()


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 25
    levels = get_args(PrivacyLevel)
    times: dict[PrivacyLevel, list[float]] = {level: [] for level in levels}
    for level in levels:
        start(level)  # imports, caches of the disk
    for _ in range(rounds):
        for level in levels:  # interleaved: whatever else the machine does meets all of them
            times[level].append(start(level))
    for level, measured in times.items():
        low, *_, high = statistics.quantiles(measured, n=10)
        print(f"{level:8} ready {statistics.median(measured):6.1f} ms (p10 {low:.1f}, p90 {high:.1f})")


if __name__ == "__main__":
    main()
