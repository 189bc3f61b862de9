"""The only wiring: need -> select -> resolve -> executor -> drive the task flow.

Nothing else knows all the parts. Reading top to bottom follows a call: `explain` weighs models for this device,
`resolve` finds the chosen one in the store, `executor` has a sealed worker load it, `begin` starts a task on it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from ondevice_sdk import catalogue, errors
from ondevice_sdk.backends.api import Backend, Capability, LoadOptions, LocalModel
from ondevice_sdk.call import Call, ProgressCallback
from ondevice_sdk.catalogue import Artifact, ModelSpec, Variant, gguf
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


@dataclass(slots=True)
class Pipeline:
    """Wires the parts for one client. Collaborators that are None are found when first needed. Thread-safe."""

    settings: Settings
    store: Store | None = None
    device: DeviceProfile | None = None
    specs: Sequence[ModelSpec] | None = None
    on_load: ProgressCallback | None = None
    _chosen: Chosen | None = None
    _executor: Executor | None = None
    _owner: int = field(default_factory=os.getpid)
    _owner_lock: threading.RLock = field(default_factory=threading.RLock)
    _active: int = 0
    _unload: threading.Timer | None = None
    _closed: bool = False

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
            self._check_open()
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
                    on_progress=self.on_load,
                )
            return self._executor

    def begin(
        self,
        make_flow: Callable[[int], Flow[T]],
        *,
        on_progress: ProgressCallback | None = None,
        timeout: float | None = None,
    ) -> Call[T]:
        """Start a task. `make_flow` is given the context length in tokens."""
        executor = self.executor()
        self._enter()
        return Call(
            executor.submit,
            make_flow(executor.loaded.context_tokens),
            on_progress=on_progress,
            timeout=timeout,
            on_end=self._leave,
        )

    def close(self) -> None:
        """Stop the worker; what is in flight fails with `Cancelled`. Idempotent."""
        with self._lock:
            self._closed = True
            self._stop_timer()
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.close()

    def _check_open(self) -> None:
        if self._closed:
            raise errors.ClientClosed("the client is closed", hint="make a new Client")

    def _enter(self) -> None:
        with self._lock:
            self._active += 1
            self._stop_timer()

    def _leave(self) -> None:
        with self._lock:
            self._active -= 1
            keep = self.settings.keep_alive
            if keep is not None and not self._active and self._executor is not None and not self._closed:
                self._unload = threading.Timer(keep, self._unload_idle)
                self._unload.daemon = True
                self._unload.start()

    def _unload_idle(self) -> None:
        with self._lock:
            if self._active or self._executor is None:
                return
            executor, self._executor = self._executor, None
        executor.close()

    def _stop_timer(self) -> None:
        if self._unload is not None:
            self._unload.cancel()
            self._unload = None

    @property
    def _lock(self) -> threading.RLock:
        """The lock of this process: a forked child gets a fresh one, and a worker of its own."""
        if self._owner != os.getpid():
            self._owner, self._owner_lock = os.getpid(), threading.RLock()
            self._executor, self._active, self._unload = None, 0, None
        return self._owner_lock

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


def _is_path(model: str) -> bool:
    return os.sep in model or model.endswith((".gguf", ".echo")) or Path(model).is_file()
