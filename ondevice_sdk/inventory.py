"""What a client can choose from: this device, the backends, the models on the disk, and what was measured of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ondevice_sdk import calibration, catalogue, errors, measuring
from ondevice_sdk.backends.api import Backend, Footprint, LoadOptions, LocalModel, Probe
from ondevice_sdk.backends.calibration import Calibration
from ondevice_sdk.backends.measured import ModelSpeed
from ondevice_sdk.call import ProgressCallback
from ondevice_sdk.catalogue import Artifact, ModelSpec, Variant, config, gguf, layout
from ondevice_sdk.catalogue.spec import Divergence
from ondevice_sdk.measuring import Rival
from ondevice_sdk.selection import BackendOffer, CopyOffer, usable_memory
from ondevice_sdk.store import elsewhere, recipes
from ondevice_sdk.store.derived import MeasuredOn
from ondevice_sdk.store.files import joint_digest
from ondevice_sdk.types import DeviceProfile, ModelShape, Progress

if TYPE_CHECKING:
    from ondevice_sdk.catalogue.gguf import GgufHeader
    from ondevice_sdk.store import InstalledModel, Store

_UNKNOWN_CONTEXT: Final = 1 << 20  # tokens


@dataclass(slots=True, eq=False)
class Inventory:
    """Everything that is looked up for a choice; what is None is found when it is first needed.

    `wanted` are the names of the backends that may be used, None: all.
    """

    wanted: tuple[str, ...] | None = None
    found_store: Store | None = None
    found_device: DeviceProfile | None = None
    found_specs: Sequence[ModelSpec] | None = None

    @property
    def device(self) -> DeviceProfile:
        """This machine."""
        if self.found_device is None:
            from ondevice_sdk.device import detect

            self.found_device = detect()
        return self.found_device

    @property
    def store(self) -> Store:
        """The models on this disk."""
        if self.found_store is None:
            from ondevice_sdk.store import Store

            self.found_store = Store.open()
        return self.found_store

    @property
    def specs(self) -> Sequence[ModelSpec]:
        """The catalogue."""
        if self.found_specs is None:
            self.found_specs = catalogue.load()
        return self.found_specs

    @property
    def figures(self) -> Path:
        """Where what was measured is kept."""
        return self.store.root / "calibration"

    def backends(self) -> dict[str, Backend]:
        """Those that may be used. A broken plugin is left out, unless it was asked for by name.

        Raises:
            ConfigurationError: none has a name that was asked for. BackendUnavailable: that one is broken.
        """
        from ondevice_sdk.backends import registry

        found = registry.installed()
        if self.wanted is not None:
            missing = [name for name in self.wanted if name not in found]
            if missing:
                raise errors.ConfigurationError(
                    f"no backend is called {missing[0]!r}; installed: {', '.join(sorted(found))}",
                    hint="see `ondevice backends`",
                )
            return {name: found[name].create() for name in self.wanted}
        made = {}
        for name, registration in found.items():
            try:
                made[name] = registration.create()
            except errors.BackendUnavailable:  # `ondevice backends` says why
                continue
        return made

    def offers(self) -> list[BackendOffer]:
        """The backends as the choice sees them."""
        made = []
        for name, backend in self.backends().items():
            probe = self._probe(backend)
            made.append(
                BackendOffer(
                    name,
                    backend.formats,
                    probe.usable,
                    probe.reason,
                    probe.hint,
                    kv_types=backend.kv_types,
                    calibration=self._calibration(backend),
                    built_in=self.entry(name).startswith("ondevice_sdk."),
                    estimate=backend.estimate,
                )
            )
        return made

    def library(self, entry: str) -> str:
        """The versions of what the backend at "module:attribute" runs models with."""
        from ondevice_sdk.backends import registry

        try:
            return _library(entry, registry.create(entry))
        except errors.BackendUnavailable:  # broken since it was chosen
            return f"{entry}, version unknown"

    def recipe(self, model: LocalModel) -> Mapping[str, Any] | None:
        """How a model of the store was quantised here; None: it was not, or that is no longer known."""
        if not Path(model.path).is_relative_to(self.store.root):
            return None
        try:
            digest = self.store.manifest(model.name, model.variant).recipe
        except errors.OnDeviceError:  # removed meanwhile
            return None
        if digest is None:
            return None
        recipe = recipes.read(self.store.space, digest)
        return {"sha256": digest} if recipe is None else {"sha256": digest, "words": recipe.words, **asdict(recipe)}

    def entry(self, backend: str) -> str:
        """Where a backend is, as "module:attribute"."""
        from ondevice_sdk.backends import registry

        return registry.installed()[backend].entry

    def device_for(self, offers: Sequence[BackendOffer]) -> DeviceProfile:
        """This device with its bandwidth, which takes a moment to measure, where all speeds are guessed from it.

        Where a backend was calibrated, what is guessed of others decides nothing against it.
        """
        formats = {variant.format for spec in self.specs for variant in spec.variants}
        usable = [each for each in offers if each.usable and each.formats & formats]
        if usable and all(each.calibration is None for each in usable) and self.device.read_bandwidth is None:
            from ondevice_sdk.device import with_bandwidth

            self.found_device = with_bandwidth(self.device)
        return self.device

    def specs_with(
        self, installed: Sequence[InstalledModel], offers: Sequence[BackendOffer], variant: str | None = None
    ) -> list[ModelSpec]:
        """The catalogue, with the variants of its models that were made here or added.

        They have the quality of their precision and their real size. Those that no backend reads, such as weights that
        models are only built from, are left out unless it is this `variant` that was asked for.
        """
        formats = {form for offer in offers for form in offer.formats}
        made = []
        for spec in self.specs:
            known = {each.name for each in spec.variants}
            more = [
                _variant(each)
                for each in installed
                if each.name == spec.name
                and each.variant not in known
                and catalogue.is_variant(each.variant)
                and (each.format in formats or each.variant == variant)
            ]
            made.append(replace(spec, variants=(*spec.variants, *more)) if more else spec)
        return made

    def own_spec(self, models: Sequence[InstalledModel | LocalModel]) -> ModelSpec:
        """An entry for a model outside the catalogue, by what its files say of it.

        Where none tells its shape, speeds that were measured are scaled as if attention cost nothing.
        """
        headers = [header for header in map(header_of, models) if header is not None]
        shape = next((shape for shape in map(shape_of, models) if shape is not None), None)
        name, variants = models[0].name, tuple(map(_variant, models))
        shape = shape or ModelShape(2 * max(map(_size, models)), 1, 1, 1, 1, 1, 1, 1, _UNKNOWN_CONTEXT)
        embeds = any(each.embeds for each in headers)
        quality = 1.0 if any(each.divergence for each in variants) else 0.0  # relative to each other, that is known
        return ModelSpec(
            name, name, shape, variants, "", "", must_accept=False, languages=(), embeds=embeds, quality=quality
        )

    def copies(self, installed: Sequence[InstalledModel]) -> list[CopyOffer]:
        """The optimised copies of models, with what speaks against using them here."""
        made, device = [], self.device
        found = [(model, model.optimised) for model in installed if model.optimised is not None]
        backends = self.backends() if found else {}
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

    def rivals(self, models: Sequence[InstalledModel | LocalModel]) -> list[Rival]:
        """The models that write text, each with every usable backend that reads its format."""
        made: list[Rival] = []
        usable = {name: each for name, each in self.backends().items() if self._probe(each).usable}
        shapes = {spec.name: (spec.shape, spec.embeds) for spec in self.specs}
        for model in models:
            readers = {name: each for name, each in usable.items() if model.format in each.formats}
            if not readers:
                continue
            shape, embeds = shapes.get(model.name) or (shape_of(model), gives_embeddings(model))
            if embeds:
                continue
            digest = self._digest(model)
            made += [
                Rival(
                    model.name,
                    model.variant,
                    digest,
                    name,
                    self.entry(name),
                    _library(name, backend),
                    _needs(backend, shape, _size(model)),
                    predicted=backend.calibrator() is not None,
                )
                for name, backend in readers.items()
            ]
        return made

    def speeds(self, models: Sequence[InstalledModel | LocalModel]) -> list[ModelSpeed]:
        """What was measured of these models, as far as it holds here and now."""
        if not any(self.figures.glob("model-*.json")):
            return []
        found = (measuring.kept(self.figures, rival, self.device) for rival in self.rivals(models))
        return [each for each in found if each is not None]

    def calibrate(self, *, again: bool, on_progress: ProgressCallback | None) -> tuple[Calibration, ...]:
        """Measure this device with every usable backend that can be, unless that was done before."""
        made = []
        for name, backend in self.backends().items():
            calibrator = backend.calibrator()
            if calibrator is None or not self._probe(backend).usable:
                continue
            known = None if again else self._calibration(backend)
            tell = _percent(f"calibrating {name}", on_progress)
            made.append(
                known or calibration.measure(self.figures, self.entry(name), calibrator, self.device, on_progress=tell)
            )
        return tuple(made)

    def measure(
        self, models: Sequence[InstalledModel | LocalModel], *, again: bool, on_progress: ProgressCallback | None
    ) -> None:
        """Measure the models for which backends compete, or of which nothing else tells the speed."""
        room = usable_memory(self.device)
        local = {(each.name, each.variant): each for each in models if isinstance(each, LocalModel)}

        def settled(rivals: Sequence[Rival]) -> bool:
            return not again and measuring.is_settled(self.figures, rivals, self.device, room=room)

        for contest in measuring.contests(self.rivals(models)):
            rivals = [rival for rival in contest if rival.memory_bytes <= room]
            if settled(rivals):
                continue
            whole: dict[Rival, LocalModel] = {}
            for rival in rivals:
                with contextlib.suppress(errors.ModelCorrupt, errors.ModelNotInstalled):  # said when it is used
                    found = local.get((rival.name, rival.variant))
                    whole[rival] = found or self.store.resolve(rival.name, rival.variant)
            if whole and not settled([*whole]):
                tell = _percent(f"measuring {contest[0].name}", on_progress)
                measuring.measure(self.figures, whole, self.device, room=room, on_progress=tell)

    def _probe(self, backend: Backend) -> Probe:
        try:
            return backend.probe(self.device)
        except Exception as error:  # noqa: BLE001 - a plugin may break its promise
            return Probe(False, f"its probe raised {type(error).__name__}")

    def _calibration(self, backend: Backend) -> Calibration | None:
        calibrator = backend.calibrator()
        return calibration.kept(self.figures, calibrator, self.device) if calibrator else None

    def _digest(self, model: InstalledModel | LocalModel) -> str:
        """Of all its files."""
        if isinstance(model, LocalModel):
            from ondevice_sdk.store.elsewhere import digest_of

            digests = [digest_of(self.store.space, Path(path)) for path in model.files or (model.path,)]
        else:
            digests = [file.digest for file in self.store.manifest(model.name, model.variant).files]
        return joint_digest(digests)


def header_of(model: InstalledModel | LocalModel) -> GgufHeader | None:
    """The header of a GGUF file; None: it is none, or cannot be read, and will be refused when it is used."""
    return file_header(model.path) if model.format == "gguf" else None


def gives_embeddings(model: InstalledModel | LocalModel) -> bool:
    """Whether it writes no text, by its file's own header."""
    header = header_of(model)
    return header is not None and header.embeds


