"""Measure the encrypted cache: MB/s to write and to read one entry, by size of chunk.

`python scripts/bench_cache.py [--size MB] [--rounds N] [--directory DIR]`; the median of the rounds, 1 MB = 10^6 bytes.
"Write, no wait" is without waiting for the disk; "plain" is a file without encryption, written and read the same way.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ondevice_sdk.privacy.vault import EncryptedCache, MemoryKey

CHUNKS = (1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22)


def speed(action: Callable[[], object], size: int, rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return size / 1e6 / statistics.median(seconds)


def plain(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        os.fsync(file.fileno())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="MB (2^20 bytes) of the entry")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", help="where to write; by default where temporary files go")
    options = parser.parse_args()
    content = os.urandom(options.size << 20)
    length, rounds = len(content), options.rounds
    with tempfile.TemporaryDirectory(dir=options.directory) as folder, MemoryKey() as key:
        scoped = key.scoped("bench", "0" * 64)
        file = Path(folder, "plain")
        print(f"{'chunk':>8} {'write':>8} {'write, no wait':>15} {'read':>8} {'stream':>8}  MB/s")
        write, read = speed(lambda: plain(file, content), length, rounds), speed(file.read_bytes, length, rounds)
        print(f"{'plain':>8} {write:8.0f} {'':>15} {read:8.0f}")
        file.unlink()
        for chunk in CHUNKS:
            directory = Path(folder, str(chunk))
            with (
                EncryptedCache(directory, scoped, chunk_bytes=chunk) as cache,
                EncryptedCache(directory, scoped, chunk_bytes=chunk, durable=False) as quick,
            ):

                def stream(cache: EncryptedCache = cache) -> None:
                    reader = cache.open_reader("entry")
                    assert reader is not None
                    with reader:
                        for _ in reader:
                            pass

                row = [
                    speed(lambda c=cache: c.put("entry", content), length, rounds),  # type: ignore[misc]
                    speed(lambda q=quick: q.put("entry", content), length, rounds),  # type: ignore[misc]
                    speed(lambda c=cache: c.get("entry"), length, rounds),  # type: ignore[misc]
                    speed(stream, length, rounds),
                ]
                assert cache.get("entry") == content
                cache.delete("entry")
            print(f"{chunk >> 10:5} KiB {row[0]:8.0f} {row[1]:15.0f} {row[2]:8.0f} {row[3]:8.0f}")


if __name__ == "__main__":
    main()
