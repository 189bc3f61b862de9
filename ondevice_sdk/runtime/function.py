"""The worker after its seal, when it is to run one function instead of a model. Standard library only."""

from __future__ import annotations

import importlib
import json
import os

from ondevice_sdk.runtime import wire


def run(inbound: int, outbound: int) -> None:
    """Call what the next message names, answer with its result; ends the process."""
    frame = wire.read_frame(inbound, wire.TO_WORKER)
    if frame is None:
        os._exit(0)
    message = json.loads(frame.header)
    if message.get("kind") != "run":
        os._exit(70)
    wire.write_all(outbound, _answer(message["entry"], json.loads(message["arguments"])))
    os._exit(0)


def _answer(entry: str, arguments: dict[str, object]) -> bytes:
    try:
        module, _, attribute = entry.partition(":")
        value = getattr(importlib.import_module(module), attribute)(**arguments)
        return wire.pack({"kind": "result", "value": json.dumps(value, allow_nan=False)}, wire.TO_APP)
    except BaseException as error:  # noqa: BLE001 - whatever it was, the app is told
        info: dict[str, object] = {
            "code": "load_failed",
            "message": f"{entry} raised {type(error).__name__}"[:1000],
            "hint": None,
            "data": {},
        }
        return wire.pack({"kind": "refused", "error": info}, wire.TO_APP)
