"""Writes an entry again and again in children that are killed at the first system call, the second, and so on.

Run as a script: `crashing_writer.py directory`. Prints a JSON object for each child: where it was killed, what became
of the entry, what lay in the directory before and after the next opening.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from ondevice_sdk.privacy.vault import CallerKey, EncryptedCache, ScopedKey

OLD, NEW = b"old" * 3000, b"new" * 5000
CALLS = ((os, "open"), (os, "write"), (os, "fsync"), (os, "rename"), (os, "unlink"), (os, "close"), (fcntl, "flock"))


def scoped() -> ScopedKey:
    return CallerKey(bytes(32)).scoped("prompt-state", "ab" * 32)


def opened(directory: str) -> EncryptedCache:
    return EncryptedCache(directory, scoped(), chunk_bytes=4096)


def interrupt(
    at: int,
    *,
    end: Callable[[str], None],
    calls: Iterable[tuple[ModuleType, str]] = CALLS,
    put: Callable[[ModuleType, str, object], None] = setattr,
) -> None:
    """Have `end` called at the system call of that number, at a write when it is half done."""
    numbers = itertools.count()

    def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            if next(numbers) == at:
                if name == "write":
                    real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                end(name)
            return real(*arguments, **keywords)

        return call

    for module, name in calls:
        put(module, name, wrap(name, getattr(module, name)))


def killed_at(directory: str, at: int) -> tuple[int, str]:
    """How a child ended that was to be killed at its system call of that number, and which call that was."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        write = os.write

        def end(name: str) -> None:
            write(writer, name.encode())
            os.kill(os.getpid(), signal.SIGKILL)

        cache = opened(directory)
        interrupt(at, end=end)
        cache.put("entry", NEW)
        os._exit(0)
    os.close(writer)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    name = os.read(reader, 100).decode()
    os.close(reader)
    return status, name


def main(directory: str) -> None:
    for at in itertools.count():
        with opened(directory) as cache:
            cache.put("entry", OLD)
        status, name = killed_at(directory, at)
        partial = len(list(Path(directory).glob("*.part")))
        with opened(directory) as cache:
            content = cache.get("entry")
            row = {
                "status": status,
                "at": name,
                "entry": {OLD: "old", NEW: "new"}.get(content or b"", "none"),
                "refused": dict(cache.refused),
                "partial": partial,
                "after": len(list(Path(directory).iterdir())),
            }
        print(json.dumps(row), flush=True)
        if status == 0:
            return


if __name__ == "__main__":
    main(sys.argv[1])
