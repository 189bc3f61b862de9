"""The process in which a backend makes a model: no network, no writing elsewhere, and no life without the app."""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import math
import os
import signal
import tempfile
import threading
import traceback
from collections.abc import Callable, Generator
from typing import Final, cast

from ondevice_sdk.errors import LoadFailed, OnDeviceError, StoreError
from ondevice_sdk.privacy.sandbox import confine, landlock, seccomp
from ondevice_sdk.runtime import protocol, wire

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LONGEST_WORDS: Final = 1_000  # characters of what foreign code said

Send = Callable[[protocol.ToApp], None]


def run(inbound: int, outbound: int) -> None:
    """Call the maker that the next message names, answer with the names of its files; ends the process."""
    frame = wire.read_frame(inbound, wire.TO_WORKER)
    if frame is None:
        os._exit(0)
    message = json.loads(frame.header)
    if message.get("kind") != "run":
        os._exit(70)
    arguments = json.loads(message["arguments"])
    close([arguments["folder"], tempfile.gettempdir(), os.environ["HOME"]])
    threading.Thread(target=_end_with_the_app, args=(inbound,), daemon=True).start()

    def send(answer: protocol.ToApp) -> None:
        wire.write_all(outbound, protocol.to_app(answer))

    try:
        send(protocol.Result(json.dumps(_make(message["entry"], arguments, send))))
    except OSError:  # the app is gone
        os._exit(1)
    except OnDeviceError as error:
        known = error.code in protocol.MAKER_ERRORS
        send(protocol.Refused(protocol.describe(error if known else LoadFailed(error.message, hint=error.hint))))
    os._exit(0)


def close(write: list[str]) -> None:
    """Give up, on this thread and all that it starts, what a maker does not need, as far as this system can.

    It keeps the right to read and to start other programs: it is trusted, but its libraries may be talkative.
    """
    for give_up in (
        confine.no_new_privileges,
        lambda: landlock.write_only_to([*landlock.NOWHERE, *write]),
        seccomp.install_offline,
    ):
        with contextlib.suppress(OSError):
            give_up()


def _end_with_the_app(inbound: int) -> None:
    """End this process and those that it has started as soon as the app is gone, however that ended."""
    with contextlib.suppress(OSError):
        while os.read(inbound, 4096):
            pass
    os.killpg(os.getpgrp(), signal.SIGKILL)  # the session was made for this process


def _make(entry: str, arguments: dict[str, object], send: Send) -> list[str]:
    """The names of the files, or an error of the SDK; OSError: the app is gone."""
    module, _, attribute = entry.partition(":")
    try:
        steps = getattr(importlib.import_module(module), attribute)(**arguments)
    except Exception as error:
        raise _typed(entry, error) from error
    told: object = None
    while True:
        try:
            stage, share = next(cast("Generator[tuple[str, float], None, object]", steps))
            percent = round(100 * min(max(float(share), 0.0), 1.0)) if math.isfinite(share) else 0
        except StopIteration as end:
            names = end.value
            break
        except Exception as error:
            raise _typed(entry, error) from error
        if told != (stage, percent):  # however often it yields
            told = stage, percent
            send(protocol.LoadProgress(percent / 100, str(stage)[:100]))
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise LoadFailed(f"{entry} did not return the names of its files")
    return list(names)


def _typed(entry: str, error: Exception) -> OnDeviceError:
    if isinstance(error, OnDeviceError):
        return error
    if isinstance(error, OSError) and error.errno in _FULL:
        return StoreError("no room left to make the model", hint="set ONDEVICE_HOME to a directory on another disk")
    if isinstance(error, MemoryError):
        return LoadFailed("there is not enough memory to make the model")
    said = " ".join(str(error).split())[:_LONGEST_WORDS]  # no text of a user is near a maker
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(last.filename)}, line {last.lineno}"  # noqa: PTH119 - a word, not a file
    return LoadFailed(f"{entry} raised {type(error).__name__}", hint=f"{where}: {said}" if said else where)
