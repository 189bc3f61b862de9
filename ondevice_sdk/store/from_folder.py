"""Folders of the user's that become models of the store; see `folders` for those that are known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ondevice_sdk.store import folders
from ondevice_sdk.store.files import slug, split_name
from ondevice_sdk.store.from_builder import add_pinned
from ondevice_sdk.store.results import InstalledModel
from ondevice_sdk.store.store import Store


def add(
    store: Store,
    folder: Path,
    *,
    name: str | None = None,
    variant: str | None = None,
    licence: str | None = None,
    pin: Mapping[str, str] | None = None,
) -> InstalledModel:
    """Copy a model folder into the store; see `models.add`.

    Raises:
        ModelNotInstalled, ModelCorrupt, ConfigurationError, StoreError.
    """
    folder = folder.absolute()
    found = folders.find(folder)
    name, suffix = split_name(slug(folder.name) if name is None else name, variant)
    return add_pinned(
        store,
        found.files,
        pin or {},
        name=name,
        variant=suffix or found.variant,
        form=found.format,
        source=f"file:{folder}",
        licence=licence or "unknown",
    )
