"""The measurement of this device: made once per hardware and library version, in a sealed worker, and kept."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from ondevice_sdk.backends.api import Calibrator
from ondevice_sdk.backends.calibration import Calibration
from ondevice_sdk.catalogue.plain import build
from ondevice_sdk.errors import ConfigurationError, LoadFailed, OnDeviceError, StoreError
from ondevice_sdk.privacy import policy
from ondevice_sdk.types import DeviceProfile, PrivacyLevel

FORMAT: Final = 1  # of the kept files, and of what is measured
SECONDS: Final = 9.0
_MOST_S: Final = 120.0  # without a sign of progress


def kept(folder: Path, calibrator: Calibrator, device: DeviceProfile) -> Calibration | None:
    """What was measured on this hardware with this library before; None if nothing was, or it is damaged."""
    try:
        data = json.loads(_file(folder, calibrator, device).read_text(encoding="utf-8"))
        return _checked(data)
    except (OSError, ValueError, RecursionError, OnDeviceError):
        return None


def measure(
    folder: Path,
    entry: str,
    calibrator: Calibrator,
    device: DeviceProfile,
    *,
    seconds: float = SECONDS,
    on_progress: Callable[[float], None] | None = None,
) -> Calibration:
    """Measure this device with one library in a sealed worker, and keep the figures in `folder`.

    Args:
        folder: where calibrations are kept; made when needed.
        entry: the backend as "module:attribute".
        calibrator: what the backend is measured with.
        device: this device.
        seconds: about how long it may take; at the end of it, formats that matter less are left out.
        on_progress: called with the share of the work that is done.

    Raises:
        LoadFailed, WorkerCrashed: the measuring failed. StoreError: the figures cannot be kept.
    """
    from ondevice_sdk.runtime.probe_worker import run_in_worker

    make_folder(folder)  # before the seconds are spent
    began = time.monotonic()
    returned = run_in_worker(
        "ondevice_sdk.runtime.calibrate:measure",
        privacy=best_privacy(),
        arguments={
            "entry": entry,
            "writer": calibrator.writer,
            "model_format": calibrator.model_format,
            "formats": [*calibrator.formats],
            "threads": [*threads(device)],
            "seconds": seconds,
        },
        timeout_s=_MOST_S,
        on_progress=on_progress,
    )
    if not isinstance(returned.value, Mapping):
        raise LoadFailed("the measurement of this device gave no figures")
    value: dict[str, Any] = {
        **returned.value,
        "library": calibrator.library,
        "threads": threads(device)[0],
        "took_s": time.monotonic() - began,
    }
    try:
        calibration = _checked({"format": FORMAT, "calibration": value})
    except ConfigurationError as error:
        raise LoadFailed("the measurement of this device gave figures that cannot be") from error
    keep(_file(folder, calibrator, device), {"format": FORMAT, "calibration": dataclasses.asdict(calibration)})
    return calibration


def threads(device: DeviceProfile) -> tuple[int, ...]:
    """The numbers of threads that are measured: what models run with, half of it, and one."""
    most = device.threads
    return tuple(dict.fromkeys((most, max(1, most // 2), 1)))


def best_privacy() -> PrivacyLevel:
    """No text is at stake: sealed where the system can do it, since model files are parsed by native code."""
    try:
        policy.check_available("strict")
    except OnDeviceError:
        return "off"
    return "strict"


def hardware(device: DeviceProfile) -> tuple[str | int | tuple[str, ...], ...]:
    """What of a device decides how fast it computes, as far as this process may use it."""
    processor = (device.system, device.machine, device.cpu_name, device.instruction_sets)
    return (*processor, device.physical_cores, device.usable_cores)


def _file(folder: Path, calibrator: Calibrator, device: DeviceProfile) -> Path:
    """One for each hardware, share of it that this process may use, and library."""
    what = (FORMAT, dataclasses.astuple(calibrator), *hardware(device))
    return folder / f"{hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]}.json"


def _checked(data: object) -> Calibration:
    """Make a calibration of JSON values.

    Raises:
        ConfigurationError: they are none, or impossible.
    """
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        raise ConfigurationError("calibration: of another format")
    made = build(Calibration, data.get("calibration"), "calibration")
    fixed = (
        made.pass_s,
        made.layer_s,
        made.vocabulary_s,
        made.attention_decode_s,
        made.attention_prompt_s,
        made.disturbance,
    )
    rates = [seconds for each in made.rates for seconds in (each.decode_s, each.narrow_s, each.prompt_s)]
    if not rates or not all(map(math.isfinite, (*fixed, *rates))) or min(fixed) < 0 or min(rates) <= 0:
        raise ConfigurationError("calibration: impossible figures")
    return made


def make_folder(folder: Path) -> None:
    """Make the place where figures are kept, for this user only.

    Raises:
        StoreError.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"the calibration cannot be kept: {error.strerror}") from error


def keep(path: Path, content: Mapping[str, object]) -> None:
    """Write figures as JSON, all or nothing.

    Raises:
        StoreError.
    """
    text = json.dumps(content, indent=1)
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".calibration-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"the calibration cannot be kept: {error.strerror}") from error
