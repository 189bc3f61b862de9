"""The executor with a worker process: spawned with two pipes, sealed before it loads, trusted with nothing."""

from __future__ import annotations

import queue
import re
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from ondevice_sdk.backends.api import ErrorInfo, LoadOptions, LocalModel, Request
from ondevice_sdk.errors import Cancelled, ClientClosed, OnDeviceError, WorkerCrashed
from ondevice_sdk.privacy import policy
from ondevice_sdk.runtime import forks, protocol, wire
from ondevice_sdk.runtime.channel import Channel, broken
from ondevice_sdk.runtime.child import WorkerProcess
from ondevice_sdk.runtime.dispatch import Dispatcher
from ondevice_sdk.runtime.executor import Executor, Loaded, StartTimes
from ondevice_sdk.runtime.handshake import Sealed, seal
from ondevice_sdk.runtime.ticket import RequestTicket
from ondevice_sdk.runtime.wire import ProtocolError
from ondevice_sdk.types import PrivacyLevel, PrivacyReport, Progress

if TYPE_CHECKING:
    from ondevice_sdk.runtime.prefixes import Prefixes

LOAD_S: Final = 900.0  # without any sign of progress
CLOSE_S: Final = 1.0  # to finish the present step and free the model
KEEP_S: Final = 10.0  # the same, where it also writes to the disk what it has read
_FORGET_S: Final = 60.0
_EXIT_S: Final = 0.5
_CLEAN_UP_S: Final = 10.0
_MOST_PROGRESS: Final = 1_000
_LARGEST_CONTEXT: Final = 2**31
_DIGEST: Final = re.compile("[0-9a-f]{64}")


