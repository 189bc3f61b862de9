"""How fast this machine reads memory, which is what bounds the speed of decoding."""

from __future__ import annotations

import ctypes
import functools
import statistics
import threading
import time
from collections.abc import Callable

_REGION = 128_000_000  # bytes read in turns by all threads together: more than last-level caches hold
_PIECE = 1_000_000  # bytes of one step
_SECONDS = 0.06  # of reading; touching the memory first takes about as long again
_ABSENT, _PRESENT = 2, 1  # a search for a byte that is not there reads everything

Sweep = Callable[[int, int], int]


@functools.cache
def measure(cores: int = 1, most_bytes: int = _REGION) -> float:
    """Read bandwidth in bytes/s with `cores` threads; cached per process. Takes about 0.15 s.

    Each thread reads its own region in turns with the C library's `memchr`, which does nothing but load; where there is
    no such library, it copies with `memmove` and counts two bytes for each one copied. The figure is the sum of the
    threads' median speeds, so that a moment without a CPU does not count. `most_bytes` keeps the regions small on a
    small machine; below the size of the last-level cache the figure is the cache's.

    Raises:
        MemoryError: there is no room for the regions. RuntimeError: the system gives no more threads.
    """
    threads = max(1, cores)
    size = max(_PIECE, min(_REGION, most_bytes) // threads // _PIECE * _PIECE)
    regions = [(ctypes.c_char * size)() for _ in range(threads)]
    sweep = _memchr() or _memmove
    speeds: list[float] = []

    def work(region: ctypes.Array[ctypes.c_char]) -> None:
        address = ctypes.addressof(region)
        ctypes.memset(address, _PRESENT, size)  # untouched pages are not memory yet
        mine: list[float] = []
        start = before = time.perf_counter()
        while before - start < _SECONDS:
            moved = sweep(address + len(mine) * _PIECE % size, _PIECE)  # the GIL is free meanwhile
            now = time.perf_counter()
            mine.append(moved / max(now - before, 1e-9))
            before = now
        speeds.append(statistics.median(mine))

    workers = [threading.Thread(target=work, args=(region,), daemon=True) for region in regions]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(speeds)


def _memchr() -> Sweep | None:
    try:
        function = ctypes.CDLL(None).memchr
    except (OSError, AttributeError, TypeError):  # Windows has no library of that kind
        return None
    function.restype = ctypes.c_void_p
    function.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

    def sweep(address: int, size: int) -> int:
        found = function(address, _ABSENT, size)
        assert found is None
        return size

    return sweep


def _memmove(address: int, size: int) -> int:
    half = size // 2
    ctypes.memmove(address, address + half, half)
    return 2 * half
