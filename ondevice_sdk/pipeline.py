"""The only wiring: need -> select -> resolve -> executor -> drive the task flow.

Nothing else knows all the parts. Reading top to bottom follows a call: `explain` weighs models for this device,
`resolve` finds the chosen one in the store, `executor` has a sealed worker load it, `begin` starts a task on it.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from ondevice_sdk import catalogue, errors
from ondevice_sdk.backends.api import Backend, Capability, LoadOptions, LocalModel
from ondevice_sdk.call import Call, ProgressCallback
from ondevice_sdk.catalogue import Artifact, ModelSpec, Variant, gguf
from ondevice_sdk.runtime import forks
from ondevice_sdk.selection import BackendOffer, Need, choose_installed, no_model_fits, plan, select, usable_memory
from ondevice_sdk.selection.choose import WORKER_BYTES
from ondevice_sdk.tasks.flow import Flow
from ondevice_sdk.types import (
    Availability,
    DeviceProfile,
    Isolation,
    ModelInfo,
    Prefer,
    PrivacyLevel,
    Progress,
    Selection,
    TaskName,
)

if TYPE_CHECKING:
    from ondevice_sdk.runtime.executor import Executor
    from ondevice_sdk.store import Store

T = TypeVar("T")

DEFAULT_CONTEXT = 8192  # tokens; a longer context is made when the app asks for it
_NEEDED: dict[TaskName, frozenset[Capability]] = {
    "summarise": frozenset({Capability.GENERATE}),
    "analyse": frozenset({Capability.GENERATE, Capability.SCORE}),
    "generate": frozenset({Capability.GENERATE}),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What an app asked for when it made a client, checked."""

    model: str | None = None
    privacy: PrivacyLevel = "strict"
    isolation: Isolation = "process"
    backends: tuple[str, ...] | None = None
    prefer: Prefer = "balanced"
    context: int | None = None
    keep_alive: float | None = None
    worker_command: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """A model on this disk and the backend that will run it."""

    model: LocalModel
    backend: str
    entry: str  # "module:attribute" of the backend
    context_tokens: int | None

    @property
    def info(self) -> ModelInfo:
        """The public description."""
        return ModelInfo(self.model.name, self.model.variant, self.backend, self.model.path, self.model.sha256)


