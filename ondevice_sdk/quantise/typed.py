"""Call a function in a worker so that errors of the SDK reach the app as what they are. Runs in the worker."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Generator
from typing import Final

from ondevice_sdk.errors import OnDeviceError
from ondevice_sdk.runtime import protocol
from ondevice_sdk.types import JsonValue

ENTRY: Final = "ondevice_sdk.quantise.typed:call"


def call(*, entry: str, arguments: dict[str, JsonValue]) -> Generator[float, None, dict[str, JsonValue]]:
    """Run a generator function; the answer has either `value`, what it returned, or `error`, that of the SDK."""
    module, _, attribute = entry.partition(":")
    try:
        value = yield from getattr(importlib.import_module(module), attribute)(**arguments)
    except OnDeviceError as error:
        return {"error": dataclasses.asdict(protocol.describe(error))}
    return {"value": value}
