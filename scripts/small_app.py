"""An app in a process of its own that asks one question and ends properly; see bench_prefix.py.

One JSON object comes in: the model, the prompt, and where a prefix cache lies with its key, or nothing. One goes out:
when the first text came, on the clock that all processes share. When the input ends, the client is closed, which
writes what the cache is to keep; a second object says that this is done.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from ondevice_sdk import CallerKey, Client, OnDeviceError, PrefixCache, TextDelta


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    order = json.loads(sys.stdin.readline())
    told = time.monotonic()
    kept = order["directory"] is not None
    cache = PrefixCache(CallerKey(bytes.fromhex(order["key"])), directory=Path(order["directory"])) if kept else None
    try:
        with Client(order["model"], prefix_cache=cache) as ai:
            answers.write(json.dumps({"told": told, **ask(ai, order["prompt"])}) + "\n")
            sys.stdin.read()
    except OnDeviceError as error:
        answers.write(json.dumps({"error": error.message, "code": error.code, "hint": error.hint}) + "\n")
        return
    answers.write(json.dumps({"closed": time.monotonic()}) + "\n")


def ask(ai: Client, prompt: str) -> dict[str, Any]:
    first = None
    with ai.stream(prompt, max_tokens=2, temperature=0, ignore_eos=True) as stream:
        for event in stream.events():
            if isinstance(event, TextDelta):
                first = first or time.monotonic()
        usage = stream.result().usage
    return {"first": first or time.monotonic(), "prompt": usage.prompt_tokens, "cached": usage.cached_tokens}


if __name__ == "__main__":
    main()
