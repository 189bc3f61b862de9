"""Whether an optimised copy is used in place of the model's own file. Pure."""

from __future__ import annotations

from ondevice_sdk.selection.memory import Plan, usable_memory
from ondevice_sdk.selection.need import BackendOffer, CopyOffer
from ondevice_sdk.types import DeviceProfile, ModelShape, Prefer


def objection(
    device: DeviceProfile, shape: ModelShape, copy: CopyOffer, planned: Plan, offer: BackendOffer, prefer: Prefer
) -> str | None:
    """What speaks against a copy where the model's own file would be loaded as planned; None: it is used.

    It never costs context: loaded with the same options it has to fit as well.
    """
    own, its = planned.memory_bytes, memory_bytes(shape, copy, planned, offer)
    usable = usable_memory(device)
    why = copy.stale
    if not why and its > usable:
        why = f"needs {its / 1e6:.0f} MB, {usable / 1e6:.0f} MB can be used"
    if not why and prefer == "memory" and its > own:
        why = f"needs {(its - own) / 1e6:.0f} MB more"
    return f"its optimised copy ({copy.layout}) is not used: {why}" if why else None


def memory_bytes(shape: ModelShape, copy: CopyOffer, planned: Plan, offer: BackendOffer) -> int:
    """The memory of a worker with the copy."""
    return offer.estimate(shape, copy.size, planned.options).total
