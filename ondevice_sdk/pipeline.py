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
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from ondevice_sdk import errors
from ondevice_sdk.backends.api import Generate, LocalAdapter, Request, Score
from ondevice_sdk.call import Call, ProgressCallback
from ondevice_sdk.chooser import Chooser, Chosen
from ondevice_sdk.prefix_cache import start_with
from ondevice_sdk.receipt import Environment
from ondevice_sdk.runtime import forks
from ondevice_sdk.stamp import Facts, Stamp
from ondevice_sdk.tasks.flow import Flow
from ondevice_sdk.types import Progress

if TYPE_CHECKING:
    from ondevice_sdk.runtime.executor import Executor, Ticket
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
    _served: set[object] = field(default_factory=set)  # those that were given the worker
    _users_lock: threading.RLock = field(default_factory=threading.RLock)  # held for an instant only
    _unload: threading.Timer | None = None
    _closed: bool = False
    _facts: weakref.WeakKeyDictionary[Executor, Facts] = field(default_factory=weakref.WeakKeyDictionary)

    def __post_init__(self) -> None:
        forks.watch(self)

    def __del__(self) -> None:
        self._stop_timer()

    def orphan(self) -> None:
        """Forget, in a forked child, what the threads of the parent held. The parent's worker is dead to the child."""
        self._lock, self._users_lock = threading.RLock(), threading.RLock()
        self._users, self._served, self._unload = set(), set(), None

    def resolve(self) -> Chosen:
        """The model this client uses, from the store or a path.

        Raises:
            ModelNotInstalled, NoModelFits, ModelCorrupt, BackendUnavailable, ConfigurationError.
        """
        if self.chooser.chosen is not None:  # no lock: an event loop must not wait here while a model is loaded
            return self.chooser.chosen
        with self._lock:
            return self.chooser.resolve()

    def executor(self, adapter: str | None = None) -> Executor:
        """The running worker; started, or started again after a crash, an unload or a fork, when needed.

        It is started with all installed adapters that fit; again, if this one was installed since, and nobody uses it.
        """
        with self._lock:
            self.check_open()
            if self._executor is not None and not self._executor.alive:
                self._executor.close()
                self._executor = None
            wanted = None if adapter is None else self._offer(self.chooser.adapter(adapter))
            if self._executor is None:
                self.chooser.load_with(self.chooser.adapters(wanted))
                cache = self.chooser.settings.prefix_cache
                if cache is None:
                    self._executor = self._start()
                else:
                    self._executor = start_with(cache, self.resolve().model.sha256, self._start)
            return self._executor

    def _offer(self, wanted: LocalAdapter) -> LocalAdapter:
        """See that the running worker has an adapter, or none is running.

        Raises:
            LoadFailed: it cannot be loaded now.
        """
        if self._executor is not None and wanted in self.resolve().options.adapters:
            return wanted
        if wanted not in self.chooser.adapters(wanted):
            hint = "use a smaller model, or a smaller context"
            raise errors.LoadFailed(f"there is no memory for the adapter {wanted.name}", hint=hint)
        if self._executor is not None:
            if self._served:
                raise errors.LoadFailed(
                    f"the adapter {wanted.name} was installed after the model was loaded, which other calls are using",
                    hint="call again when they have ended, or use another Client",
                )
            self._executor.close()
            self._executor = None
        return wanted

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
            yield self._serve(user)
        finally:
            self._leave(user)

    def begin(
        self,
        make_flow: Callable[[int], Flow[T]],
        *,
        stamp: Stamp | None = None,
        adapter: str | None = None,
        on_progress: ProgressCallback | None = None,
        timeout: float | None = None,
    ) -> Call[T]:
        """Start a task, whose requests run with an adapter.

        `make_flow` is given the context length in tokens; `stamp` gives its result a receipt.
        """
        user = self._enter()
        try:
            executor = self._serve(user, adapter)
            flow = make_flow(executor.loaded.context_tokens)
            if stamp is not None:
                flow = stamp.on(flow, partial(self._facts_of, executor))
            return Call(
                executor.submit if adapter is None else partial(_submit, executor, adapter),
                flow,
                on_progress=on_progress,
                timeout=timeout,
                on_end=partial(self._leave, user),
            )
        except BaseException:
            self._leave(user)
            raise

    def _facts_of(self, executor: Executor) -> Facts:
        """What receipts say of a loaded model; looked up when its first call has ended."""
        if executor not in self._facts:
            chosen, loaded, inventory = self.resolve(), executor.loaded, self.chooser.inventory
            device, options = inventory.device, chosen.options
            environment = Environment(
                library=inventory.library(chosen.entry),
                template=loaded.template,
                recipe=inventory.recipe(chosen.model),
                context_tokens=loaded.context_tokens,
                sequences=loaded.max_sequences,
                threads=options.threads,
                batch_tokens=options.batch_tokens,
                kv_type=options.kv_type,
                system=device.system,
                machine=device.machine,
                cpu=device.cpu_name,
                instruction_sets=tuple(device.instruction_sets),
            )
            adapters = {name: each.sha256 for name, each in self.adapters.items()}
            self._facts[executor] = Facts(chosen.info, environment, adapters)
        return self._facts[executor]

    @property
    def adapters(self) -> dict[str, LocalAdapter]:
        """Those that the model is loaded with, by name."""
        return {each.name: each for each in self.resolve().options.adapters}

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

    def _serve(self, user: object, adapter: str | None = None) -> Executor:
        """The running worker, which stays as it is until the user leaves."""
        with self._lock:
            executor = self.executor(adapter)
            self._served.add(user)
            return executor

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
            self._served.discard(user)
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


def _submit(executor: Executor, adapter: str, request: Request) -> Ticket:
    if isinstance(request, Generate | Score):
        request = replace(request, adapter=adapter)
    return executor.submit(request)


def _unload_idle(pipeline: weakref.ref[Pipeline]) -> None:
    alive = pipeline()
    if alive is not None:
        alive.unload_idle()
