"""Let a sealed worker write a file of a model, and look at what it wrote: a model file is parsed by native code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from stat import S_ISREG
from typing import Final

from ondevice_sdk import calibration
from ondevice_sdk.call import ProgressCallback
from ondevice_sdk.errors import LoadFailed, WorkerCrashed
from ondevice_sdk.quantise import typed
from ondevice_sdk.quantise.divergence import reported
from ondevice_sdk.runtime.probe_worker import run_in_worker
from ondevice_sdk.store.files import private_dir, require_room, store_errors
from ondevice_sdk.types import JsonValue, Progress

SILENCE_S: Final = 900.0  # between two signs of progress
SPARE: Final = 1 << 20  # bytes that a header may grow by


def call(
    entry: str,
    arguments: Mapping[str, JsonValue],
    *,
    read: Sequence[str | Path],
    folder: Path,
    on_progress: Callable[[float], None] | None = None,
) -> JsonValue:
    """Run a generator function of the SDK, or of a backend, in a sealed worker.

    Args:
        entry: as "module:function".
        arguments: by keyword.
        read: files that it may read.
        folder: in which it may keep files.
        on_progress: hears the share that is done.

    Returns:
        What it returned; it comes from a process that is not trusted.

    Raises:
        The errors of the function, and those of `run_in_worker`.
    """
    returned = run_in_worker(
        typed.ENTRY,
        privacy=calibration.best_privacy(),
        arguments={"entry": entry, "arguments": dict(arguments)},
        read=[str(each) for each in read],
        caches=(str(folder),),
        timeout_s=SILENCE_S,
        on_progress=on_progress,
    )
    answer = returned.value if isinstance(returned.value, dict) else {}
    if "error" in answer:
        raise reported(answer["error"])
    if "value" not in answer:
        raise WorkerCrashed("the worker gave an answer that is none")
    return answer["value"]


def write(
    writer: str,
    target: Path,
    arguments: Mapping[str, JsonValue],
    *,
    read: Sequence[str | Path],
    room: int,
    most: int | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> None:
    """Have `writer` make a file, alone in its directory, which is made if it is missing.

    Args:
        writer: as `call`; it takes the path as `target`.
        target: where nothing is yet.
        arguments: the others of the writer.
        read: the files that it may read.
        room: bytes that have to be free.
        most: bytes that the file may have; None: `room`.
        on_progress: hears the share that is done.

    Raises:
        StoreError: there is no room. LoadFailed: it wrote nothing, or too much. Otherwise as `call`.
    """
    with store_errors("make a directory", target.parent):
        private_dir(target.parent)
    require_room(target.parent, room + SPARE)
    call(writer, {**arguments, "target": str(target)}, read=read, folder=target.parent, on_progress=on_progress)
    with store_errors("look at what was written", target.parent):
        try:
            status = target.lstat()
        except FileNotFoundError:
            raise LoadFailed("nothing was written") from None
    if not S_ISREG(status.st_mode) or status.st_size > (room if most is None else most) + SPARE:
        raise LoadFailed("what was written is not the file that was asked for")


def percent(stage: str, on_progress: ProgressCallback | None) -> Callable[[float], None] | None:
    """What tells an app of a share."""
    if on_progress is None:
        return None
    return lambda fraction: on_progress(Progress(stage, round(100 * fraction), 100, "percent"))
