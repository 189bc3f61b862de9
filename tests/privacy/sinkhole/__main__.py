"""The warden: makes the namespace, starts to look, and only then starts the app. JSON in, JSON out."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, Final

from . import kernel
from .answerer import Answerer
from .namespace import Unavailable, enter
from .sniffer import Sniffer

_PATIENCE_S: Final = 20.0  # only ever waited out by an app that fails
_EVERY_S: Final = 0.01


def main() -> None:
    """Read what to run, run it, print the record."""
    wanted = json.load(sys.stdin)
    try:
        ipv6 = enter()
    except Unavailable as error:
        print(json.dumps({"unavailable": str(error)}))
        return
    warden = _Warden(wanted["directory"])
    with warden.serving(wanted["servers"]), tempfile.TemporaryFile("w+") as errors:
        code = warden.run(wanted["app"], wanted["environment"], errors)
        errors.seek(0)
        record = {
            "phases": warden.phases,
            "ipv6": ipv6,
            "names": warden.answerer.names,
            "told": warden.told,
            "code": code,
            "errors": errors.read(),
        }
    print(json.dumps(record))


class _Warden:
    def __init__(self, directory: str) -> None:
        self._directory = directory
        self.sniffer = Sniffer()
        self.answerer = Answerer()
        self.phases: list[dict[str, Any]] = []
        self.told: Any = None
        self._before = kernel.counters()

    @contextlib.contextmanager
    def serving(self, commands: Sequence[Sequence[str]]) -> Iterator[None]:
        """Have servers run in the block; they end with their standard input, also if this process is killed."""
        with contextlib.ExitStack() as stack:
            for command in commands:
                pipe = subprocess.PIPE
                server = subprocess.Popen(command, cwd=self._directory, stdin=pipe, stdout=pipe, text=True)
                stack.callback(server.communicate)  # closes its input, and waits
                assert server.stdout is not None
                assert server.stdout.readline(), "a server did not start"
            self._end_phase("servers")
            yield

    def run(self, command: Sequence[str], environment: Mapping[str, str], errors: IO[str]) -> int:
        """Run the app, phase by phase; its exit code."""
        with subprocess.Popen(
            command,
            cwd=self._directory,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as app:
            assert app.stdin is not None
            assert app.stdout is not None
            for line in app.stdout:
                word, _, rest = line.rstrip("\n").partition(" ")
                if word == "mark":
                    self._end_phase(rest)
                    app.stdin.write("\n")
                    app.stdin.flush()
                elif word == "told":
                    self.told = json.loads(rest)
        self._end_phase("end")
        return app.returncode

    def _end_phase(self, name: str) -> None:
        limit = time.monotonic() + _PATIENCE_S
        while not kernel.quiet():  # the other end of a connection may be a moment late to close it
            if time.monotonic() > limit:
                raise SystemExit(f"a connection is left open at the end of the phase {name!r}")
            time.sleep(_EVERY_S)
        packets = self.sniffer.take()
        now = kernel.counters()
        changed = {key: now[key] - self._before.get(key, 0) for key in now}
        self.phases.append({"name": name, "packets": packets, "counters": changed})
        self._before = now


if __name__ == "__main__":
    main()
