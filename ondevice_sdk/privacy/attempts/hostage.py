"""The victim as the app's side sees it."""

from __future__ import annotations

import json
import select
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ondevice_sdk.privacy.attempts.attempt import Victim

_SCRIPT: Final = str(Path(__file__).with_name("victim.py"))
_ANSWER_S: Final = 10.0


class Hostage:
    """A running victim."""

    def __init__(self, python: Sequence[str], port: int, file: Path, secret: str) -> None:
        """Start it; `secret` lies in its memory and in its environment."""
        self._process = subprocess.Popen(
            [*python, "-I", "-S", "-B", _SCRIPT, str(port), str(file), f"--password={secret}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"SECRET": secret},
            bufsize=0,
            start_new_session=True,
        )
        self.about = Victim(**json.loads(self._line()))
        self._before = self._state()

    def unchanged(self) -> bool:
        """Whether it lives and nothing was done to it."""
        try:
            return self._state() == self._before
        except (OSError, ValueError):
            return False

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _state(self) -> object:
        assert self._process.stdin is not None
        self._process.stdin.write(b"?\n")
        return json.loads(self._line())

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], _ANSWER_S)[0]:
            return b""  # stopped, by a debugger perhaps
        return self._process.stdout.readline()
