"""Which model, variant and backend a client uses, and how it is loaded: the choice with everything it needs read.

The choice itself is pure (`selection`); here it gets what there is (`inventory`), and its answer becomes a file on this
disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from ondevice_sdk import catalogue, errors
from ondevice_sdk.backends.api import Backend, Capability, Footprint, LoadOptions, LocalAdapter, LocalModel
from ondevice_sdk.backends.calibration import Calibration
from ondevice_sdk.call import ProgressCallback
from ondevice_sdk.catalogue import ModelSpec
from ondevice_sdk.fitting import affordable, all_fitting, require_fit
from ondevice_sdk.inventory import Inventory, file_header, gives_embeddings, is_path, shape_of
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
from ondevice_sdk.types import (
    Availability,
    Isolation,
    ModelInfo,
    Prefer,
    PrivacyLevel,
    Selection,
    TaskName,
)

if TYPE_CHECKING:
    from ondevice_sdk.prefix_cache import PrefixCache
    from ondevice_sdk.store import InstalledModel, Store
    from ondevice_sdk.types import DeviceProfile

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
    adapter: str | None = None
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
    inventory: Inventory = field(init=False)

    def __post_init__(self) -> None:
        self.inventory = Inventory(self.settings.backends, self.store, self.device, self.specs)

    def explain(self, task: TaskName | None = None, tokens: int | None = None) -> Selection:
        """Weigh every model, variant and backend for this device; nothing needs to be installed."""
        own = self._own()
        return self._weigh_own(own, task, tokens) if own else self._weigh(task, tokens)[0]

    def _weigh(
        self, task: TaskName | None = None, tokens: int | None = None
    ) -> tuple[Selection, list[BackendOffer], list[ModelSpec]]:
        """The choice among the models of the catalogue, with what it was made from."""
        here = self.inventory.store.installed()
        name, variant = self._name()
        if name is not None and name not in {*(s.name for s in self.inventory.specs), *(m.name for m in here)}:
            catalogue.get(name)  # raises, with the nearest names
        offers = self.inventory.offers()
        specs = self.inventory.specs_with(here, offers, variant)
        models = [model for model in here if name in (None, model.name)]
        return self._select(specs, models, offers, self._need(task, tokens)), offers, specs

    def _select(
        self,
        specs: Sequence[ModelSpec],
        models: Sequence[InstalledModel | LocalModel],
        offers: Sequence[BackendOffer],
        need: Need,
    ) -> Selection:
        installed = frozenset((model.name, model.variant) for model in models)
        copies = self._copies(models)
        speeds = () if self.embeds else self.inventory.speeds(models)
        return select(self.inventory.device_for(offers), specs, offers, installed, need, copies, speeds)

    def _weigh_own(
        self, models: Sequence[InstalledModel | LocalModel], task: TaskName | None = None, tokens: int | None = None
    ) -> Selection:
        """The choice among the variants of one model outside the catalogue, which was asked for by name or path."""
        spec = self.inventory.own_spec(models)
        need = replace(self._need(task, tokens), model=spec.name, variant=None)
        return self._select([spec], models, self.inventory.offers(), need)

    def _own(self) -> list[InstalledModel | LocalModel]:
        """The file, or the installed variants, of the model that was named, if that is outside the catalogue."""
        model = self._wanted()
        if model and is_path(model):
            return [self.inventory.store.from_path(model)]
        name, variant = self._name()
        if name is None or name in {spec.name for spec in self.inventory.specs}:
            return []
        here = self.inventory.store.installed()
        return [each for each in here if each.name == name and variant in (None, each.variant)]

    def resolve(self) -> Chosen:
        """The model that is used, from the store or a path; decided once.

        Raises:
            ModelNotInstalled, NoModelFits, ModelCorrupt, BackendUnavailable, ConfigurationError.
        """
        if self.chosen is None:
            model = self._wanted()
            if model and is_path(model):
                found = self.inventory.store.from_path(model)
                self._require_kind(gives_embeddings(found), found.name)
                self.chosen = self._choose_own([found])
            else:
                self.chosen = self._from_store()
        return self.chosen

    def adapter(self, name: str) -> LocalAdapter:
        """An installed adapter that fits the model.

        Raises:
            ModelNotInstalled, ModelUnsupported: it was made for another model. ModelCorrupt, Unsupported, StoreError.
        """
        from ondevice_sdk.store import adapters

        found = adapters.resolve(self.inventory.store, name)
        if found not in self.resolve().options.adapters:
            require_fit(found, *self._loading())
        return found

    def adapters(self, first: LocalAdapter | None = None) -> tuple[LocalAdapter, ...]:
        """Those that the model is to be loaded with, as far as there is memory: this one, the app's own, all others."""
        model, backend, device = self._loading()
        others = [] if self.embeds else all_fitting(self.inventory.store, model, backend, device)
        others.sort(key=lambda each: each.name != self.settings.adapter)
        wanted = others if first is None else [first, *(each for each in others if each.name != first.name)]
        return affordable(wanted, model, shape_of(model), self.resolve().options, backend, device)

    def load_with(self, adapters: tuple[LocalAdapter, ...]) -> Chosen:
        """The choice, with these adapters."""
        chosen = self.resolve()
        self.chosen = replace(chosen, options=replace(chosen.options, adapters=adapters))
        return self.chosen

    def _loading(self) -> tuple[LocalModel, Backend, DeviceProfile]:
        chosen = self.resolve()
        return chosen.model, self.inventory.backends()[chosen.backend], self.inventory.device

    def calibrate(self, *, again: bool, on_progress: ProgressCallback | None) -> tuple[Calibration, ...]:
        """Measure this device with every usable backend that can be, then models; what is known already stays.

        Models are measured where backends compete for them, or nothing else tells their speed: all that are installed,
        or the one that the app named.
        """
        made = self.inventory.calibrate(again=again, on_progress=on_progress)
        models = self._own()
        if not models:
            name, _ = self._name()
            models = [each for each in self.inventory.store.installed() if name in (None, each.name)]
        self.inventory.measure(models, again=again, on_progress=on_progress)
        return made

    def availability(self, task: TaskName) -> Availability:
        """Whether `task` can run now, could after a download, or not at all."""
        try:
            backend = self.inventory.backends()[self.resolve().backend]
            missing = _NEEDED[task] - backend.probe(self.inventory.device).capabilities
        except errors.ModelNotInstalled as error:
            name, _ = catalogue.split_name(error.model or catalogue.DEFAULT)
            state: Literal["downloading", "downloadable"] = (
                "downloading" if self.inventory.store.pulling(name) else "downloadable"
            )
            return Availability(state, (error.message,) + ((error.hint,) if error.hint else ()))
        except errors.OnDeviceError as error:
            return Availability("unavailable", (error.message,) + ((error.hint,) if error.hint else ()))
        if missing:
            return Availability("unavailable", (f"the backend lacks {', '.join(sorted(missing))}",))
        if self.settings.adapter is not None and not self.embeds:
            try:
                self.adapter(self.settings.adapter)
            except errors.OnDeviceError as error:
                return Availability("unavailable", (error.message,) + ((error.hint,) if error.hint else ()))
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
        if is_path(model):
            return _file_embeds(model)
        name = model.partition(":")[0]
        return any(spec.name == name and spec.embeds for spec in self.inventory.specs) or any(
            each.name == name and gives_embeddings(each) for each in self.inventory.store.installed()
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
        for spec in self.inventory.specs:
            if spec.name == name:
                self._require_kind(spec.embeds, spec.name)
        selection, offers, specs = self._weigh()
        candidate = choose_installed(selection)
        if candidate is None:
            return self._outside_catalogue(selection)
        model = self.inventory.store.resolve(candidate.name, candidate.variant)
        if candidate.layout is not None:  # a copy that was damaged meanwhile is as good as none
            model = self.inventory.store.copies.resolve(model) or model
        offer = next(offer for offer in offers if offer.name == candidate.backend)
        spec = next(spec for spec in specs if spec.name == candidate.name)
        fitting = plan(self.inventory.device, spec, spec.variant(candidate.variant), offer, self._need())
        return self._choose(model, candidate.backend, fitting.options)

    def _outside_catalogue(self, selection: Selection) -> Chosen:
        """A model that the app's user added under a name of its own, else the error that says what to do."""
        name, variant = self._name()
        own = self._added(name, variant)
        if own:
            self._require_kind(gives_embeddings(own[0]), own[0].name)
            return self._choose_own(own)
        if self._is_unmade(name, variant):
            raise errors.ModelNotInstalled(
                f"the model {name}:{variant} is not installed", model=name, hint="see `ondevice models list`"
            )
        if selection.chosen is None:
            self._require_backend({variant.format for spec in self.inventory.specs for variant in spec.variants})
            raise no_model_fits(selection)
        wanted = self._wanted() or selection.chosen.name
        some = "no embedding model is installed" if self.embeds else "no model that can run here is installed"
        raise errors.ModelNotInstalled(
            f"the model {wanted} is not installed" if name else some,
            model=wanted,
            hint=f"ondevice models pull {wanted}",
        )

    def _added(self, name: str | None, variant: str | None) -> list[InstalledModel]:
        """The first such model outside the catalogue that can be run, else the first, in all forms of one precision."""
        known = {spec.name for spec in self.inventory.specs}
        here = [
            each
            for each in self.inventory.store.installed()
            if each.name not in known and name in (None, each.name) and variant in (None, each.variant)
        ]
        if name is None:
            here = [each for each in here if gives_embeddings(each) == self.embeds]
        formats = {form for offer in self.inventory.offers() if offer.usable for form in offer.formats}
        usable = [each for each in here if each.format in formats] or here
        return [
            each
            for each in usable
            if (each.name, _precision(each.variant)) == (usable[0].name, _precision(usable[0].variant))
        ]

    def _is_unmade(self, name: str | None, variant: str | None) -> bool:
        """Whether a variant was named that is not downloaded but made here, and is not here."""
        specs = [spec for spec in self.inventory.specs if spec.name == name]
        made = variant is not None and "-" in variant
        return made and any(variant not in {each.name for each in spec.variants} for spec in specs)

    def _choose_own(self, models: Sequence[InstalledModel | LocalModel]) -> Chosen:
        """A model outside the catalogue: of the forms of one precision, and the backends that read them, the best."""
        self._require_backend({each.format for each in models})
        offers = [each for each in self.inventory.offers() if each.usable]
        pairs = [(model, offer) for model in models for offer in offers if model.format in offer.formats]
        model, offer = pairs[0]
        if len(pairs) > 1:
            best = self._weigh_own(models).chosen
            if best is not None:
                model, offer = next(
                    (model, offer)
                    for model, offer in pairs
                    if (model.variant, offer.name) == (best.variant, best.backend)
                )
        if isinstance(model, LocalModel):
            return self._weigh_file(model, offer)
        return self._weigh_file(self.inventory.store.resolve(model.name, model.variant), offer, self._copies([model]))

    def _weigh_file(self, model: LocalModel, offer: BackendOffer, copies: Sequence[CopyOffer] = ()) -> Chosen:
        """A model outside the catalogue, weighed by what its files say; refused with numbers where it does not fit."""
        size = model.size()
        context = None if self.embeds else self.settings.context
        options, needed = LoadOptions(context_tokens=context), Footprint(size, 0, 0).total
        if (shape := shape_of(model)) is not None:
            spec = self.inventory.own_spec([model])
            fitting = plan(self.inventory.device, spec, spec.variants[0], offer, self._need())
            options, needed = fitting.options, fitting.memory_bytes
            if any(
                objection(self.inventory.device, shape, copy, fitting, offer, self.settings.prefer) is None
                for copy in copies
                if copy.backend == offer.name
            ):
                model = self.inventory.store.copies.resolve(model) or model
        room = usable_memory(self.inventory.device)
        if needed > room:
            reason = f"needs {needed / 1e9:.2f} GB, {room / 1e9:.2f} GB can be used"
            raise errors.NoModelFits(f"{model.name} {reason}", rejections={model.name: reason})
        return self._choose(model, offer.name, options)

    def _copies(self, models: Sequence[InstalledModel | LocalModel]) -> list[CopyOffer]:
        return self.inventory.copies([each for each in models if not isinstance(each, LocalModel)])

    def _require_backend(self, formats: set[str]) -> BackendOffer:
        """A usable backend that reads one of the formats, or the error that says what to install."""
        offers = [offer for offer in self.inventory.offers() if offer.formats & formats]
        for offer in offers:
            if offer.usable:
                return offer
        reason = (
            f"{offers[0].name}: {offers[0].reason}" if offers else f"none reads {' or '.join(sorted(formats))} files"
        )
        hint = offers[0].hint if offers else "see `ondevice backends`"
        if formats == {"safetensors"}:
            hint = "most folders of this form become a model with: ondevice models add FOLDER"
        raise errors.BackendUnavailable(f"no backend is usable here ({reason})", reason=reason, hint=hint)

    def _choose(self, model: LocalModel, backend: str, options: LoadOptions) -> Chosen:
        options = replace(options, threads=self.inventory.device.threads)
        return Chosen(model, backend, self.inventory.entry(backend), options)

    def _name(self) -> tuple[str | None, str | None]:
        """The model asked for as name and variant; nothing where it is a path or does not matter."""
        model = self._wanted()
        return (None, None) if model is None or is_path(model) else catalogue.split_name(model)

    def _need(self, task: TaskName | None = None, tokens: int | None = None) -> Need:
        name, variant = self._name()
        settings = self.settings
        if self.embeds:
            return Need("embed", tokens, settings.prefer, name, variant)
        return Need(task, tokens, settings.prefer, name, variant, settings.context)


def _precision(variant: str) -> str:
    return variant.partition("-")[0]


def _file_embeds(path: str) -> bool:
    """By the file's own header; what cannot be read will be refused when it is used."""
    header = file_header(path)
    return header is not None and header.embeds
