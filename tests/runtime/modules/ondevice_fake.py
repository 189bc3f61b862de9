"""A backend whose engine does what the prompt says: the parts of a worker that a real model does not show."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ondevice_sdk.backends.api import (
    Backend,
    Capability,
    DeviceProfile,
    Done,
    Embed,
    Embedded,
    Engine,
    ErrorInfo,
    Event,
    Failed,
    Footprint,
    Generate,
    Generated,
    LoadOptions,
    LocalModel,
    ModelShape,
    Probe,
    PromptProgress,
    Raw,
    Request,
    Score,
    Scored,
    TextDelta,
    Tokenize,
    Tokenized,
    Usage,
)
from ondevice_sdk.errors import LoadFailed, ModelCorrupt


def prompt_of(request: Generate) -> str:
    assert isinstance(request.prompt, Raw)
    return "".join(segment.text for segment in request.prompt.segments)


class FakeEngine(Engine):
    """Echoes a word per step; a prompt that begins with "!" is a command."""

    def __init__(self, name: str = "fake") -> None:
        self._name = name
        self._forgotten = 0
        self.capabilities = frozenset({Capability.GENERATE, Capability.BATCH})
        self.context_tokens = 4096
        self.max_sequences = 8
        self.closed = False
        self.thread = threading.get_ident()
        self._requests: dict[str, Request] = {}
        self._position: dict[str, int] = {}
        self._aborted: set[str] = set()

    def add_request(self, request_id: str, request: Request) -> None:
        if isinstance(request, Generate) and prompt_of(request) == "!add-raises":
            raise RuntimeError(f"quoting {request!r}")
        self._requests[request_id] = request
        self._position[request_id] = 0

    def abort_request(self, request_id: str) -> None:
        if request_id in self._requests:
            self._aborted.add(request_id)

    def step(self, token_budget: int) -> Sequence[Event]:
        assert threading.get_ident() == self.thread
        assert not self.closed
        events: list[Event] = []
        for request_id in list(self._requests):
            events += self._advance(request_id, token_budget)
        return events

    def _advance(self, request_id: str, budget: int) -> list[Event]:
        request = self._requests[request_id]
        if request_id in self._aborted:
            self._end(request_id)
            if isinstance(request, Generate):
                return [Done(request_id, Generated("", "cancelled", Usage()))]
            return [Failed(request_id, ErrorInfo("cancelled"))]
        if isinstance(request, Generate):
            return self._generate(request_id, request, budget)
        self._end(request_id)
        match request:
            case Score(continuations=continuations):
                return [Done(request_id, Scored((-1.0,) * len(continuations), (1,) * len(continuations), Usage()))]
            case Embed(texts=texts):
                value = float("nan") if "nan" in texts else 0.5
                return [Done(request_id, Embedded(((value, 1.0),) * len(texts), Usage()))]
            case Tokenize(texts=texts, prompts=prompts):
                counts = (*(len(text) for text in texts), *(1 for _ in prompts))
                return [Done(request_id, Tokenized(counts))]
        raise AssertionError

    def _generate(self, request_id: str, request: Generate, budget: int) -> list[Event]:
        text = prompt_of(request)
        if text == "!forgotten":
            self._end(request_id)
            return [Done(request_id, Generated(str(self._forgotten), "stop", Usage()))]
        if text.startswith("!"):
            name, _, argument = text[1:].partition(" ")
            answer = COMMANDS[name](argument)
            if answer is None:  # a long prompt: prefill without end
                self._position[request_id] += budget
                return [PromptProgress(request_id, min(self._position[request_id], 1_000_000), 1_000_000)]
            self._end(request_id)
            return [Done(request_id, Generated(answer, "stop", Usage()))]
        words = text.split(" ")[: request.max_tokens]
        at = self._position[request_id]
        self._position[request_id] += 1
        events: list[Event] = []
        if at == 0:
            events.append(PromptProgress(request_id, len(words), len(words)))
        if request.stream and words[at]:
            events.append(TextDelta(request_id, (" " if at else "") + words[at]))
        if at + 1 == len(words):
            self._end(request_id)
            events.append(Done(request_id, Generated(" ".join(words), "stop", Usage(len(words), len(words)))))
        return events

    def _end(self, request_id: str) -> None:
        del self._requests[request_id], self._position[request_id]
        self._aborted.discard(request_id)

    @property
    def busy(self) -> bool:
        return bool(self._requests)

    def forget(self) -> None:
        if self._name == "stubborn":
            raise RuntimeError("quoting the user's text")
        self._forgotten += 1

    def close(self) -> None:
        self.closed = True


def _connect_python(argument: str) -> str:
    host, port = argument.rsplit(":", 1)
    try:
        with socket.create_connection((host, int(port)), timeout=5):
            return "connected"
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def _connect_native(argument: str) -> str:
    _, port = argument.rsplit(":", 1)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.socket(2, 1, 0)
    if fd < 0:
        return errno.errorcode[ctypes.get_errno()]
    address = (2).to_bytes(2, "little") + int(port).to_bytes(2, "big") + bytes([127, 0, 0, 1]) + bytes(8)
    result = libc.connect(fd, address, 16)
    os.close(fd)
    return "connected" if result == 0 else errno.errorcode[ctypes.get_errno()]


def _connect_from_thread(argument: str) -> str:
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(_connect_native(argument)))
    thread.start()
    thread.join()
    return answers[0]


def _unix(argument: str) -> str:
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(argument)
            return "connected"
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def _run(argument: str) -> str:
    import subprocess

    try:
        return str(subprocess.run([argument], check=False).returncode)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def _abort(_: str) -> str:
    ctypes.CDLL(None).abort()
    return "survived"


def _kill(argument: str) -> str:
    os.kill(os.getpid(), int(argument))
    return "survived"


def _exhaust(_: str) -> str:
    """Die as under the out-of-memory killer: the kernel's SIGKILL while memory is being taken."""
    import resource
    import signal

    resource.setrlimit(resource.RLIMIT_CPU, (1, 1))  # at its hard limit the kernel sends SIGKILL
    signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    hoard = []
    while True:
        hoard.append(bytes(1000))
        hoard = hoard[-1000:]


