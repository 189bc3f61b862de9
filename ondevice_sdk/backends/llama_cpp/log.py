"""llama.cpp's log: silent, and read only to find out why a load failed.

The library has one log per process. It is kept in memory while a model loads (no prompt exists at that time) and
dropped otherwise, so that no user text can reach a log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_KEPT_LINES = 400


class _Log:
    def __init__(self) -> None:
        import llama_cpp

        self.lines: deque[str] | None = None
        self._callback = llama_cpp.llama_log_callback(self._write)  # the library keeps the bare pointer
        llama_cpp.llama_log_set(self._callback, None)

    def _write(self, _level: int, text: bytes | None, _data: Any) -> None:
        lines = self.lines
        if lines is not None and text:
            lines.append(text.decode("utf-8", "replace"))


@cache
def _log() -> _Log:
    return _Log()


def silence() -> None:
    """Stop llama.cpp from writing to standard error; call right after its import."""
    _log()


@contextmanager
def captured() -> Iterator[deque[str]]:
    """Keep the last lines that llama.cpp logs inside the block."""
    log = _log()
    lines: deque[str] = deque(maxlen=_KEPT_LINES)
    log.lines = lines
    try:
        yield lines
    finally:
        log.lines = None
