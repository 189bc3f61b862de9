"""The worker after its seal: loads one model and serves it over the pipes, until told to close or the app is gone."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

from ondevice_sdk.backends.api import Done, Embedded, Engine, ErrorInfo, Event, Failed, Scored
from ondevice_sdk.errors import GenerationFailed, LoadFailed, OnDeviceError
from ondevice_sdk.runtime import protocol, wire
from ondevice_sdk.runtime.loading import import_runtime, load_engine, template_digest
from ondevice_sdk.runtime.loop import EngineBroken, EngineLoop
from ondevice_sdk.runtime.wire import ProtocolError
from ondevice_sdk.text.template_sandbox import alarm_ends_process

if TYPE_CHECKING:
    from ondevice_sdk.runtime.prefixes import Prefixes

M = TypeVar("M", bound=protocol.ToWorker)

EXIT_PROTOCOL: Final = 70  # the app sent something odd
EXIT_ENGINE: Final = 71  # the engine raised at every step


def run(inbound: int, outbound: int, began: float) -> None:
    """Load what the first message names, and serve; ends the process.

    Args:
        inbound: descriptor of the app's messages.
        outbound: descriptor of the answers.
        began: when the worker was told to go on, by the monotonic clock.
    """
    message = _receive(inbound, protocol.load_from_app)

    def send(message: protocol.ToApp) -> None:
        data = protocol.to_app(message)
        try:
            wire.write_all(outbound, data)
        except OSError:
            _leave()

    reader = _Reader(inbound)
    reader.start()
    # Native code loads without holding up Python, which meanwhile imports what the first request needs.
    preparation = threading.Thread(target=protocol.prepare, daemon=True)
    try:
        import_runtime(message.entry)
        imported = time.monotonic()
        preparation.start()
        engine = load_engine(message.entry, message.model, message.options(_progress(send)), _prefixes(message))
    except OnDeviceError as error:
        known = error.code in protocol.LOAD_ERRORS
        send(protocol.Refused(protocol.describe(error if known else LoadFailed(error.message, hint=error.hint))))
        os._exit(0)
    alarm_ends_process()
    loop = EngineLoop(engine, lambda events: _emit(send, events))
    preparation.join()
    send(_ready(engine, imported - began, time.monotonic() - imported))
    reader.serve(loop, lambda: send(protocol.Forgotten()))
    try:
        loop.run()
    except EngineBroken:
        os._exit(EXIT_ENGINE)
    os._exit(0)  # the engine is closed; destructors of native libraries have nothing left to do but crash


def _receive(inbound: int, read: Callable[[wire.Frame], M]) -> M:
    """The next message, as `read` makes it of its frame; ends the process where the app is gone or is not our app."""
    try:
        frame = wire.read_frame(inbound, wire.TO_WORKER)
        if frame is None:
            _leave()
        return read(frame)
    except OSError:
        _leave()
    except ProtocolError:
        os._exit(EXIT_PROTOCOL)


def _leave() -> NoReturn:
    """End at once: the app is gone. Its directory, which the app can no longer remove, goes too where it is empty."""
    with contextlib.suppress(OSError, KeyError):
        os.rmdir(os.environ["HOME"])  # noqa: PTH106 - not more than that: a launcher may have set another HOME
    os._exit(0)


class _Reader(threading.Thread):
    """Reads the app's messages on a thread of its own: the end of the app is seen at once, also while loading."""

    def __init__(self, inbound: int) -> None:
        super().__init__(name="ondevice-reader", daemon=True)
        self._inbound = inbound
        self._ready = threading.Event()
        self._loop: EngineLoop | None = None
        self._forgotten: Callable[[], None] | None = None

    def serve(self, loop: EngineLoop, forgotten: Callable[[], None]) -> None:
        """Pass the requests on to this loop; `forgotten` is called on its thread."""
        self._forgotten = forgotten
        self._loop = loop
        self._ready.set()

    def run(self) -> None:
        """Read until the end."""
        while True:
            message = _receive(self._inbound, protocol.from_app)
            if self._loop is None:
                if isinstance(message, protocol.Close):
                    os._exit(0)
                self._ready.wait()
            assert self._loop is not None
            assert self._forgotten is not None
            match message:
                case protocol.Submit(request_id, request):
                    self._loop.submit(request_id, request)
                case protocol.Cancel(request_id):
                    self._loop.cancel(request_id)
                case protocol.Forget():
                    self._loop.forget(self._forgotten)
                case protocol.Close():
                    self._loop.stop()
                case _:
                    os._exit(EXIT_PROTOCOL)


def _prefixes(message: protocol.Load) -> Prefixes | None:
    if message.prefixes is None:
        return None
    from ondevice_sdk.runtime import prefixes

    return prefixes.take(message.prefixes)


def _ready(engine: Engine, import_s: float, load_s: float) -> protocol.Ready:
    capabilities = frozenset(map(str, engine.capabilities))
    template = template_digest(engine)
    return protocol.Ready(engine.context_tokens, engine.max_sequences, capabilities, import_s, load_s, template)


def _progress(send: Callable[[protocol.ToApp], None]) -> Callable[[float], None]:
    told = -1

    def report(fraction: float) -> None:
        nonlocal told
        percent = int(100 * min(max(fraction, 0.0), 1.0)) if math.isfinite(fraction) else 0
        if percent > told:  # at most 101 messages, however often the runtime calls
            told = percent
            send(protocol.LoadProgress(percent / 100))

    return report


def _emit(send: Callable[[protocol.ToApp], None], events: Sequence[Event]) -> None:
    presentable = tuple(map(_presentable, events))
    try:
        send(protocol.Events(presentable))
    except ProtocolError:  # too large together
        for event in presentable:
            try:
                send(protocol.Events((event,)))
            except ProtocolError:
                send(protocol.Events((_failed(event.request_id, "the result is too large to be sent"),)))


def _presentable(event: Event) -> Event:
    """The event, or a failure in its place where the app would not believe it: a fault of one request ends no other."""
    match event:
        case Done(request_id, Scored(logprobs=values)) if not all(map(math.isfinite, values)):
            return _failed(request_id, "the engine gave a score that is not a number")
        case Done(request_id, Embedded(vectors=vectors)) if not all(
            math.isfinite(value) for vector in vectors for value in vector
        ):
            return _failed(request_id, "the engine gave a vector that is not of numbers")
        case Failed(request_id, info):
            try:
                protocol.restore(info, protocol.REQUEST_ERRORS)
            except ProtocolError:
                return _failed(request_id, "the engine failed, and its error cannot be sent")
    return event


def _failed(request_id: str, message: str) -> Failed:
    return Failed(request_id, ErrorInfo(GenerationFailed.code, message))
