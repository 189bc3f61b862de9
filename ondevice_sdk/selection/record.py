"""A choice as data: the inputs in JSON, and the same choice made again from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ondevice_sdk.backends.api import KvType
from ondevice_sdk.backends.calibration import Calibration
from ondevice_sdk.backends.measured import ModelSpeed
from ondevice_sdk.catalogue.plain import build
from ondevice_sdk.catalogue.spec import ModelSpec
from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.selection.choose import select
from ondevice_sdk.selection.need import BackendOffer, CopyOffer, Estimate, Need
from ondevice_sdk.types import DeviceProfile, Selection

FORMAT = 1


@dataclasses.dataclass(frozen=True, slots=True)
class _Offer:
    name: str
    formats: tuple[str, ...]
    usable: bool
    reason: str
    kv_types: tuple[KvType, ...] = ("f16",)
    calibration: Calibration | None = None
    built_in: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class _Installed:
    name: str
    variant: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Record:
    format: int
    device: DeviceProfile
    specs: tuple[ModelSpec, ...]
    backends: tuple[_Offer, ...]
    installed: tuple[_Installed, ...]
    need: Need
    copies: tuple[CopyOffer, ...] = ()
    speeds: tuple[ModelSpeed, ...] = ()


def record(
    device: DeviceProfile,
    specs: Sequence[ModelSpec],
    backends: Sequence[BackendOffer],
    installed: frozenset[tuple[str, str]],
    need: Need,
    copies: Sequence[CopyOffer] = (),
    speeds: Sequence[ModelSpeed] = (),
) -> dict[str, Any]:
    """The inputs of `select` as values that `json.dumps` takes. They hold no text of the user's."""
    offers = tuple(
        _Offer(
            each.name,
            tuple(sorted(each.formats)),
            each.usable,
            each.reason,
            each.kv_types,
            each.calibration,
            each.built_in,
        )
        for each in backends
    )
    on_disk = tuple(_Installed(*each) for each in sorted(installed))
    made = _Record(FORMAT, device, tuple(specs), offers, on_disk, need, tuple(copies), tuple(speeds))
    return dataclasses.asdict(made)


def replay(recorded: object, estimates: Mapping[str, Estimate]) -> Selection:
    """Make the choice of a record again. `estimates` has the memory prediction of each backend by its name.

    Raises:
        ConfigurationError: it is not such a record, or a backend's prediction is missing.
    """
    data = build(_Record, recorded, "record")
    if data.format != FORMAT:
        raise ConfigurationError(f"record: format {data.format} is not {FORMAT}")
    if missing := sorted({each.name for each in data.backends} - set(estimates)):
        raise ConfigurationError(f"record: no memory prediction for the backend {missing[0]!r}")
    offers = [
        BackendOffer(
            each.name,
            frozenset(each.formats),
            each.usable,
            each.reason,
            kv_types=each.kv_types,
            calibration=each.calibration,
            built_in=each.built_in,
            estimate=estimates[each.name],
        )
        for each in data.backends
    ]
    installed = frozenset((each.name, each.variant) for each in data.installed)
    return select(data.device, data.specs, offers, installed, data.need, data.copies, data.speeds)
