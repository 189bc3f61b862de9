"""The worker after its seal, when it is to run one function instead of a model. Standard library only."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Generator

from ondevice_sdk.runtime import wire


def run(inbound: int, outbound: int) -> None:
    """Call what the next message names, answer with its result; ends the process."""
    frame = wire.read_frame(inbound, wire.TO_WORKER)
    if frame is None:
        os._exit(0)
    message = json.loads(frame.header)
    if message.get("kind") != "run":
        os._exit(70)
    wire.write_all(outbound, _answer(message["entry"], json.loads(message["arguments"]), outbound))
    os._exit(0)


def _answer(entry: str, arguments: dict[str, object], outbound: int) -> bytes:
    try:
        module, _, attribute = entry.partition(":")
        value = getattr(importlib.import_module(module), attribute)(**arguments)
        if isinstance(value, Generator):
            value = _follow(value, outbound)
        return wire.pack({"kind": "result", "value": json.dumps(value, allow_nan=False)}, wire.TO_APP)
    except BaseException as error:  # noqa: BLE001 - whatever it was, the app is told
        info: dict[str, object] = {
            "code": "load_failed",
            "message": f"{entry} raised {type(error).__name__}"[:1000],
            "hint": None,
            "data": {},
        }
        return wire.pack({"kind": "refused", "error": info}, wire.TO_APP)


def _follow(steps: Generator[float, None, object], outbound: int) -> object:
    """Run a function that yields how far it is to its end; the app is told, and its being gone ends the work."""
    while True:
        try:
            fraction = next(steps)
        except StopIteration as end:
            return end.value
        wire.write_all(outbound, wire.pack({"kind": "load_progress", "fraction": float(fraction)}, wire.TO_APP))
