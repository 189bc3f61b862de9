"""What a worker inherits: nothing but what is listed here."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.types import PrivacyLevel

# How long OpenMP threads spin at a barrier before they sleep. By default for so long that one busy neighbour on the
# same cores all but stops decoding. Measured with two threads on two cores, a small model, in tokens/s alone, beside a
# busy process, and of two such models at once together: 88 / 10 / 3 with 100,000; 88 / 22 / 38 with 4,000; 89 / 36 / 69
# with 1,000; 55 / 42 / 86 with 300. A model of a billion parameters loses 4 percent alone with 1,000.
SPIN: Final[Mapping[str, str]] = {"GOMP_SPINCOUNT": "1500"}

# The linear algebra inside numpy, which nothing here uses, else starts a thread with its buffers for every core: on two
# cores alone that takes 40 ms of each start.
NUMPY: Final[Mapping[str, str]] = {"OPENBLAS_NUM_THREADS": "1"}

# Good manners asked of libraries that would otherwise phone home; the guarantee is the kernel's refusal, never this.
OFFLINE: Final[Mapping[str, str]] = {
    "CI": "true",  # openvino-telemetry
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "GGML_NO_BACKTRACE": "1",  # its abort handler would start a debugger
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_XET_TELEMETRY_ENABLED": "0",
    "ORT_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_OFFLINE": "1",
}


# The one thing that a worker is told from the app's environment: on what device a backend is to run models.
_DEVICE: Final = re.compile(r"ONDEVICE_[A-Z0-9]+_DEVICE")
_DEVICE_NAME: Final = re.compile(r"[A-Za-z0-9_.:,-]{1,64}")


def variables(level: PrivacyLevel, home: str) -> dict[str, str]:
    """The worker's environment; `home` is its private directory."""
    devices = {
        name: value for name, value in os.environ.items() if _DEVICE.fullmatch(name) and _DEVICE_NAME.fullmatch(value)
    }
    always = {
        "HOME": home,
        "LANG": "C.UTF-8",
        "PATH": os.defpath,
        "TMPDIR": home,
        "XDG_CACHE_HOME": home,
        **SPIN,
        **NUMPY,
        **devices,
    }
    if "SYSTEMROOT" in os.environ:
        always["SYSTEMROOT"] = os.environ["SYSTEMROOT"]  # Windows cannot start Python without it
    return always if level == "off" else {**always, **OFFLINE}


def python_command(worker_command: Sequence[str] | None) -> list[str]:
    """The command that starts a Python: as given, else `ONDEVICE_PYTHON`, else this interpreter.

    Raises:
        ConfigurationError: this is a frozen or embedded app, and nobody said where a Python is.
    """
    if worker_command is not None:
        if not worker_command:
            raise ConfigurationError("worker_command is empty")
        return list(worker_command)
    named = os.environ.get("ONDEVICE_PYTHON")
    if named:
        return [named]
    if not sys.executable or getattr(sys, "frozen", False):
        raise ConfigurationError(
            "this app is frozen or embedded: its executable is not Python",
            hint="give worker_command=, or set ONDEVICE_PYTHON to a Python interpreter",
        )
    return [sys.executable]


def module_path() -> tuple[str, ...]:
    """Where the worker finds modules: this process's absolute entries, and where this package lies.

    Never the current directory: what lies there is no part of the app.
    """
    here = os.path.realpath(Path.cwd()) if _has_directory() else None
    entries = [
        entry
        for entry in sys.path
        if Path(entry).is_absolute() and Path(entry).exists() and os.path.realpath(entry) != here
    ]
    package = str(Path(__file__).resolve().parents[2])
    return tuple(dict.fromkeys([*entries, package]))


def readable(path: Sequence[str]) -> tuple[str, ...]:
    """Those of a module path that a strict worker may read: not the root, nor a directory that holds a user's home."""
    home = Path.home().resolve()
    broad = {str(folder) for folder in (home, *home.parents)} | {"/"}
    return tuple(entry for entry in path if os.path.realpath(entry) not in broad)


def _has_directory() -> bool:
    try:
        Path.cwd()
    except OSError:  # it was removed
        return False
    return True
