"""Which model, variant and backend a client uses, and how it is loaded: the choice with everything it needs read.

The choice itself is pure (`selection`); here it gets this device, the catalogue, the store, the backends and what was
measured, and its answer becomes a file on this disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ondevice_sdk import calibration, catalogue, errors
from ondevice_sdk.backends.api import Backend, Capability, Footprint, LoadOptions, LocalModel
from ondevice_sdk.backends.calibration import Calibration
from ondevice_sdk.call import ProgressCallback
from ondevice_sdk.catalogue import Artifact, ModelSpec, Variant, gguf, layout
from ondevice_sdk.selection import (
    BackendOffer,
    CopyOffer,
    Need,
    choose_installed,
    no_model_fits,
    objection,
    plan,
    select,
    usable_memory,
)
from ondevice_sdk.store.derived import MeasuredOn
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
    from ondevice_sdk.prefix_cache import PrefixCache
    from ondevice_sdk.store import InstalledModel, Store

_NEEDED: dict[TaskName, frozenset[Capability]] = {
    "summarise": frozenset({Capability.GENERATE}),
    "analyse": frozenset({Capability.GENERATE, Capability.SCORE}),
    "generate": frozenset({Capability.GENERATE}),
    "embed": frozenset({Capability.EMBED}),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What an app asked for when it made a client, checked."""

    model: str | None = None
    embedder: str | None = None
    privacy: PrivacyLevel = "strict"
    isolation: Isolation = "process"
    backends: tuple[str, ...] | None = None
    prefer: Prefer = "balanced"
    context: int | None = None
    keep_alive: float | None = None
    worker_command: tuple[str, ...] | None = None
    prefix_cache: PrefixCache | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """A model on this disk and the backend that will run it."""

    model: LocalModel
    backend: str
    entry: str  # "module:attribute" of the backend
    options: LoadOptions

    @property
    def context_tokens(self) -> int | None:
        """Room of all sequences together; None: what the backend takes."""
        return self.options.context_tokens

    @property
    def info(self) -> ModelInfo:
        """The public description."""
        return ModelInfo(self.model.name, self.model.variant, self.backend, self.model.path, self.model.sha256)


