"""Which installed adapters a model is loaded with: those that fit it, as many as memory allows."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from ondevice_sdk.backends.api import Backend, Capability, Footprint, LoadOptions, LocalAdapter, LocalModel, unsupported
from ondevice_sdk.catalogue import lora
from ondevice_sdk.catalogue.lora import Base
from ondevice_sdk.errors import ModelUnsupported, OnDeviceError, StoreError
from ondevice_sdk.selection import usable_memory
from ondevice_sdk.store import Store, adapters
from ondevice_sdk.types import DeviceProfile, ModelShape


def require_fit(adapter: LocalAdapter, model: LocalModel, backend: Backend, device: DeviceProfile) -> None:
    """Refuse an adapter that was made for a model of another shape.

    Raises:
        ModelUnsupported. ModelCorrupt: it is damaged. Unsupported: the backend has no adapters. StoreError.
    """
    if Capability.ADAPTER not in backend.probe(device).capabilities:
        raise unsupported(Capability.ADAPTER)
    try:
        file, base = lora.read(adapter.path), _base(*map(_state, model.files or (model.path,)))
    except OSError as error:
        raise StoreError(f"the adapter {adapter.name} cannot be read: {error.strerror}") from error
    if (reason := lora.misfit(file, base)) is not None:
        hint = f"name the model that {adapter.name} was made for as model="
        raise ModelUnsupported(f"the adapter {adapter.name} {reason}", architecture=file.architecture, hint=hint)


def all_fitting(store: Store, model: LocalModel, backend: Backend, device: DeviceProfile) -> list[LocalAdapter]:
    """Every installed adapter that can be used with a model; the others say why when they are asked for."""
    made: list[LocalAdapter] = []
    with contextlib.suppress(StoreError):
        for each in adapters.installed(store):
            with contextlib.suppress(OnDeviceError):
                require_fit(found := adapters.resolve(store, each.name), model, backend, device)
                made.append(found)
    return made


def affordable(
    wanted: Sequence[LocalAdapter],
    model: LocalModel,
    shape: ModelShape | None,
    options: LoadOptions,
    backend: Backend,
    device: DeviceProfile,
) -> tuple[LocalAdapter, ...]:
    """Those for which there is memory beside the model, in their order."""
    room = usable_memory(device)
    kept: tuple[LocalAdapter, ...] = ()
    for each in dict.fromkeys(wanted):
        tried = replace(options, adapters=(*kept, each))
        if shape is None:
            footprint = Footprint(model.size() + sum(adapter.size for adapter in tried.adapters), 0, 0)
        else:
            footprint = backend.estimate(shape, model.size(), tried)
        if footprint.total <= room:
            kept = tried.adapters
    return kept


def _state(path: str) -> tuple[str, int, int]:
    state = Path(path).stat()
    return path, state.st_size, state.st_mtime_ns


@lru_cache(maxsize=8)  # every adapter, and every first use of one, asks for it; a header takes 20 ms and more
def _base(*files: tuple[str, int, int]) -> Base:
    return lora.read_base([path for path, _, _ in files])
