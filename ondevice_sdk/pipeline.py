"""The only wiring: need -> select -> resolve -> executor -> drive the task flow.

Reading top to bottom follows a call: `resolve` takes the model that the chooser found for this device, `executor` has a
sealed worker load it, `begin` starts a task on it.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from ondevice_sdk import errors
from ondevice_sdk.call import Call, ProgressCallback
from ondevice_sdk.chooser import Chooser, Chosen
from ondevice_sdk.prefix_cache import start_with
from ondevice_sdk.runtime import forks
from ondevice_sdk.tasks.flow import Flow
from ondevice_sdk.types import Progress

if TYPE_CHECKING:
    from ondevice_sdk.runtime.executor import Executor
    from ondevice_sdk.runtime.prefixes import Prefixes

T = TypeVar("T")


@dataclass(slots=True, weakref_slot=True, eq=False)
class Pipeline:
    """Wires the parts for one client. Thread-safe."""

    chooser: Chooser
    on_load: ProgressCallback | None = None
    _executor: Executor | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)  # held while a model is chosen, loaded, unloaded
    _users: set[object] = field(default_factory=set)  # one for each call under way: the model stays loaded
    _users_lock: threading.RLock = field(default_factory=threading.RLock)  # held for an instant only
    _unload: threading.Timer | None = None
    _closed: bool = False

    def __post_init__(self) -> None:
        forks.watch(self)

    def __del__(self) -> None:
        self._stop_timer()

    def orphan(self) -> None:
        """Forget, in a forked child, what the threads of the parent held. The parent's worker is dead to the child."""
        self._lock, self._users_lock = threading.RLock(), threading.RLock()
        self._users, self._unload = set(), None

    def resolve(self) -> Chosen:
        """The model this client uses, from the store or a path.

        Raises:
            ModelNotInstalled, NoModelFits, ModelCorrupt, BackendUnavailable, ConfigurationError.
        """
        if self.chooser.chosen is not None:  # no lock: an event loop must not wait here while a model is loaded
            return self.chooser.chosen
        with self._lock:
            return self.chooser.resolve()

    def executor(self) -> Executor:
        """The running worker; started, or started again after a crash, an unload or a fork, when needed."""
        with self._lock:
            self.check_open()
            if self._executor is not None and not self._executor.alive:
                self._executor.close()
                self._executor = None
            if self._executor is None:
                cache = self.chooser.settings.prefix_cache
                if cache is None:
                    self._executor = self._start()
                else:
                    self._executor = start_with(cache, self.resolve().model.sha256, self._start)
            return self._executor

    def _start(self, prefixes: Prefixes | None = None) -> Executor:
        from ondevice_sdk.runtime import open_executor

        chosen, settings = self.resolve(), self.chooser.settings
        return open_executor(
            chosen.entry,
            chosen.model,
            chosen.options,
            isolation=settings.isolation,
            privacy=settings.privacy,
            worker_command=settings.worker_command,
            prefixes=prefixes,
            on_progress=self._loading,
        )

    @contextmanager
    def loaded(self) -> Iterator[Executor]:
        """The running worker, which is not unloaded in the block."""
        user = self._enter()
        try:
            yield self.executor()
        finally:
            self._leave(user)

    def begin(
        self,
        make_flow: Callable[[int], Flow[T]],
        *,
        on_progress: ProgressCallback | None = None,
        timeout: float | None = None,
    ) -> Call[T]:
        """Start a task. `make_flow` is given the context length in tokens."""
        user = self._enter()
        try:
            executor = self.executor()
            return Call(
                executor.submit,
                make_flow(executor.loaded.context_tokens),
                on_progress=on_progress,
                timeout=timeout,
                on_end=partial(self._leave, user),
            )
        except BaseException:
            self._leave(user)
            raise

    @property
    def running(self) -> Executor | None:
        """The worker, if it runs."""
        executor = self._executor
        return executor if executor is not None and executor.alive else None

    def close(self) -> None:
        """Stop the worker; what is in flight fails with `Cancelled`. Idempotent."""
        self._closed = True  # before the lock: a load under way ends at its next sign of progress
        with self._lock:
            self._stop_timer()
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.close()

    def check_open(self) -> None:
        """Refuse a client that was closed.

        Raises:
            ClientClosed.
        """
        if self._closed:
            raise errors.ClientClosed("the client is closed", hint="make a new Client")

    def _loading(self, progress: Progress) -> None:
        if self._closed:
            raise errors.Cancelled("the client was closed while the model was loaded")
        if self.on_load is not None:
            self.on_load(progress)

    def _enter(self) -> object:
        user = object()
        with self._users_lock:
            self._users.add(user)
            self._stop_timer()
        return user

    def _leave(self, user: object) -> None:
        """May be called more than once, and by the garbage collector."""
        keep = self.chooser.settings.keep_alive
        with self._users_lock:
            if user not in self._users:
                return
            self._users.remove(user)
            if keep is None or self._users or self._closed or sys.is_finalizing():  # no thread can start any more
                return
            # holds the pipeline weakly: a client that is forgotten ends its worker at once
            self._unload = threading.Timer(min(keep, threading.TIMEOUT_MAX), _unload_idle, (weakref.ref(self),))
            self._unload.daemon = True
            self._unload.start()

    def unload_idle(self) -> None:
        """Stop the worker if nobody uses it; the next call starts one again."""
        with self._lock:  # until it has ended: never two workers at once
            with self._users_lock:
                if self._users or self._executor is None:
                    return
                executor, self._executor = self._executor, None
            executor.close()

    def _stop_timer(self) -> None:
        with self._users_lock:
            if self._unload is not None:
                self._unload.cancel()
                self._unload = None


def _unload_idle(pipeline: weakref.ref[Pipeline]) -> None:
    alive = pipeline()
    if alive is not None:
        alive.unload_idle()
