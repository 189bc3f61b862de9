"""What the commands that measure have in common: their options, their rows, and how they end."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict

from ondevice_sdk import OnDeviceError
from ondevice_sdk.bench import Conditions, Sizes, Subject, machine
from ondevice_sdk.bench.goals import HEADER, Row
from ondevice_sdk.bench.stations import Target
from ondevice_sdk.device import detect
from ondevice_sdk.store import Store

SMALL = "smollm2-135m-instruct"


def backend_for(model: str) -> str | None:
    """llama.cpp for what it runs: of its own accord a client takes a plugin that was measured to be faster."""
    return None if model.endswith(".echo") else "llama_cpp"


def backends_for(model: str) -> tuple[str, ...] | None:
    """The same as a client takes it."""
    backend = backend_for(model)
    return None if backend is None else (backend,)


def target(subject: Subject) -> Target:
    """What a client of this model runs with, on llama.cpp."""
    conditions = Conditions(backend=backend_for(subject.model))
    return Target.of(subject, detect(measure=True), conditions, Sizes(), Store.open())


class Table:
    """Prints rows as they come, or all as JSON at the end. Progress goes to standard error."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._rows: list[Row] = []

    def add(self, *rows: Row) -> None:
        """Show rows."""
        for row in rows:
            if not self._rows and not self._as_json:
                print(HEADER)
            self._rows.append(row)
            if not self._as_json:
                print(row.markdown(), flush=True)

    def close(self) -> None:
        """Print what is left."""
        if self._as_json:
            rows = [asdict(row) | {"verdict": row.goal.verdict(row.figure) if row.goal else ""} for row in self._rows]
            print(json.dumps({"command": sys.argv, "warnings": machine.disturbances(detect()), "rows": rows}, indent=1))


def parser(about: str, *, pairs: int, models: Sequence[str] = (SMALL,)) -> argparse.ArgumentParser:
    """The options that all of them have."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        default=list(models),
        help="as `ondevice bench` takes them: a name, a path, random:llama-3.2-1b:Q4_0",
    )
    made.add_argument("--pairs", type=at_least(1), default=pairs, help=f"samples of each figure ({pairs})")
    made.add_argument("--quick", action="store_true", help="short lengths and 2 samples: a test of the command itself")
    made.add_argument("--json", action="store_true", help="print everything as JSON")
    return made


def at_least(least: int) -> Callable[[str], int]:
    """A type of argparse."""

    def number(word: str) -> int:
        if not word.isdecimal() or int(word) < least:
            raise argparse.ArgumentTypeError(f"{word!r} is no whole number of at least {least}")
        return int(word)

    return number


def tell(what: str) -> None:
    """A line of progress."""
    print(what, file=sys.stderr, flush=True)


def run(main: Callable[[], None]) -> None:
    """Run a command: an error is a message, Ctrl-C ends it and whatever it started."""
    try:
        for warning in machine.disturbances(detect()):
            tell(f"warning: {warning}")
        main()
    except OnDeviceError as error:
        raise SystemExit(f"error: {error.message}" + (f" ({error.hint})" if error.hint else "")) from None
    except KeyboardInterrupt:
        tell("interrupted")
        sys.stdout.flush()
        os._exit(130)
