"""Examines this machine: whether privacy holds, what the hardware is, which backends work, how the store is."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Literal

from ondevice_sdk.backends.registry import BackendStatus
from ondevice_sdk.errors import OnDeviceError, PrivacyUnavailable
from ondevice_sdk.store import Store
from ondevice_sdk.trials import Trial, Trials, run_trials, summarise
from ondevice_sdk.types import DeviceProfile, Progress

__all__ = ["Diagnosis", "ModelState", "PrivacyState", "StoreState", "Trial", "Trials", "examine", "memory_warnings"]

# Magic numbers of statfs(2): file systems whose files come, or may come, over a network.
_NETWORK_FILE_SYSTEMS: Final = {
    0x6969: "NFS",
    0x517B: "SMB",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB2",
    0x01021997: "9P",
    0x00C36400: "Ceph",
    0x5346414F: "AFS",
    0x65735546: "FUSE",
    0x0BD00BD0: "Lustre",
}


@dataclass(frozen=True, slots=True)
class PrivacyState(Trials):
    """Whether strict privacy holds here, and what became of the attempts on it.

    `enforced`: it can be had, and no attempt got through it. `reasons`: why it cannot be had.
    """

    enforced: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelState:
    """A model in the store. `state`: verified since it last changed on the disk, corrupt, or not readable."""

    name: str
    variant: str
    sha256: str
    state: Literal["verified", "corrupt", "unreadable"]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StoreState:
    """Where models lie. `file_system` is named where it is a network's."""

    root: str
    exists: bool
    writable: bool
    file_system: str
    models: tuple[ModelState, ...]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything that was found out. `warnings` are in words, each with what to do."""

    privacy: PrivacyState
    hardware: DeviceProfile
    backends: tuple[BackendStatus, ...]
    store: StoreState
    warnings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether strict privacy can be had and nothing escaped it."""
        return self.privacy.enforced


def examine(
    *, full: bool = False, store: Store | None = None, on_progress: Callable[[Progress], None] | None = None
) -> Diagnosis:
    """Find out; takes under a minute. Nothing leaves the machine, and nothing is left behind.

    Args:
        full: also attempts whose control may make the kernel load a module, and the memory's bandwidth.
        store: the models to look at; the user's own by default.
        on_progress: called from any thread.

    Raises:
        StoreError: there is no place for a store.
    """
    from ondevice_sdk.backends import registry
    from ondevice_sdk.device import detect

    hardware = detect(measure=full)
    state = _store(store or Store.open())
    return Diagnosis(
        privacy=_privacy(full, on_progress),
        hardware=hardware,
        backends=tuple(registry.status(hardware)),
        store=state,
        warnings=(*memory_warnings(), *_store_warnings(state)),
    )


def _privacy(full: bool, on_progress: Callable[[Progress], None] | None) -> PrivacyState:
    reasons: tuple[str, ...] = ()
    try:
        trials = run_trials(full=full, on_progress=on_progress)
    except PrivacyUnavailable as error:
        trials, reasons = summarise(()), error.reasons or (error.message,)
    found = {field.name: getattr(trials, field.name) for field in fields(trials)}
    return PrivacyState(**found, enforced=not trials.escaped and trials.refused > 0, reasons=reasons)


def _store(store: Store) -> StoreState:
    root = store.root
    existing = next(place for place in (root, *root.parents) if place.exists())
    models = []
    for installed in store.installed():
        state: Literal["verified", "corrupt", "unreadable"] = "verified"
        reason = ""
        try:
            store.resolve(installed.name, installed.variant)  # hashes only what changed since it was last hashed
        except OnDeviceError as error:
            state, reason = ("corrupt" if error.code == "model_corrupt" else "unreadable"), error.message
        models.append(ModelState(installed.name, installed.variant, installed.sha256, state, reason))
    return StoreState(
        root=str(root),
        exists=root.exists(),
        writable=os.access(existing, os.W_OK),
        file_system=network_file_system(existing),
        models=tuple(models),
    )


def _store_warnings(state: StoreState) -> tuple[str, ...]:
    warnings = [
        f"{model.name}:{model.variant} is {model.state}: {model.reason}"
        for model in state.models
        if model.state != "verified"
    ]
    if state.file_system:
        warnings.append(
            f"the store lies on {state.file_system}, which may fetch models over the network; "
            "set ONDEVICE_HOME to a local directory"
        )
    if not state.writable:
        warnings.append(f"the store at {state.root} cannot be written: models cannot be pulled")
    return tuple(warnings)


def memory_warnings(proc: Path = Path("/proc")) -> tuple[str, ...]:
    """Where text in memory could come to lie on a disk: swap, and core files of the app.

    Args:
        proc: where the kernel tells.
    """
    warnings = []
    areas = [line.split()[0] for line in _text(proc / "swaps").splitlines()[1:] if line.split()]
    on_disk = [area for area in areas if not Path(area).name.startswith(("zram", "dm-"))]
    if on_disk:
        warnings.append(
            f"memory may be swapped to {', '.join(on_disk)}: text in it stays there; encrypt the swap, or turn it off"
        )
    pattern = _text(proc / "sys" / "kernel" / "core_pattern").strip()
    if pattern.startswith("|"):
        warnings.append(
            "core files are handed to a program: the worker writes none, but a crash of the app would hand it the text"
        )
    return tuple(warnings)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def network_file_system(path: Path) -> str:
    """The kind of network file system that `path` lies on, "" for a local one or where the system cannot tell."""
    if sys.platform != "linux":
        return ""
    import ctypes

    answer = ctypes.create_string_buffer(256)
    if ctypes.CDLL(None).statfs(os.fsencode(path), answer) != 0:
        return ""
    kind = ctypes.c_long.from_buffer(answer).value & 0xFFFFFFFF  # the first field of struct statfs, f_type
    return _NETWORK_FILE_SYSTEMS.get(kind, "")