@dataclass(slots=True, eq=False)
class Chooser:
    """Chooses for one client. Collaborators that are None are found when first needed.

    It chooses a model that writes, or with `embeds` one that gives embeddings.
    """

    settings: Settings
    store: Store | None = None
    device: DeviceProfile | None = None
    specs: Sequence[ModelSpec] | None = None
    embeds: bool = False
    chosen: Chosen | None = None

    def explain(self, task: TaskName | None = None, tokens: int | None = None) -> Selection:
        """Weigh every model, variant and backend for this device; nothing needs to be installed."""
        selection, _ = self._weigh(task, tokens)
        return selection

    def _weigh(self, task: TaskName | None = None, tokens: int | None = None) -> tuple[Selection, list[BackendOffer]]:
        here = self._models().installed()
        name, _ = self._name()
        if name is not None and name not in {*(s.name for s in self._specs()), *(m.name for m in here)}:
            catalogue.get(name)  # raises, with the nearest names
        installed = frozenset((model.name, model.variant) for model in here)
        offers = self._offers()
        device, need = self._measured(offers), self._need(task, tokens)
        selection = select(device, self._specs(), offers, installed, need, self._copies(here))
        return selection, offers

    def resolve(self) -> Chosen:
        """The model that is used, from the store or a path; decided once.

        Raises:
            ModelNotInstalled, NoModelFits, ModelCorrupt, BackendUnavailable, ConfigurationError.
        """
        if self.chosen is None:
            model = self._wanted()
            if model and _is_path(model):
                found = self._models().from_path(model)
                self._require_kind(_gives_embeddings(found), found.name)
                self.chosen = self._weigh_file(found)
            else:
                self.chosen = self._from_store()
        return self.chosen

    def calibrate(self, *, again: bool, on_progress: ProgressCallback | None) -> tuple[Calibration, ...]:
        """Measure this device with every usable backend that can be, unless that was done before."""
        from ondevice_sdk.backends import registry

        device, made = self._device(), []
        for name, backend in self._backends().items():
            calibrator = backend.calibrator()
            if calibrator is None or not backend.probe(device).usable:
                continue
            known = None if again else self._calibration(backend)
            entry, tell = registry.installed()[name].entry, _percent(f"calibrating {name}", on_progress)
            made.append(known or calibration.measure(self._calibrations(), entry, calibrator, device, on_progress=tell))
        return tuple(made)

    def availability(self, task: TaskName) -> Availability:
        """Whether `task` can run now, could after a download, or not at all."""
        try:
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

    def _wanted(self) -> str | None:
        """The model that the app named for this kind of work; None: the best that is installed."""
        model, embedder = self.settings.model, self.settings.embedder
        if not self.embeds:
            return model
        if embedder is None and model is not None and self._named_embedder(model):
            return model
        return embedder

    def _named_embedder(self, model: str) -> bool:
        """Whether a client's one model is an embedder; what it is not, the model itself will say when it is used."""
        if _is_path(model):
            return _file_embeds(model)
        name = model.partition(":")[0]
        return any(spec.name == name and spec.embeds for spec in self._specs()) or any(
            each.name == name and _gives_embeddings(each) for each in self._models().installed()
        )

    def _require_kind(self, embeds: bool, name: str) -> None:
        """Refuse a model of the other kind.

        Raises:
            Unsupported.
        """
        if embeds and not self.embeds:
            message, task = f"{name} gives embeddings and writes no text", "generate"
            raise errors.Unsupported(message, capability=task, hint="name another model, and this one as embedder=")
        if self.embeds and not embeds:
            message, hint = f"{name} writes text and gives no embeddings", f"ondevice models pull {catalogue.EMBEDDER}"
            raise errors.Unsupported(message, capability="embed", hint=hint)

    def _from_store(self) -> Chosen:
        name, _ = self._name()
        for spec in self._specs():
            if spec.name == name:
                self._require_kind(spec.embeds, spec.name)
        selection, offers = self._weigh()
        candidate = choose_installed(selection)
        if candidate is None:
            return self._outside_catalogue(selection)
        model = self._models().resolve(candidate.name, candidate.variant)
        if candidate.layout is not None:  # a copy that was damaged meanwhile is as good as none
            model = self._models().copies.resolve(model) or model
        offer = next(offer for offer in offers if offer.name == candidate.backend)
        spec = next(spec for spec in self._specs() if spec.name == candidate.name)
        fitting = plan(self._device(), spec, spec.variant(candidate.variant), offer, self._need())
        return self._choose(model, candidate.backend, fitting.options)

    def _outside_catalogue(self, selection: Selection) -> Chosen:
        """A model that the app's user added under a name of its own, else the error that says what to do."""
        name, variant = self._name()
        known = {spec.name for spec in self._specs()}
        for model in self._models().installed():
            if model.name not in known and name in (None, model.name) and variant in (None, model.variant):
                if (embeds := _gives_embeddings(model)) != self.embeds and name is None:
                    continue
                self._require_kind(embeds, model.name)
                copies = self._copies([model])
                return self._weigh_file(self._models().resolve(model.name, model.variant), copies)
        if selection.chosen is None:
            self._require_backend({variant.format for spec in self._specs() for variant in spec.variants})
            raise no_model_fits(selection)
        wanted = self._wanted() or selection.chosen.name
        some = "no embedding model is installed" if self.embeds else "no model that can run here is installed"
        raise errors.ModelNotInstalled(
            f"the model {wanted} is not installed" if name else some,
            model=wanted,
            hint=f"ondevice models pull {wanted}",
        )

    def _weigh_file(self, model: LocalModel, copies: Sequence[CopyOffer] = ()) -> Chosen:
        """A file outside the catalogue: weighed by its own header, refused with the numbers where it does not fit."""
        offer = self._require_backend({model.format})
        size = model.size()
        context = None if self.embeds else self.settings.context
        options, needed = LoadOptions(context_tokens=context), Footprint(size, 0, 0).total
        header = gguf.read_header(model.path) if model.format == "gguf" else None
        if header is not None and header.shape is not None:
            quantisation = layout.FILE_TYPES.get(header.file_type or 0, "")
            variant = Variant("int4", model.format, quantisation, 0.0, (Artifact(f"file:{model.path}", size),))
            spec = ModelSpec(
                model.name,
                model.name,
                header.shape,
                (variant,),
                *("", ""),
                must_accept=False,
                languages=(),
                embeds=header.embeds,
            )
            fitting = plan(self._device(), spec, variant, offer, self._need())
            options, needed = fitting.options, fitting.memory_bytes
            if any(
                objection(self._device(), header.shape, copy, fitting, offer, self.settings.prefer) is None
                for copy in copies
                if copy.backend == offer.name
            ):
                model = self._models().copies.resolve(model) or model
        room = usable_memory(self._device())
        if needed > room:
            reason = f"needs {needed / 1e9:.2f} GB, {room / 1e9:.2f} GB can be used"
            raise errors.NoModelFits(f"{model.name} {reason}", rejections={model.name: reason})
        return self._choose(model, offer.name, options)

    def _copies(self, installed: Sequence[InstalledModel]) -> list[CopyOffer]:
        """The optimised copies of models, with what speaks against using them here."""
        made, device = [], self._device()
        found = [(model, model.optimised) for model in installed if model.optimised is not None]
        backends = self._backends() if found else {}
        for model, copy in found:
            measured = copy.measured_on
            backend = backends.get(measured.backend)
            if backend is None or (relayer := backend.relayer()) is None:
                continue
            stale = ""
            if measured.library != relayer.library:
                stale = f"it was measured with {measured.library}, this is {relayer.library}"
            elif measured != MeasuredOn.here(device, measured.backend, relayer.library):
                stale = "it was measured on another processor"
            speed = copy.speed_up
            made.append(
                CopyOffer(
                    model.name,
                    model.variant,
                    measured.backend,
                    copy.layout,
                    copy.size,
                    speed.prompt.value,
                    speed.decode.value,
                    stale,
                )
            )
        return made

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

    def _choose(self, model: LocalModel, backend: str, options: LoadOptions) -> Chosen:
        from ondevice_sdk.backends import registry

        options = replace(options, threads=self._device().threads)
        return Chosen(model, backend, registry.installed()[backend].entry, options)

    def _device(self) -> DeviceProfile:
        if self.device is None:
            from ondevice_sdk.device import detect

            self.device = detect()
        return self.device

    def _measured(self, offers: Sequence[BackendOffer]) -> DeviceProfile:
        """This device with its bandwidth, which takes a moment to measure, where speeds are guessed from it."""
        device = self._device()
        formats = {variant.format for spec in self._specs() for variant in spec.variants}
        guessed = [each for each in offers if each.usable and each.calibration is None and each.formats & formats]
        if guessed and device.read_bandwidth is None:
            from ondevice_sdk.device import with_bandwidth

            device = self.device = with_bandwidth(device)
        return device

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
        model = self._wanted()
        return (None, None) if model is None or _is_path(model) else catalogue.split_name(model)

    def _need(self, task: TaskName | None = None, tokens: int | None = None) -> Need:
        name, variant = self._name()
        settings = self.settings
        if self.embeds:
            return Need("embed", tokens, settings.prefer, name, variant)
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
            BackendOffer(
                name,
                backend.formats,
                probe.usable,
                probe.reason,
                probe.hint,
                kv_types=backend.kv_types,
                calibration=self._calibration(backend),
                estimate=backend.estimate,
            )
            for name, (backend, probe) in probes.items()
        ]

    def _calibration(self, backend: Backend) -> Calibration | None:
        calibrator = backend.calibrator()
        return calibration.kept(self._calibrations(), calibrator, self._device()) if calibrator else None

    def _calibrations(self) -> Path:
        return self._models().root / "calibration"


def _gives_embeddings(model: LocalModel | InstalledModel) -> bool:
    return model.format == "gguf" and _file_embeds(model.path)


def _file_embeds(path: str) -> bool:
    """By the file's own header; what cannot be read will be refused when it is used."""
    try:
        state = Path(path).stat()
        return _header_embeds(path, state.st_size, state.st_mtime_ns)
    except (OSError, errors.ModelCorrupt):
        return False


@lru_cache(maxsize=64)  # a choice asks several times, and a header of many tokens takes 20 ms
def _header_embeds(path: str, size: int, changed_ns: int) -> bool:  # noqa: ARG001  # another file has other ones
    return gguf.read_header(path).embeds


def _percent(stage: str, on_progress: ProgressCallback | None) -> Callable[[float], None] | None:
    if on_progress is None:
        return None
    return lambda fraction: on_progress(Progress(stage, round(100 * fraction), 100, "percent"))


def _is_path(model: str) -> bool:
    if os.sep in model or model.endswith((".gguf", ".echo")):
        return True
    try:
        return Path(model).is_file()
    except OSError:  # too long for a file name
        return False
