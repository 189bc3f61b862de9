"""Models that a backend makes for itself out of installed ones: converted or compiled here, by its own maker."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ondevice_sdk.backends.api import Backend, Builder, LocalModel
from ondevice_sdk.call import ProgressCallback
from ondevice_sdk.errors import BackendUnavailable, ConfigurationError, ModelCorrupt, ModelNotInstalled, Unsupported
from ondevice_sdk.runtime import making
from ondevice_sdk.store import InstalledModel, Store
from ondevice_sdk.store.elsewhere import digest_of, is_path
from ondevice_sdk.store.files import private_dir, slug, split_name, store_errors
from ondevice_sdk.store.from_builder import add_built
from ondevice_sdk.types import DeviceProfile, Progress

if TYPE_CHECKING:
    from ondevice_sdk.backends.registry import Registration


@dataclass(frozen=True, slots=True)
class Workshop:
    """A backend that makes models here. `plugin` is its distribution with its version."""

    backend: Backend
    builder: Builder
    plugin: str


@dataclass(frozen=True, slots=True)
class Source:
    """What is built from: a model with the SHA-256 of each of its files, and the licence of its weights."""

    model: LocalModel
    digests: tuple[str, ...]
    licence: str

    @property
    def label(self) -> str:
        """For people; never a path of this machine."""
        return f"{self.model.name}:{self.model.variant}"


def workshop(name: str, installed: Mapping[str, Registration], device: DeviceProfile) -> Workshop:
    """The backend of that name.

    Raises:
        ConfigurationError: none is called so. BackendUnavailable: it does not work here. Unsupported: it makes nothing.
    """
    if (registration := installed.get(name)) is None:
        raise ConfigurationError(
            f"no backend is called {name[:80]!r}; installed: {', '.join(installed)}", hint="see `ondevice backends`"
        )
    backend = registration.create()
    if (builder := backend.builder()) is None:
        raise Unsupported(f"the backend {name} makes no models", capability="build")
    probe = backend.probe(device)
    if not probe.usable:
        reason, hint = probe.reason, probe.hint or None
        raise BackendUnavailable(f"the backend {name} is not usable here: {reason}", reason=reason, hint=hint)
    try:
        version = importlib.metadata.version(registration.distribution)
    except importlib.metadata.PackageNotFoundError:  # gone since it was found
        version = "unknown"
    return Workshop(backend, builder, f"{registration.distribution} {version}")


def source(store: Store, name: str, builder: Builder) -> Source:
    """The model of that name, or at that path; of several variants the largest, which is the most exact.

    Raises:
        ModelNotInstalled, ModelCorrupt, StoreError. Unsupported: nothing is made of models of its format.
    """
    if is_path(name):
        model = store.from_path(name)
        _require(model.format, builder, model.name)
        digests = tuple(digest_of(store.space, Path(path)) for path in model.files)
        return Source(model, digests, "unknown")
    base, variant = split_name(name)
    here = [each for each in store.installed() if each.name == base and variant in (None, each.variant)]
    if not here:
        store.resolve(base, variant)  # damaged, or not here: it raises
    fitting = [each for each in here if each.format in builder.sources]
    if not fitting:
        _require(here[0].format, builder, name)
    best = max(fitting, key=lambda each: each.size)
    model = store.resolve(best.name, best.variant)
    return Source(model, tuple(file.digest for file in store.manifest(best.name, best.variant).files), best.licence)


def _require(form: str, builder: Builder, name: str) -> None:
    if form not in builder.sources:
        raise Unsupported(
            f"{name} is of the format {form}; models are made of {' or '.join(builder.sources)}", capability="build"
        )


def build(
    store: Store,
    made_of: Source,
    by: Workshop,
    device: DeviceProfile,
    *,
    to: str,
    target: str | None = None,
    again: bool = False,
    on_progress: ProgressCallback | None = None,
) -> InstalledModel:
    """Make a model and install it; see `models.build`."""
    builder = by.builder
    if to not in builder.precisions:
        raise ConfigurationError(f"not a precision: {to[:80]!r}", hint=f"one of {', '.join(builder.precisions)}")
    name, variant = slug(made_of.model.name), f"{to}-{builder.form}"
    recipe = _recipe(made_of, by, device, to, target)

    def tell(stage: str, share: float) -> None:
        if on_progress is not None:
            on_progress(Progress(stage, round(100 * share), 100, "percent"))

    # Not a lock that begins with the model's name: those say that it is being downloaded.
    with store.space.lock(f"build.{name}--{variant}"), store.space.session() as work:
        if not again and (here := _made_before(store, name, variant, recipe)) is not None:
            return here
        with store_errors("make a folder", work):
            folder, temporary = private_dir(work / "model"), private_dir(work / "temporary")
        names = making.make(
            builder.maker,
            {"source": made_of.model.path, "precision": to, "target": target, "threads": device.threads},
            folder=folder,
            temporary=temporary,
            on_progress=tell,
        )
        return add_built(
            store,
            {each: folder / each for each in names},
            name=name,
            variant=variant,
            form=builder.form,
            source=f"built by {by.plugin} ({builder.library}) from {made_of.label}",
            licence=made_of.licence,
            recipe=recipe,
            take=Path.replace,  # the folder is ours alone by now
        )


def _recipe(made_of: Source, by: Workshop, device: DeviceProfile, to: str, target: str | None) -> str:
    """One word for all that decides what is made: without a target, also this processor."""
    here = (device.machine, device.cpu_name, *device.instruction_sets) if target is None else ()
    words = (made_of.model.format, made_of.digests, by.plugin, by.builder.library, by.builder.maker, to, target, here)
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()


def _made_before(store: Store, name: str, variant: str, recipe: str) -> InstalledModel | None:
    """The model of that recipe, if it is here and whole."""
    try:
        same = store.manifest(name, variant).recipe == recipe
    except (ModelNotInstalled, ModelCorrupt):
        return None
    return store.whole(name, variant) if same else None
