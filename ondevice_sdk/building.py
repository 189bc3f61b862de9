"""Models that a backend makes for itself out of installed ones: converted or compiled here, by its own maker."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ondevice_sdk.backends.api import Backend, Builder
from ondevice_sdk.call import ProgressCallback
from ondevice_sdk.errors import (
    BackendUnavailable,
    ConfigurationError,
    ModelCorrupt,
    ModelNotInstalled,
    StoreError,
    Unsupported,
)
from ondevice_sdk.runtime import making
from ondevice_sdk.store import InstalledModel, Store, originals
from ondevice_sdk.store.files import private_dir, slug, store_errors
from ondevice_sdk.store.from_builder import add_built
from ondevice_sdk.store.originals import Original
from ondevice_sdk.types import DeviceProfile, Progress

if TYPE_CHECKING:
    from ondevice_sdk.backends.registry import Registration


@dataclass(frozen=True, slots=True)
class Workshop:
    """A backend that makes models here. `plugin` is its distribution with its version."""

    backend: Backend
    builder: Builder
    plugin: str


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


def source(store: Store, name: str, builder: Builder) -> Original:
    """The model of that name, or at that path, that a builder makes another of; errors as `originals.find`."""
    return originals.find(store, name, builder.sources, capability="build")


def build(
    store: Store,
    made_of: Original,
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
    name, variant = slug(made_of.model.name), _variant(to, builder.form, target)
    recipe = _recipe(made_of, by, device, to, target)

    def tell(stage: str, share: float) -> None:
        if on_progress is not None:
            on_progress(Progress(stage, round(100 * share), 100, "percent"))

    # Not a lock that begins with the model's name: those say that it is being downloaded.
    with store.space.lock(f"build.{name}--{variant}"), store.space.session() as work:
        if not again and (here := _made_before(store, name, variant, recipe)) is not None:
            return here
        _refuse_other(store, name, variant)
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


def _variant(to: str, form: str, target: str | None) -> str:
    """What is made is called; made for elsewhere, it stands beside what was made for this processor."""
    words = [to, form] if target is None else [to, form, hashlib.sha256(target.encode()).hexdigest()[:8]]
    return "-".join(words)


def _refuse_other(store: Store, name: str, variant: str) -> None:
    """Before the work of minutes: a model that was not made here keeps its name."""
    try:
        made_here = store.manifest(name, variant).recipe is not None
    except (ModelNotInstalled, ModelCorrupt):
        return
    if not made_here:
        raise StoreError(
            f"another model is installed as {name}:{variant}",
            hint=f"remove it first: ondevice models remove {name}:{variant}",
        )


def _recipe(made_of: Original, by: Workshop, device: DeviceProfile, to: str, target: str | None) -> str:
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
