"""The executor with a thread of the app: no isolation, no enforcement, the same loop and tickets."""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ondevice_sdk.backends.api import Event, LoadOptions, LocalModel, Request
from ondevice_sdk.errors import Cancelled, ClientClosed, ConfigurationError, OnDeviceError, WorkerCrashed
from ondevice_sdk.privacy.report import build
from ondevice_sdk.runtime import forks
from ondevice_sdk.runtime.dispatch import Dispatcher
from ondevice_sdk.runtime.executor import Executor, Loaded, StartTimes
from ondevice_sdk.runtime.loading import import_runtime, load_engine, template_digest
from ondevice_sdk.runtime.loop import EngineLoop
from ondevice_sdk.runtime.ticket import RequestTicket
from ondevice_sdk.types import PrivacyLevel, PrivacyReport, Progress

if TYPE_CHECKING:
    from ondevice_sdk.runtime.prefixes import Prefixes

CLOSE_S: Final = 5.0
_LOOK_S: Final = 0.1


class ThreadExecutor(Executor):
    """A model on a thread of the app. A crash of the runtime library is a crash of the app."""

    def __init__(
        self,
        backend: str,
        model: LocalModel,
        options: LoadOptions,
        *,
        privacy: PrivacyLevel,
        prefixes: Prefixes | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        """Load the model.

        Raises:
            ConfigurationError: strict privacy was asked for, which a thread cannot have.
            BackendUnavailable, LoadFailed, ModelCorrupt, ModelUnsupported: from the backend.
        """
        if privacy == "strict":
            raise ConfigurationError(
                'isolation="thread" cannot be strict: the engine runs inside the app',
                hint='use isolation="process", or privacy="guarded"',
            )
        self._privacy = privacy
        self._prefixes = prefixes
        self._service = _Service(backend, model, options, prefixes, on_progress)
        self.loaded = self._service.start()
        forks.watch(self._service)
        self._finalizer = weakref.finalize(self, self._service.stop)

    @property
    def alive(self) -> bool:
        """Whether `submit` works."""
        return self._service.dispatcher.open

    def submit(self, request: Request) -> RequestTicket:
        """Start a request.

        Raises:
            WorkerCrashed: the engine broke, or the process was forked. ClientClosed: `close` was called.
        """
        return self._service.submit(request)

    def report(self) -> PrivacyReport:
        """Nothing is enforced, and it says so."""
        report = build(self._privacy, "thread")
        if self._prefixes is None:
            return report
        from ondevice_sdk.runtime.prefixes import reported

        return reported(report)

    def forget(self) -> None:
        """Have the engine drop what it keeps of requests that are over."""
        self._service.forget()

    def close(self) -> None:
        """End the thread after its present step; requests in flight fail with `Cancelled`."""
        self._service.stop()
        self._finalizer.detach()


class _Service:
    """Owns the thread, which keeps it, and not the executor, alive."""

    def __init__(
        self,
        backend: str,
        model: LocalModel,
        options: LoadOptions,
        prefixes: Prefixes | None,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._backend = backend
        self._model = model
        self._options = replace(options, on_progress=self._report)
        self._prefixes = prefixes
        self._on_progress = on_progress
        self._fault: BaseException | None = None  # of the app's callback: no fault of the backend that called it
        self._started: queue.SimpleQueue[EngineLoop | Loaded | BaseException] = queue.SimpleQueue()
        self._loop: EngineLoop | None = None
        self._thread = threading.Thread(target=self._run, name="ondevice-engine", daemon=True)
        self._closed = False
        self._orphaned = False
        self._crash = WorkerCrashed("the engine has not started")
        self.dispatcher = Dispatcher(self._cancel)

    def start(self) -> Loaded:
        """Load on the thread that will run the engine, and wait for it."""
        self._thread.start()
        answer = self._started.get()
        if isinstance(answer, BaseException):
            self._thread.join()
            raise answer
        assert isinstance(answer, Loaded)
        return answer

    def _report(self, fraction: float) -> None:
        if self._on_progress is not None:
            try:
                self._on_progress(Progress("loading", round(100 * min(max(fraction, 0.0), 1.0)), 100, "percent"))
            except BaseException as error:
                self._fault = error
                raise

    def _run(self) -> None:
        try:
            began = time.monotonic()
            import_runtime(self._backend)
            imported = time.monotonic()
            engine = load_engine(self._backend, self._model, self._options, self._prefixes)
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits for it
            self._started.put(self._fault or error)
            return
        self._loop = EngineLoop(engine, self._emit)
        capabilities = frozenset(map(str, engine.capabilities))
        times = StartTimes(0.0, 0.0, imported - began, time.monotonic() - imported)
        template = template_digest(engine)
        self._started.put(Loaded(engine.context_tokens, engine.max_sequences, capabilities, times, template))
        self._crash = WorkerCrashed("the engine's thread has ended")
        try:
            self._loop.run()
        except Exception as error:  # noqa: BLE001 - not to be printed by the thread: its message may quote text
            self._crash = WorkerCrashed(f"the engine broke ({type(error).__name__})")
        finally:
            self.dispatcher.stop(self._crash, self._refusal)

    def _emit(self, events: Sequence[Event]) -> None:
        self.dispatcher.handle(events)

    def submit(self, request: Request) -> RequestTicket:
        """Post a request to the loop."""
        assert self._loop is not None
        ticket = self.dispatcher.issue(request)
        self._loop.submit(ticket.request_id, request)
        return ticket

    def _cancel(self, request_id: str) -> None:
        if self._loop is not None:
            self._loop.cancel(request_id)

    def forget(self) -> None:
        """Post it to the loop, and wait until it is done or the thread has ended."""
        forgotten = threading.Event()
        if self._loop is not None and self.dispatcher.open:
            self._loop.forget(forgotten.set)
            while self._thread.is_alive() and not forgotten.wait(_LOOK_S):
                pass

    def _refusal(self) -> OnDeviceError:
        return ClientClosed() if self._closed else WorkerCrashed(self._crash.message)

    def stop(self) -> None:
        """End the thread. Idempotent."""
        self._closed = True
        self.dispatcher.stop(Cancelled("the client was closed"), self._refusal)
        if self._orphaned or self._loop is None:
            return
        self._loop.stop()
        if threading.current_thread() is not self._thread:
            self._thread.join(CLOSE_S)

    def orphan(self) -> None:
        """Be dead in a forked child: the thread does not exist there."""
        self._orphaned = True
        self._crash = WorkerCrashed("the engine belongs to the process that this one was forked from")
        self.dispatcher.orphan(self._crash, self._refusal)
