"""LoRA adapters in the store: kept like models, under a name of their own."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ondevice_sdk.backends.api import LocalAdapter
from ondevice_sdk.catalogue import lora
from ondevice_sdk.errors import ConfigurationError, ModelCorrupt, ModelNotInstalled, OnDeviceError
from ondevice_sdk.store.results import InstalledAdapter, InstalledModel
from ondevice_sdk.store.store import Store


def installed(store: Store) -> tuple[InstalledAdapter, ...]:
    """The adapters that are here, by name."""
    return tuple(_describe(each) for each in store.installed(adapters=True) if each.format == lora.FORMAT)


def resolve(store: Store, name: str) -> LocalAdapter:
    """An adapter, known to be what it was when it was installed.

    Raises:
        ModelNotInstalled: none of this name is here; the message does not quote it. ModelCorrupt, StoreError.
    """
    try:
        found = store.manifest(name, lora.VARIANT)
        if found.format != lora.FORMAT or found.name != name:
            raise ModelNotInstalled
        model = store.resolve(name, lora.VARIANT)
    except (ModelNotInstalled, ConfigurationError):  # whatever was given as a name may be a text
        hint = "`ondevice models list` shows those that are, `ondevice models add FILE` installs"
        raise ModelNotInstalled("no adapter of this name is installed", hint=hint) from None
    except ModelCorrupt as error:
        hint = f"ondevice models remove {name}, then add its file again"
        raise ModelCorrupt(error.message, expected=error.expected, actual=error.actual, hint=hint) from error
    return LocalAdapter(found.name, model.path, model.sha256, found.size)


def _describe(found: InstalledModel) -> InstalledAdapter:
    architecture, rank, matrices = "", 0, 0
    with contextlib.suppress(OnDeviceError, OSError):  # said by `verify`, and when it is used
        file = lora.read(Path(found.path))
        architecture, rank, matrices = file.architecture, file.rank, len(file.pairs)
    return InstalledAdapter(
        found.name,
        found.format,
        found.size,
        found.sha256,
        found.path,
        found.installed_at,
        found.licence,
        found.source,
        architecture,
        rank,
        matrices,
    )