def shape_of(model: InstalledModel | LocalModel) -> ModelShape | None:
    """By the file's own header, or the configuration of a folder; None: neither tells."""
    if model.format == "gguf":
        header = header_of(model)
        return None if header is None else header.shape
    return config.read_shape(model.path)


def file_header(path: str) -> GgufHeader | None:
    """As `header_of`, of any file."""
    try:
        state = Path(path).stat()
        return _header(path, state.st_size, state.st_mtime_ns)
    except (OSError, errors.ModelCorrupt):
        return None


@lru_cache(maxsize=64)  # a choice asks several times, and a header of many tokens takes 20 ms
def _header(path: str, size: int, changed_ns: int) -> GgufHeader:  # noqa: ARG001  # another file has other ones
    return gguf.read_header(path)


def _variant(model: InstalledModel | LocalModel) -> Variant:
    """As the catalogue would describe it."""
    header = header_of(model)
    quantisation = layout.FILE_TYPES.get(header.file_type or 0, "") if header is not None else ""
    files = (Artifact("installed", _size(model)),)
    return Variant(model.variant, model.format, quantisation, 0.0, files, divergence=_divergence(model))


def _divergence(model: InstalledModel | LocalModel) -> Divergence | None:
    """From another variant of the same model that it was made of here, as far as that was measured."""
    known = None if isinstance(model, LocalModel) else model.quantised
    if known is None or known.quality is None or known.recipe.source.name != model.name:
        return None
    return Divergence(known.quality.kl.value, known.recipe.source.variant, known.recipe.source.sha256)


def _size(model: InstalledModel | LocalModel) -> int:
    return model.size() if isinstance(model, LocalModel) else model.size


def _needs(backend: Backend, shape: ModelShape | None, size: int) -> int:
    """Bytes of a worker while the model is measured."""
    if shape is None:
        return Footprint(size, 0, 0).total
    return backend.estimate(shape, size, LoadOptions(measuring.CONTEXT, measuring.SEQUENCES)).total


def _library(name: str, backend: Backend) -> str:
    try:
        return backend.library()
    except Exception:  # noqa: BLE001 - a plugin may raise anything
        return f"{name}, version unknown"


def _percent(stage: str, on_progress: ProgressCallback | None) -> Callable[[float], None] | None:
    if on_progress is None:
        return None
    return lambda fraction: on_progress(Progress(stage, round(100 * fraction), 100, "percent"))


def is_path(model: str) -> bool:
    """Whether an app names a file or folder, and not a model of the catalogue or the store."""
    return model.endswith((".gguf", ".echo")) or elsewhere.is_path(model)
