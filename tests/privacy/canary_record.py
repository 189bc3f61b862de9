"""Writes down whatever a careless app could log: errors, `repr` and `str` of values, what /proc shows of a process.

Imported by the app of the canary test and by the app that leaks on purpose, so that the one is searched as the other.
"""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

HOLDS_TEXT = ("raw", "best")  # documented to hold the output; no message shows them


class Record:
    """Lines of JSON: where something was seen, and what."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", errors="surrogatepass")
        self.names: set[str] = set()

    def note(self, place: str, text: str) -> None:
        """Write a line."""
        self._file.write(json.dumps([place, text]) + "\n")
        self._file.flush()

    def value(self, place: str, value: object) -> None:
        """What a log line with the value in it would show."""
        for number, item in enumerate(value if isinstance(value, list | tuple) else [value]):
            if isinstance(item, BaseException):
                self.error(f"{place} {number}", item)
            elif not isinstance(item, str):  # a text is the answer itself
                self.note(f"{place} {type(item).__name__}", f"{item!r} {item!s} {item}")
                receipt = getattr(item, "receipt", None)
                if receipt is not None and receipt.text is None:  # with text it is as private as the answer
                    self.note(f"receipt of {place}", receipt.to_json())

    def error(self, place: str, error: BaseException) -> None:
        """What is shown of an error and of all that it was raised from, also where that is hidden from tracebacks."""
        seen: set[int] = set()
        pending: list[BaseException | None] = [error]
        while pending:
            link = pending.pop()
            if link is None or id(link) in seen:
                continue
            seen.add(id(link))
            where = f"{place} {type(link).__name__}"
            facts = {name: value for name, value in vars(link).items() if name not in HOLDS_TEXT}
            self.note(where, f"{link} {link!r} {link.args!r} {facts!r} {getattr(link, '__notes__', '')!r}")
            self.note(f"{where} traceback", "".join(traceback.format_exception(link)))
            pending += [link.__cause__, link.__context__]

    def process(self, pid: int) -> None:
        """What other processes can see of one."""
        for name in ("cmdline", "environ", "comm", "cwd", "fd", "maps"):
            path = Path(f"/proc/{pid}/{name}")
            try:
                if name == "cwd":
                    seen = str(path.readlink())
                elif name == "fd":
                    seen = " ".join(str(link.readlink()) for link in path.iterdir())
                else:
                    seen = path.read_bytes().decode("utf-8", "surrogateescape")
            except PermissionError:
                seen = "hidden"
            self.note(f"process {name}", seen)

    def attempt(self, name: str, use: Callable[[], object]) -> object:
        """Use a feature; give its result or its error, with both written down."""
        try:
            result = use()
        except Exception as error:  # noqa: BLE001 - any error may be the one that leaks
            self.error(name, error)
            self.note("outcome", f"{name}: {type(error).__name__}")
            return error
        self.value(name, result)
        self.note("outcome", f"{name}: returned")
        return result

    def watch_writes(self) -> None:
        """Note every file that this process opens to write, however short it lives."""

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "open" and isinstance(arguments[0], str | bytes) and arguments[2] & 0o3:
                self.note("written", os.fsdecode(arguments[0]))
            elif event in ("os.mkdir", "os.rename", "os.symlink", "os.link", "tempfile.mkdtemp", "tempfile.mkstemp"):
                self.note("made", repr(arguments))

        sys.addaudithook(hook)


def in_memory(pid: int, word: str) -> bool | None:
    """Whether a process holds a word in its memory now; None where that cannot be looked at."""
    wanted = word.encode()
    try:
        with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
            for line in maps:
                parts = re.split(r"[- ]", line, maxsplit=3)
                if not parts[2].startswith("rw"):
                    continue
                start, end = int(parts[0], 16), int(parts[1], 16)
                memory.seek(start)
                try:
                    if wanted in memory.read(end - start):
                        return True
                except OSError:
                    continue
    except PermissionError:
        return None
    return False
