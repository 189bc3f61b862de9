"""A small app in a process of its own, for what starts cold: run as `python -m ondevice_sdk.bench.app`.

It asks one question and says when each stage was reached, on the clock that all processes share. Then it waits, so that
its memory and its worker's can be looked at from outside.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from ondevice_sdk import Client, OnDeviceError, Progress, PromptProgress
from ondevice_sdk.bench.conditions import device_with

_IMPORTED = time.monotonic()


def main() -> None:
    """Ask what the first line says."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    order = json.loads(sys.stdin.readline())
    times = {"imported": _IMPORTED, "told": time.monotonic()}
    try:
        prompt_tokens = _ask(order, times)
    except OnDeviceError as error:
        answers.write(json.dumps({"error": error.message, "code": error.code, "hint": error.hint}) + "\n")
        return
    except Exception as error:  # noqa: BLE001 - the other side is told, whatever it was
        answers.write(json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n")
        return
    answers.write(json.dumps({"times": times, "prompt_tokens": prompt_tokens}) + "\n")
    sys.stdin.read()  # the client is open until now
    os._exit(0)


_open: list[Client] = []  # whatever is in here stays as it is while somebody looks


def _ask(order: dict[str, Any], times: dict[str, float]) -> int:
    """Prompt tokens of the one question."""

    def loading(_: Progress) -> None:
        times.setdefault("loading", time.monotonic())

    ai = Client(
        order["model"],
        privacy=order["privacy"],
        backends=order["backends"],
        context=order["context"],
        device=device_with(order["threads"]),
        on_load=loading,
    )
    _open.append(ai)
    _ = ai.model
    times["chosen"] = time.monotonic()
    _ = ai.context_length
    times["loaded"] = time.monotonic()
    with ai.stream(order["prompt"], max_tokens=order["count"], temperature=0, ignore_eos=True) as stream:
        for event in stream.events():
            if not isinstance(event, PromptProgress) or event.done == event.total:
                times.setdefault("first", time.monotonic())
        return stream.result().usage.prompt_tokens


if __name__ == "__main__":
    main()
