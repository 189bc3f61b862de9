"""Models on this disk, and the ways that they get there."""

from ondevice_sdk.store.manifest import Manifest, ModelFile
from ondevice_sdk.store.results import InstalledAdapter, InstalledModel, VerifyResult
from ondevice_sdk.store.store import Removal, Store

__all__ = ["InstalledAdapter", "InstalledModel", "Manifest", "ModelFile", "Removal", "Store", "VerifyResult"]
