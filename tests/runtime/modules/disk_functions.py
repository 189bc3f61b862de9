"""Functions that tests of prefixes on the disk run in sealed workers."""

from __future__ import annotations

from pathlib import Path

from ondevice_sdk.backends.api import Batch, LoadOptions, LocalModel
from ondevice_sdk.backends.echo import EchoBackend
from ondevice_sdk.runtime import prefixes, protocol

TEXT = b"a long text that was read before. " * 8


def keep_and_find(
    model: str, digest: str, directory: str, secret: str, limit_bytes: int, kv_type: str = "f16"
) -> dict[str, object]:
    """Read a text into the cache of a model, unless it is on the disk already; keep it there."""
    given = prefixes.take(protocol.Handed(directory, secret, prefixes.PURPOSE, digest, limit_bytes))
    local = LocalModel("echo", "int4", "echo", model, digest, (model,))
    options = LoadOptions(kv_type="q8_0" if kv_type == "q8_0" else "f16")
    runner = EchoBackend().load(local, options)
    disk = given.open(local, options, runner)
    assert disk is not None
    tokens = list(TEXT)
    found = disk.find([*tokens, 1])
    loaded = disk.load([*tokens, 1])
    if loaded is None:
        batch = Batch()
        for position, token in enumerate(tokens):
            batch.add(0, position, token, logits=False)
        runner.forward(batch)
        disk.put(tokens, runner.kv_save(0))
    else:
        runner.kv_load(0, loaded[1])
    again = runner.kv_save(0).count(b"[") - 1
    disk.close()
    beside = Path(directory).parent / "beside"
    try:
        beside.write_bytes(b"")
        written = True
    except OSError:
        written = False
    return {
        "found": found, "tokens": None if loaded is None else len(loaded[0]), "cells": again, "beside": written,
        "failures": disk.failures,
    }  # fmt: skip
