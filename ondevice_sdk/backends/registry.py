"""Finds backends by the entry-point group `ondevice_sdk.backends`: the built-in ones and plugins alike."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from ondevice_sdk.backends.api import Backend, DeviceProfile
from ondevice_sdk.errors import BackendUnavailable

__all__ = ["BackendStatus", "Registration", "create", "format_of", "installed", "status"]

GROUP = "ondevice_sdk.backends"
_LEAST_MAGIC = 4  # bytes: fewer begin files of any kind


@dataclass(frozen=True, slots=True)
class Registration:
    """A backend that some installed distribution announces. Nothing of it is imported before `create`."""

    name: str
    entry: str  # "module:attribute"
    distribution: str

    def create(self) -> Backend:
        """Import and make the backend.

        Raises:
            BackendUnavailable: the plugin is broken; the reason names the distribution.
        """
        return _create(self.name, self.entry, self.distribution)


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """Whether a backend works here; if not, why, and what to do. `formats` are those of models that it reads."""

    name: str
    usable: bool
    reason: str = ""
    hint: str = ""
    capabilities: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()


def installed() -> dict[str, Registration]:
    """All announced backends by name, sorted. Of two with one name the SDK's own wins, then the first distribution."""
    found: dict[str, Registration] = {}
    for point in entry_points(group=GROUP):
        distribution = point.dist.name if point.dist is not None else "unknown"
        registration = Registration(point.name, point.value, distribution)
        known = found.get(point.name)
        if known is None or _rank(registration) < _rank(known):
            found[point.name] = registration
    return dict(sorted(found.items()))


def create(entry: str) -> Backend:
    """Make the backend of an entry `module:attribute`, as the worker is told it.

    Raises:
        BackendUnavailable: it cannot be imported, or is not a backend.
    """
    return _create(entry, entry, "")


def status(device: DeviceProfile) -> list[BackendStatus]:
    """Probe every announced backend; never raises."""
    return [_status(registration, device) for registration in installed().values()]


def format_of(head: bytes) -> str | None:
    """The format that a backend knows by these first bytes of a file; None: nobody does. A broken plugin knows none."""
    for registration in installed().values():
        with contextlib.suppress(BackendUnavailable):
            backend = registration.create()
            for form, magic in backend.magic.items():
                if form in backend.formats and len(magic) >= _LEAST_MAGIC and head.startswith(magic):
                    return form
    return None


def _rank(registration: Registration) -> tuple[bool, str]:
    return not registration.entry.startswith("ondevice_sdk."), registration.distribution


def _create(name: str, entry: str, distribution: str) -> Backend:
    origin = f" (from {distribution})" if distribution else ""
    try:
        factory = EntryPoint(name, entry, GROUP).load()
        backend = factory()
    except Exception as error:  # a plugin is foreign code: importing it may raise anything
        reason = f"{type(error).__name__} while loading {entry}{origin}"
        raise BackendUnavailable(f"the backend {name!r} is broken: {reason}", reason=reason) from error
    if not isinstance(backend, Backend):
        reason = f"{entry}{origin} is not a Backend"
        raise BackendUnavailable(f"the backend {name!r} is broken: {reason}", reason=reason)
    return backend


def _status(registration: Registration, device: DeviceProfile) -> BackendStatus:
    formats: tuple[str, ...] = ()
    try:
        backend = registration.create()
        formats = tuple(sorted(map(str, backend.formats)))
        probe = backend.probe(device)
        capabilities = tuple(sorted(capability.value for capability in probe.capabilities))
        return BackendStatus(registration.name, probe.usable, probe.reason, probe.hint, capabilities, formats)
    except BackendUnavailable as error:
        reason, hint = error.reason or error.message, error.hint or f"install {registration.distribution} again"
    except Exception as error:  # noqa: BLE001 - a plugin may break the promise not to raise, or give anything
        reason, hint = f"its probe raised {type(error).__name__} (from {registration.distribution})", ""
    return BackendStatus(registration.name, False, reason, hint, formats=formats)
