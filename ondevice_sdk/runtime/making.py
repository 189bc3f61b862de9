"""Run a backend's maker of models in a process of its own, which does not outlive the call."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from ondevice_sdk.errors import LoadFailed
from ondevice_sdk.runtime import forks, protocol
from ondevice_sdk.runtime.channel import Channel, broken
from ondevice_sdk.runtime.child import WorkerProcess
from ondevice_sdk.runtime.environment import OFFLINE
from ondevice_sdk.runtime.handshake import Sealed, seal
from ondevice_sdk.runtime.wire import ProtocolError
from ondevice_sdk.types import JsonValue

# Seconds without a sign of life. Not a measure of speed but of patience: a compiler that has taken an hour for one step
# has lost its way, and whoever waits in a terminal has long pressed Ctrl-C.
_SILENCE_S: Final = 3_600.0
# Of the app's environment: how compilers and linkers are found.
_TOOLS: Final = ("PATH", "CC", "CXX", "LD_LIBRARY_PATH", "LIBRARY_PATH", "SDKROOT")


def make(
    entry: str,
    arguments: Mapping[str, JsonValue],
    *,
    folder: Path,
    temporary: Path,
    on_progress: Callable[[str, float], None] | None = None,
    worker_command: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """Call a maker (see `backends.builder`) by keyword; the names of the files that it made, checked.

    Its process, and every one that that has started, is gone when this returns, raises, or the app dies. Where the
    system can, it is refused all sockets, and writing anywhere but in the two folders.

    Args:
        entry: "module:function", importable by this process's `sys.path`.
        arguments: besides `folder`.
        folder: an empty one, to be filled.
        temporary: a folder for temporary files, on the same disk.
        on_progress: hears what it is doing, and the share that is done.
        worker_command: the command that starts a Python.

    Raises:
        LoadFailed: the maker raised, or its files are not what it says; also the other `protocol.MAKER_ERRORS`.
        WorkerCrashed: the process died, or broke the protocol.
    """
    tools = {name: os.environ[name] for name in _TOOLS if name in os.environ}
    with forks.spawning():
        process = WorkerProcess(worker_command, "off", {**OFFLINE, **tools, "TMPDIR": str(temporary)})
        forks.watch(process)
    sealed: Sealed | None = None
    try:
        channel = Channel(process)
        sealed = seal(channel, "off", read=(), role="maker")
        channel.send(protocol.Run(entry, json.dumps({**arguments, "folder": str(folder)})))
        while True:
            match channel.receive(_SILENCE_S):
                case protocol.LoadProgress(fraction, stage) if 0 <= fraction <= 1:
                    if on_progress is not None:
                        on_progress(stage, fraction)
                case protocol.Result(text):
                    names = json.loads(text)
                    break
                case protocol.Refused(error):
                    raise protocol.restore(error, protocol.MAKER_ERRORS)
                case _:
                    raise broken()
    except ProtocolError:
        raise broken() from None
    finally:
        process.dispose()
        if sealed is not None:
            sealed.close()
    return _checked(entry, folder, names)


def _checked(entry: str, folder: Path, names: Sequence[str]) -> tuple[str, ...]:
    made = {path.name for path in folder.iterdir()}
    if not names or len(set(names)) != len(names) or set(names) != made:
        raise LoadFailed(f"{entry} returned other names than those of the files that it made")
    if any((folder / name).is_symlink() or not (folder / name).is_file() for name in names):
        raise LoadFailed(f"{entry} made something that is no plain file")
    return tuple(names)