def _noise(_: str) -> str:
    libc = ctypes.CDLL(None)
    for _number in range(2000):
        libc.printf(b"noise on standard output, as native libraries make it, %d\n", 1)
        print("noise from Python", "." * 50)
    libc.fflush(None)
    return "quiet"


def _wait_for(argument: str) -> str:
    while not Path(argument).exists():
        time.sleep(0.005)
    return "seen"


def _raise(argument: str) -> str:
    raise RuntimeError(f"quoting {argument}")


COMMANDS: dict[str, Callable[[str], str | None]] = {
    "connect-python": _connect_python,
    "connect-native": _connect_native,
    "connect-thread": _connect_from_thread,
    "unix": _unix,
    "run": _run,
    "abort": _abort,
    "kill": _kill,
    "exhaust": _exhaust,
    "noise": _noise,
    "wait-for": _wait_for,
    "raise": _raise,
    "prefill": lambda _: None,
    "environment": lambda _: "\n".join(f"{k}={v}" for k, v in sorted(os.environ.items())),
    "path": lambda _: "\n".join(sys.path),
    "home": lambda _: os.environ["HOME"],
    "exit": lambda argument: os._exit(int(argument)),
    "stop": lambda _: _kill("19"),
    "long": lambda argument: "x" * int(argument),
}


class FakeBackend(Backend):
    name = "fake"
    formats = frozenset({"fake"})

    def probe(self, device: DeviceProfile) -> Probe:
        return Probe(usable=True)

    def estimate(self, shape: ModelShape, weights_bytes: int, options: LoadOptions) -> Footprint:
        return Footprint(0, 0, 0)

    def load(self, model: LocalModel, options: LoadOptions) -> Engine:
        if options.on_progress is not None:
            options.on_progress(0.5)
            options.on_progress(1.0)
        match model.name:
            case "corrupt":
                raise ModelCorrupt("the file is damaged", expected="a", actual="b")
            case "failing":
                raise LoadFailed("no")
            case "raising":
                raise RuntimeError("a foreign error")
            case "missing":
                import no_such_runtime  # type: ignore[import-not-found]  # noqa: F401
            case "aborting":
                ctypes.CDLL(None).abort()
            case "hanging":
                while True:
                    time.sleep(1)
        return FakeEngine(model.name)


class SlowToImport(FakeBackend):
    def import_runtime(self) -> None:
        time.sleep(0.05)
