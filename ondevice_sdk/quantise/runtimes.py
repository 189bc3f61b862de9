"""Which backend can do something with the files of a model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ondevice_sdk.backends.api import Backend, Compressor
from ondevice_sdk.errors import BackendUnavailable, Unsupported
from ondevice_sdk.types import DeviceProfile

if TYPE_CHECKING:
    from ondevice_sdk.backends.registry import Registration

T = TypeVar("T")


def usable(
    installed: Mapping[str, Registration], device: DeviceProfile, tool: Callable[[Backend], T | None]
) -> Iterator[tuple[Backend, str, T]]:
    """The backends that work here and have that tool, each with its entry and the tool."""
    for registration in installed.values():
        with contextlib.suppress(BackendUnavailable):  # a broken plugin
            backend = registration.create()
            found = tool(backend)
            if found is not None and backend.probe(device).usable:
                yield backend, registration.entry, found


@dataclass(frozen=True, slots=True)
class Compressing:
    """A backend that can write models in fewer bits."""

    backend: Backend
    entry: str
    compressor: Compressor


def compressing(installed: Mapping[str, Registration], device: DeviceProfile) -> Compressing:
    """The first backend that can write models in fewer bits.

    Raises:
        Unsupported: there is none.
    """
    for backend, entry, compressor in usable(installed, device, lambda each: each.compressor()):
        return Compressing(backend, entry, compressor)
    raise Unsupported(
        "no usable backend quantises models",
        capability="quantise",
        hint="pip install 'ondevice-sdk[llama-cpp]', and see `ondevice backends`",
    )