class ProcessExecutor(Executor):
    """A model in a worker process of its own.

    The constructor returns when the model is loaded. Nothing is left behind when it raises, when the executor is
    closed or forgotten, and when the app ends in whatever way.
    """

    def __init__(
        self,
        backend: str,
        model: LocalModel,
        options: LoadOptions,
        *,
        privacy: PrivacyLevel,
        worker_command: Sequence[str] | None = None,
        prefixes: Prefixes | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        """Start, seal, verify, load.

        Raises:
            PrivacyUnavailable: strict privacy cannot be enforced or was not proved.
            WorkerCrashed: the worker died or did not answer.
            ConfigurationError: there is no Python to start.
            BackendUnavailable, LoadFailed, ModelCorrupt, ModelUnsupported: from the backend.
        """
        policy.check_available(privacy)
        with forks.spawning():
            self._link = _Link(WorkerProcess(worker_command, privacy), privacy, prefixes)
            forks.watch(self._link)
        try:
            self._link.seal((model.path, *model.files, *(adapter.path for adapter in options.adapters)))
            self.loaded = self._link.load(backend, model, options, on_progress)
            self._link.start()
        except BaseException:  # Ctrl-C too
            self._link.discard()
            raise
        # Holds the link, never this object; also runs when the interpreter exits.
        self._finalizer = weakref.finalize(self, self._link.discard)

    @property
    def alive(self) -> bool:
        """Whether `submit` works."""
        return self._link.dispatcher.open

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._link.process.pid

    def submit(self, request: Request) -> RequestTicket:
        """Start a request; never waits for the worker.

        Raises:
            WorkerCrashed: the worker is dead, or belongs to the process that this one was forked from.
            ClientClosed: `close` was called.
            ConfigurationError: the request is larger than a frame, or holds a value that is not of its type.
        """
        return self._link.submit(request)

    def report(self) -> PrivacyReport:
        """What protects this worker, by what it proved at its start and what the kernel says now."""
        return self._link.report()

    def forget(self) -> None:
        """Have the worker drop what it keeps of requests that are over; one that does not answer is ended."""
        self._link.forget()

    def close(self) -> None:
        """End the worker within a bounded time; requests in flight fail with `Cancelled`."""
        self._link.close()
        self._finalizer.detach()


class _Link:
    """The connection to one worker. Owns its process and two threads, which keep it, and not the executor, alive."""

    def __init__(self, process: WorkerProcess, level: PrivacyLevel, prefixes: Prefixes | None) -> None:
        self.process = process
        self._prefixes = prefixes
        self._forgetting = threading.Lock()
        self._forgotten: threading.Event | None = None  # while somebody waits for it
        self.dispatcher = Dispatcher(self._send_cancel)
        self._level = level
        self._channel = Channel(process)
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="ondevice-events", daemon=True)
        self._writer = threading.Thread(target=self._write, name="ondevice-requests", daemon=True)
        self._closed = False
        self._orphaned = False
        self._crash = WorkerCrashed("the worker has not started")
        self._sealed: Sealed | None = None

    # --- handshake, on the constructing thread ------------------------------------------------------------------------

    def seal(self, read: Sequence[str]) -> None:
        """Look at the worker, let it seal itself, verify, and tell it where modules lie."""
        caches = () if self._prefixes is None else (self._prefixes.directory,)
        self._sealed = seal(self._channel, self._level, read=read, role="model", caches=caches)

    def load(
        self,
        backend: str,
        model: LocalModel,
        options: LoadOptions,
        on_progress: Callable[[Progress], None] | None,
    ) -> Loaded:
        """Have the model loaded."""
        self._channel.send(protocol.Load.of(backend, model, options, self._handed()))
        for _ in range(_MOST_PROGRESS):
            answer = self._channel.receive(LOAD_S)
            match answer:
                case protocol.LoadProgress(fraction) if 0 <= fraction <= 1:
                    if on_progress is not None:
                        on_progress(Progress("loading", round(100 * fraction), 100, "percent"))
                case protocol.Ready(context, sequences, capabilities, import_s, load_s, template) if (
                    0 < context <= _LARGEST_CONTEXT
                    and 0 < sequences <= context
                    and len(capabilities) < 100
                    and min(import_s, load_s) >= 0
                    and (template is None or _DIGEST.fullmatch(template))
                ):
                    assert self._sealed is not None
                    start = StartTimes(self._sealed.spawn_s, self._sealed.seal_s, import_s, load_s)
                    return Loaded(context, sequences, capabilities, start, template)
                case protocol.Refused(error):
                    raise self._restore(error)
                case _:
                    break
        raise broken()

    def _handed(self) -> protocol.Handed | None:
        if self._prefixes is None:
            return None
        from ondevice_sdk.runtime.prefixes import hand

        return hand(self._prefixes)

    def _restore(self, info: ErrorInfo) -> OnDeviceError:
        try:
            return protocol.restore(info, protocol.LOAD_ERRORS)
        except ProtocolError:
            return broken()

    # --- service ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the two threads."""
        self._reader.start()
        self._writer.start()

    def submit(self, request: Request) -> RequestTicket:
        """Queue a request for the writer."""
        ticket = self.dispatcher.issue(request)
        try:
            data = protocol.to_worker(protocol.Submit(ticket.request_id, request))
        except BaseException:
            self.dispatcher.forget(ticket.request_id)
            raise
        self._outbox.put(data)
        return ticket

    def _send_cancel(self, request_id: str) -> None:
        self._outbox.put(protocol.to_worker(protocol.Cancel(request_id)))

    def _write(self) -> None:
        try:
            while (data := self._outbox.get()) is not None:
                self.process.write(data, timeout=None)
        except OSError:
            pass  # it has ended; the reader says so to everybody
        self.process.end_input()

    def _read(self) -> None:
        crash = None
        try:
            for frame in self._channel.frames:
                self._handle(frame)
            while data := self.process.read(None):
                for frame in self._channel.decoder.feed(data):
                    self._handle(frame)
        except Exception:  # noqa: BLE001 - a ProtocolError, or a fault of ours: nobody may wait for ever because of it
            crash = broken()
            self.process.kill()
        finally:
            self._crash = crash or self.process.crash()
            self.dispatcher.stop(self._crash, self._refusal)
            if (forgotten := self._forgotten) is not None:
                forgotten.set()
            self._outbox.put(None)
            self._writer.join()
            self._dispose()

    def _handle(self, frame: wire.Frame) -> None:
        match protocol.from_worker(frame):
            case protocol.Events(events):
                self.dispatcher.handle(events)
            case protocol.Forgotten() if (forgotten := self._forgotten) is not None:
                forgotten.set()
            case _:
                raise ProtocolError("a message out of turn")

    def _refusal(self) -> OnDeviceError:
        if self._closed:
            return ClientClosed()
        return WorkerCrashed(self._crash.message, signal=self._crash.signal, exit_code=self._crash.exit_code)

    def report(self) -> PrivacyReport:
        """The report, with the threads as they are now while the worker lives."""
        assert self._sealed is not None  # nobody has a link that was not sealed
        report = self._sealed.report(alive=self.dispatcher.open)
        if self._prefixes is None:
            return report
        from ondevice_sdk.runtime.prefixes import reported

        return reported(report)

    def forget(self) -> None:
        """Ask the worker to forget, and wait until it has, or is no more."""
        with self._forgetting:
            self._forgotten = threading.Event()  # before the look at the dispatcher, which stops before this is set
            if self.dispatcher.open:
                self._outbox.put(protocol.to_worker(protocol.Forget()))
                if not self._forgotten.wait(_FORGET_S):
                    self.process.kill()
            self._forgotten = None

    # --- end ----------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Ask the worker to end, close its input, kill it."""
        self._closed = True
        self.dispatcher.stop(Cancelled("the client was closed"), self._refusal)
        if self._orphaned or not self._reader.is_alive():
            return
        self._outbox.put(protocol.to_worker(protocol.Close()))
        if threading.current_thread() is self._reader:
            return  # called from a wakeup; the reader cleans up when the worker has ended
        self._reader.join(CLOSE_S if self._prefixes is None else KEEP_S)
        self._outbox.put(None)
        self._reader.join(_EXIT_S)
        self.discard()

    def discard(self) -> None:
        """Kill at once and clean up. Idempotent."""
        if self._orphaned:
            return
        self._closed = True
        self.dispatcher.stop(Cancelled("the client was closed"), self._refusal)
        self.process.kill()
        if self._reader.ident is None:
            self._dispose()
        elif threading.current_thread() not in (self._reader, self._writer):  # a finalizer runs in any thread
            self._reader.join(_CLEAN_UP_S)

    def _dispose(self) -> None:
        self.process.dispose()
        if self._sealed is not None:
            self._sealed.close()

    def orphan(self) -> None:
        """Be dead in a forked child."""
        self._orphaned = True
        self._crash = WorkerCrashed("the worker belongs to the process that this one was forked from")
        self.dispatcher.orphan(self._crash, self._refusal)
        self._outbox = queue.SimpleQueue()
        self._forgetting = threading.Lock()
        self.process.orphan()