@dataclass(slots=True, weakref_slot=True, eq=False)
class Pipeline:
    """Wires the parts for one client. Collaborators that are None are found when first needed. Thread-safe."""

    settings: Settings
    store: Store | None = None
    device: DeviceProfile | None = None
    specs: Sequence[ModelSpec] | None = None
    on_load: ProgressCallback | None = None
    _chosen: Chosen | None = None
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

    # --- choose -------------------------------------------------------------------------------------------------------

    def explain(self, task: TaskName | None = None, tokens: int | None = None) -> Selection:
        """Weigh every model, variant and backend for this device; nothing needs to be installed."""
        here = self._models().installed()
        name, _ = self._name()
        if name is not None and name not in {*(s.name for s in self._specs()), *(m.name for m in here)}:
            catalogue.get(name)  # raises, with the nearest names
        installed = frozenset((model.name, model.variant) for model in here)
        return select(self._device(), self._specs(), self._offers(), installed, self._need(task, tokens))

    def resolve(self) -> Chosen:
        """The model this client uses, from the store or a path.

        Raises:
            ModelNotInstalled, NoModelFits, ModelCorrupt, BackendUnavailable, ConfigurationError.
        """
        if self._chosen is not None:  # no lock: an event loop must not wait here while a model is loaded
            return self._chosen
        with self._lock:
            if self._chosen is None:
                model = self.settings.model
                self._chosen = (
                    self._weigh_file(self._models().from_path(model))
                    if model and _is_path(model)
                    else self._from_store()
                )
            return self._chosen

    def availability(self, task: TaskName) -> Availability:
        """Whether `task` can run now, could after a download, or not at all."""
        try:
            self.resolve()
            backend = self._backends()[self.resolve().backend]
            missing = _NEEDED[task] - backend.probe(self._device()).capabilities
        except errors.ModelNotInstalled as error:
            name, _ = catalogue.split_name(error.model or catalogue.DEFAULT)
            state: Literal["downloading", "downloadable"] = (
                "downloading" if self._models().pulling(name) else "downloadable"
            )
            return Availability(state, (error.message,) + ((error.hint,) if error.hint else ()))
        except errors.OnDeviceError as error:
            return Availability("unavailable", (error.message,) + ((error.hint,) if error.hint else ()))
        if missing:
            return Availability("unavailable", (f"the backend lacks {', '.join(sorted(missing))}",))
        return Availability("available")

    def _from_store(self) -> Chosen:
        selection = self.explain()
        candidate = choose_installed(selection)
        if candidate is None:
            return self._outside_catalogue(selection)
        model = self._models().resolve(candidate.name, candidate.variant)
        offer = next(offer for offer in self._offers() if offer.name == candidate.backend)
        spec = next(spec for spec in self._specs() if spec.name == candidate.name)
        fitting = plan(self._device(), spec, spec.variant(candidate.variant), offer, self._need())
        return self._choose(model, candidate.backend, fitting.context_tokens)

    def _outside_catalogue(self, selection: Selection) -> Chosen:
        """A model that the app's user added under a name of its own, else the error that says what to do."""
        name, variant = self._name()
        known = {spec.name for spec in self._specs()}
        for model in self._models().installed():
            if model.name not in known and name in (None, model.name) and variant in (None, model.variant):
                return self._weigh_file(self._models().resolve(model.name, model.variant))
        if selection.chosen is None:
            self._require_backend({variant.format for spec in self._specs() for variant in spec.variants})
            raise no_model_fits(selection)
        wanted = self.settings.model or selection.chosen.name
        raise errors.ModelNotInstalled(
            f"the model {wanted} is not installed" if name else "no model that can run here is installed",
            model=wanted,
            hint=f"ondevice models pull {wanted}",
        )

    def _weigh_file(self, model: LocalModel) -> Chosen:
        """A file outside the catalogue: weighed by its own header, refused with the numbers where it does not fit."""
        offer = self._require_backend({model.format})
        size = sum(Path(name).stat().st_size for name in model.files or (model.path,))
        context, needed = self.settings.context, size + WORKER_BYTES
        shape = gguf.read_header(model.path).shape if model.format == "gguf" else None
        if shape is not None:
            variant = Variant("int4", model.format, "", 0.0, (Artifact(f"file:{model.path}", size),))
            spec = ModelSpec(model.name, model.name, shape, (variant,), "", "", must_accept=False, languages=())
            fitting = plan(self._device(), spec, variant, offer, self._need())
            context, needed = fitting.context_tokens, fitting.memory_bytes
        room = usable_memory(self._device())
        if needed > room:
            reason = f"needs {needed / 1e9:.2f} GB, {room / 1e9:.2f} GB can be used"
            raise errors.NoModelFits(f"{model.name} {reason}", rejections={model.name: reason})
        return self._choose(model, offer.name, context)

    def _require_backend(self, formats: set[str]) -> BackendOffer:
        """A usable backend that reads one of the formats, or the error that says what to install."""
        offers = [offer for offer in self._offers() if offer.formats & formats]
        for offer in offers:
            if offer.usable:
                return offer
        reason = (
            f"{offers[0].name}: {offers[0].reason}" if offers else f"none reads {' or '.join(sorted(formats))} files"
        )
        hint = offers[0].hint if offers else "see `ondevice backends`"
        raise errors.BackendUnavailable(f"no backend is usable here ({reason})", reason=reason, hint=hint)

    def _choose(self, model: LocalModel, backend: str, context: int | None) -> Chosen:
        from ondevice_sdk.backends import registry

        return Chosen(model, backend, registry.installed()[backend].entry, context)

    # --- load ---------------------------------------------------------------------------------------------------------

    def executor(self) -> Executor:
        """The running worker; started, or started again after a crash, an unload or a fork, when needed."""
        with self._lock:
            self.check_open()
            if self._executor is not None and not self._executor.alive:
                self._executor.close()
                self._executor = None
            if self._executor is None:
                from ondevice_sdk.runtime import open_executor

                chosen = self.resolve()
                self._executor = open_executor(
                    chosen.entry,
                    chosen.model,
                    LoadOptions(context_tokens=chosen.context_tokens, threads=self._threads()),
                    isolation=self.settings.isolation,
                    privacy=self.settings.privacy,
                    worker_command=self.settings.worker_command,
                    on_progress=self._loading,
                )
            return self._executor

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
        keep = self.settings.keep_alive
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

    # --- collaborators ------------------------------------------------------------------------------------------------

    def _device(self) -> DeviceProfile:
        if self.device is None:
            from ondevice_sdk.device import detect

            self.device = detect(measure=True)
        return self.device

    def _threads(self) -> int:
        device = self._device()
        return max(1, min(device.physical_cores, device.usable_cores))

    def _models(self) -> Store:
        if self.store is None:
            from ondevice_sdk.store import Store

            self.store = Store.open()
        return self.store

    def _specs(self) -> Sequence[ModelSpec]:
        if self.specs is None:
            self.specs = catalogue.load()
        return self.specs

    def _name(self) -> tuple[str | None, str | None]:
        """The model asked for as name and variant; nothing where it is a path or does not matter."""
        model = self.settings.model
        return (None, None) if model is None or _is_path(model) else catalogue.split_name(model)

    def _need(self, task: TaskName | None = None, tokens: int | None = None) -> Need:
        name, variant = self._name()
        settings = self.settings
        return Need(task, tokens, settings.prefer, name, variant, settings.context)

    def _backends(self) -> dict[str, Backend]:
        from ondevice_sdk.backends import registry

        wanted = self.settings.backends
        found = registry.installed()
        if wanted is not None:
            missing = [name for name in wanted if name not in found]
            if missing:
                raise errors.ConfigurationError(
                    f"no backend is called {missing[0]!r}; installed: {', '.join(sorted(found))}",
                    hint="see `ondevice backends`",
                )
            found = {name: found[name] for name in wanted}
        return {name: registration.create() for name, registration in found.items()}

    def _offers(self) -> list[BackendOffer]:
        device = self._device()
        probes = {name: (backend, backend.probe(device)) for name, backend in self._backends().items()}
        return [
            BackendOffer(name, backend.formats, probe.usable, probe.reason, probe.hint, estimate=backend.estimate)
            for name, (backend, probe) in probes.items()
        ]


def _unload_idle(pipeline: weakref.ref[Pipeline]) -> None:
    alive = pipeline()
    if alive is not None:
        alive.unload_idle()


def _is_path(model: str) -> bool:
    if os.sep in model or model.endswith((".gguf", ".echo")):
        return True
    try:
        return Path(model).is_file()
    except OSError:  # too long for a file name
        return False
