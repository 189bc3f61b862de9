"""A child process that is told something and answers, a JSON object per line: the bare library, and a small app."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from ondevice_sdk.errors import ConfigurationError, GenerationFailed, rebuild
from ondevice_sdk.runtime.environment import module_path, python_command

_END_S: Final = 5.0
_WORDS: Final = 300  # characters of a child's complaint that are passed on


class Child:
    """A process that ends with the block, and when this process ends in whatever way."""

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> None:
        """Start the command, with these variables besides those of this process.

        Raises:
            ConfigurationError: it cannot be started.
        """
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **(environment or {})},
                start_new_session=True,  # Ctrl-C in the terminal is this process's business
            )
        except OSError as error:
            raise ConfigurationError(f"a process for the benchmark cannot be started: {error}") from error
        self.pid = self._process.pid

    @classmethod
    def of_module(cls, module: str, *, environment: Mapping[str, str] | None = None) -> Self:
        """Start `python -m module`, with the modules that this process has.

        Raises:
            ConfigurationError: there is no Python to start.
        """
        path = {"PYTHONPATH": os.pathsep.join(module_path()), "PYTHONSAFEPATH": "1"}
        return cls([*python_command(None), "-B", "-m", module], environment={**path, **(environment or {})})

    def tell(self, **order: object) -> None:
        """Send an object.

        Raises:
            GenerationFailed: it has ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._ended() from error

    def hear(self) -> dict[str, Any]:
        """The next object.

        Raises:
            GenerationFailed: it has ended, or could not do what it was told. Other errors of the SDK: as it had them.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError as error:
            raise GenerationFailed("a process of the benchmark said what is no answer") from error
        if "code" in answer:
            raise rebuild(str(answer["code"]), str(answer["error"]), answer["hint"], {})
        if "error" in answer:
            raise GenerationFailed(f"a process of the benchmark failed: {str(answer['error'])[:_WORDS]}")
        return answer

    def end_input(self) -> None:
        """Tell it that nothing more comes; it may still answer. Idempotent."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def close(self) -> None:
        """End it. Idempotent."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._process.wait(_END_S)
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:  # it may be in the middle of long work
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)
        self.close()

    def _ended(self) -> GenerationFailed:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        code = self._process.returncode
        return GenerationFailed(f"a process of the benchmark ended unexpectedly (code {code})")
