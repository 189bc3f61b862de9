"""Run one function in a throw-away worker that is started and sealed exactly as those that run models."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from ondevice_sdk.privacy import policy
from ondevice_sdk.runtime import forks, protocol
from ondevice_sdk.runtime.channel import Channel, broken
from ondevice_sdk.runtime.child import WorkerProcess
from ondevice_sdk.runtime.handshake import Sealed, seal
from ondevice_sdk.runtime.wire import ProtocolError
from ondevice_sdk.types import JsonValue, PrivacyLevel, PrivacyReport

_MOST_PROGRESS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Returned:
    """What the function returned, as JSON values from a process that is not trusted, and what protected it."""

    value: JsonValue
    report: PrivacyReport


def run_in_worker(
    entry: str,
    *,
    privacy: PrivacyLevel,
    arguments: Mapping[str, JsonValue] | None = None,
    read: Sequence[str] = (),
    caches: Sequence[str] = (),
    timeout_s: float = 60.0,
    worker_command: Sequence[str] | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Returned:
    """Start a worker, seal it, call `entry` in it by keyword, give its result; the worker is gone when this returns.

    The function runs on the worker's main thread, after "go": third-party modules can be imported, and nothing is
    undone of the seal. One that is a generator yields how far it is, 0 to 1, and returns its result.

    Args:
        entry: the function as "module:attribute", importable by this process's `sys.path`.
        privacy: how to seal it; anything but strict leaves it unsealed, as a control.
        arguments: its keyword arguments.
        read: absolute paths that it may read besides Python's and those of the modules.
        caches: absolute paths of directories, which must be there, in which it may keep plain files.
        timeout_s: seconds for the call, without the start; or between two signs of progress.
        worker_command: the command that starts a Python.
        on_progress: called on this thread with what the function yields.

    Raises:
        PrivacyUnavailable: strict privacy cannot be enforced or was not proved.
        LoadFailed: there is no such function, it raised, or its result is no JSON; the message names the type of the
            exception.
        WorkerCrashed: the worker died, did not answer in time, or broke the protocol.
    """
    policy.check_available(privacy)
    with forks.spawning():
        process = WorkerProcess(worker_command, privacy)
        forks.watch(process)
    sealed: Sealed | None = None
    try:
        channel = Channel(process)
        sealed = seal(channel, privacy, read=read, role="function", caches=caches)
        channel.send(protocol.Run(entry, json.dumps(dict(arguments or {}))))
        for _ in range(_MOST_PROGRESS):
            match channel.receive(timeout_s, quote=False):
                case protocol.LoadProgress(fraction) if 0 <= fraction <= 1:
                    if on_progress is not None:
                        on_progress(fraction)
                case protocol.Result(text):
                    return Returned(_value(text), sealed.report(alive=True))
                case protocol.Refused(error):
                    raise protocol.restore(error, protocol.LOAD_ERRORS)
                case _:
                    break
        raise broken()
    except ProtocolError:
        raise broken() from None
    finally:
        process.dispose()
        if sealed is not None:
            sealed.close()


def _value(text: str) -> JsonValue:
    try:
        value: JsonValue = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise broken() from None
    return value


def _refuse(word: str) -> NoReturn:
    raise ValueError(word)
