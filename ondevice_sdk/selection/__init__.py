"""Which model, precision and backend fit this device and this need, with the reasons. Pure."""

from ondevice_sdk.selection.choose import choose_installed, no_model_fits, select
from ondevice_sdk.selection.copies import objection
from ondevice_sdk.selection.memory import Plan, plan, usable_memory
from ondevice_sdk.selection.need import BackendOffer, CopyOffer, Estimate, Need
from ondevice_sdk.selection.record import record, replay

__all__ = [
    "BackendOffer",
    "CopyOffer",
    "Estimate",
    "Need",
    "Plan",
    "choose_installed",
    "no_model_fits",
    "objection",
    "plan",
    "record",
    "replay",
    "select",
    "usable_memory",
]
