"""A worker as a process: its start, its pipes, its end. Knows nothing of what is said over the pipes."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from array import array
from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Final, cast

from ondevice_sdk.errors import ConfigurationError, WorkerCrashed
from ondevice_sdk.runtime.environment import python_command, variables
from ondevice_sdk.runtime.home import PrivateDirectory
from ondevice_sdk.types import PrivacyLevel

_BOOT: Final = str(Path(__file__).with_name("boot.py"))
_CHUNK: Final = 1 << 16
_RING_BYTES: Final = 1 << 16
_REAP_S: Final = 5.0
_LOOK_S: Final = 0.01  # how often, while it ends
_WITHOUT_PIDFD_S: Final = 1.0  # how often the process is looked at where the system cannot announce its end


class WorkerProcess:
    """A started worker. `read` belongs to one thread at a time, `write` to one; `kill` may be called from any.

    Its standard error is drained into a ring that is kept in memory only and never logged: it could hold text.
    """

    def __init__(
        self, worker_command: Sequence[str] | None, level: PrivacyLevel, more: Mapping[str, str] | None = None
    ) -> None:
        """Start it, with `more` in its environment.

        Raises:
            ConfigurationError: the command cannot be started.
        """
        command = [*python_command(worker_command), "-I", "-S", "-B", _BOOT]
        self._directory = PrivateDirectory()
        self.home = self._directory.path
        environment = {**variables(level, self.home), **(more or {})}
        self.variables = frozenset(environment)
        self._kills_before = _out_of_memory_kills()
        self.began = time.monotonic()
        theirs: socket.socket | None = None
        self._hand_over: socket.socket | None = None
        if level == "strict":
            self._hand_over, theirs = socket.socketpair()
            command.append(str(theirs.fileno()))
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=self.home,
                env=environment,
                close_fds=True,
                pass_fds=() if theirs is None else (theirs.fileno(),),
                start_new_session=True,  # Ctrl-C in the terminal is the app's business
            )
        except (OSError, ValueError) as error:
            self._directory.remove()
            self._close_hand_over()
            raise ConfigurationError(
                f"the worker cannot be started: {error}", hint="see worker_command= and ONDEVICE_PYTHON"
            ) from error
        finally:
            if theirs is not None:
                theirs.close()
        self.pid = self._process.pid
        self._stdin = cast("FileIO", self._process.stdin)
        self._stdout = cast("FileIO", self._process.stdout)
        self._stderr = cast("FileIO", self._process.stderr)
        os.set_blocking(self._stdin.fileno(), False)
        self._pidfd = _pidfd(self.pid)
        self._poll = select.poll()
        for stream in (self._stdout, self._stderr):
            self._poll.register(stream, select.POLLIN)
        if self._pidfd is not None:
            self._poll.register(self._pidfd, select.POLLIN)
        self._ring = bytearray()
        self._killed = self._swept = False

    def take_listener(self) -> int | None:
        """The descriptor of the kernel's reports, if the worker has handed it over; closes the way it came."""
        if self._hand_over is None:
            return None
        descriptors = array("i")
        try:  # not by `recv_fds`, which ignores its flags
            _, ancillary, _, _ = self._hand_over.recvmsg(
                1, socket.CMSG_LEN(descriptors.itemsize), socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
            )
        except OSError:
            ancillary = []
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        self._close_hand_over()
        return descriptors[0] if descriptors else None

    def _close_hand_over(self) -> None:
        if self._hand_over is not None:
            self._hand_over.close()
            self._hand_over = None

    def read(self, timeout: float | None) -> bytes | None:
        """Bytes from its output as soon as there are some; empty once it has ended, None after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            ready = {fd for fd, _ in self._poll.poll(self._patience(deadline))}
            if self._stderr_fileno in ready:
                self._drain_stderr()
            if self._stdout.fileno() in ready:
                return os.read(self._stdout.fileno(), _CHUNK)
            if self._pidfd in ready or (self._pidfd is None and self._has_ended()):
                return b""  # a process that it started may hold the pipe open
            if deadline is not None and time.monotonic() >= deadline:
                return None

    @property
    def _stderr_fileno(self) -> int:
        return -1 if self._stderr.closed else self._stderr.fileno()

    def _patience(self, deadline: float | None) -> float | None:
        """Milliseconds for `poll`."""
        limits = [] if deadline is None else [max(0.0, deadline - time.monotonic())]
        if self._pidfd is None:
            limits.append(_WITHOUT_PIDFD_S)
        return 1000 * min(limits) if limits else None

    def _drain_stderr(self) -> None:
        data = os.read(self._stderr.fileno(), _CHUNK)
        if not data:
            self._poll.unregister(self._stderr)
            self._stderr.close()
        self._ring = (self._ring + data)[-_RING_BYTES:]

    def write(self, data: bytes, timeout: float | None) -> None:
        """Write everything.

        Raises:
            OSError: it has ended. TimeoutError (also an OSError): it did not read for `timeout` seconds.
        """
        poll = select.poll()
        poll.register(self._stdin, select.POLLOUT)
        if self._pidfd is not None:
            poll.register(self._pidfd, select.POLLIN)
        view = memoryview(data)
        while view:
            deadline = None if timeout is None else time.monotonic() + timeout
            ready = {fd for fd, _ in poll.poll(self._patience(deadline))}
            if self._pidfd in ready or (not ready and self._has_ended()):
                raise BrokenPipeError
            if self._stdin.fileno() in ready:
                with contextlib.suppress(BlockingIOError):
                    view = view[os.write(self._stdin.fileno(), view) :]
            elif deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError

    def end_input(self) -> None:
        """Close its input; an honest worker exits at once."""
        self._stdin.close()

    def kill(self) -> None:
        """End it and whatever it started, now. Idempotent."""
        if not self._swept:
            self._swept = True
            self._killed = not self._has_ended()
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)

    def _has_ended(self) -> bool:
        """Whether it is over; its status is left to be collected, so that its number is not another's before `kill`."""
        if self._process.returncode is None and hasattr(os, "waitid"):
            with contextlib.suppress(ChildProcessError):  # the app collects all of its processes
                return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        return self._process.poll() is not None

    def dispose(self) -> None:
        """Kill, reap, close the pipes, remove its directory. Idempotent."""
        self.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # in uninterruptible sleep; nothing helps
            self._process.wait(_REAP_S)
        self._close_descriptors()
        self._directory.remove()

    def orphan(self) -> None:
        """Let go of it in a forked child, whose process it is not."""
        self._directory.release()
        self._close_descriptors()
        self._process.returncode = 0  # it cannot be waited for here
        self._swept = True

    def _close_descriptors(self) -> None:
        self._close_hand_over()
        for stream in (self._stdin, self._stdout, self._stderr):
            stream.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def last_words(self) -> str:
        """The last line of its standard error; may hold the user's text once a request was sent, so only before."""
        lines = self._ring.decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:200] if lines else ""

    def crash(self, hint: str | None = None) -> WorkerCrashed:
        """How it ended, as the error for the requests in flight; waits for it, for a bounded time.

        What it had started ends with it.
        """
        deadline = time.monotonic() + _REAP_S
        while not self._killed and not self._has_ended():
            if time.monotonic() >= deadline:  # it closed its pipes and lives on
                return WorkerCrashed("the worker closed its pipes", hint=hint)
            time.sleep(_LOOK_S)
        self.kill()
        if self._killed:
            return WorkerCrashed("the worker was ended", hint=hint)
        code = self._process.wait()
        if code >= 0:
            return WorkerCrashed(f"the worker exited with code {code}", exit_code=code, hint=hint)
        name = _signal_name(-code)
        message = f"the worker was killed by {name}"
        if name == "SIGKILL":
            message += f": {self._blame()}"
            hint = hint or "a smaller model, variant or context needs less memory"
        elif name == "SIGALRM":  # nothing else asks for an alarm
            message += ": the model's chat template took too long"
        return WorkerCrashed(message, signal=name, hint=hint)

    def _blame(self) -> str:
        after = _out_of_memory_kills()
        grown = [source for source, kills in after.items() if kills > self._kills_before.get(source, kills)]
        if "cgroup" in grown:
            return "out of memory (the memory limit of this control group was reached)"
        if grown:
            return "probably out of memory (the system's out-of-memory killer was at work meanwhile)"
        if after:
            return "by another process; the out-of-memory killer reported nothing"
        return "perhaps by the out-of-memory killer"


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # not Linux, or a container that does not allow it
        return None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _out_of_memory_kills() -> dict[str, int]:
    """Counts of out-of-memory kills: of this control group, and of the whole system; what the system tells."""
    kills = {}
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            with contextlib.suppress(OSError, ValueError):
                if not controllers:  # version 2
                    kills["cgroup"] = _field(Path(f"/sys/fs/cgroup{group}/memory.events").read_text(), "oom_kill")
                elif "memory" in controllers.split(","):
                    path = Path(f"/sys/fs/cgroup/{controllers}{group}/memory.oom_control")
                    kills["cgroup"] = _field(path.read_text(), "oom_kill")
    with contextlib.suppress(OSError, ValueError):
        kills["system"] = _field(Path("/proc/vmstat").read_text(), "oom_kill")
    return kills


def _field(text: str, name: str) -> int:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    raise ValueError(name)
