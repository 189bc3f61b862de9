"""Where engines run: a sealed worker process, or a thread of the app. `open_executor` is the way in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ondevice_sdk.backends.api import LoadOptions, LocalModel
from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.runtime.executor import Executor, Loaded, StartTimes, Ticket
from ondevice_sdk.types import Isolation, PrivacyLevel, Progress

if TYPE_CHECKING:
    from ondevice_sdk.runtime.prefixes import Prefixes

__all__ = ["Executor", "Loaded", "StartTimes", "Ticket", "open_executor"]


def open_executor(
    backend: str,
    model: LocalModel,
    options: LoadOptions,
    *,
    isolation: Isolation,
    privacy: PrivacyLevel,
    worker_command: Sequence[str] | None = None,
    prefixes: Prefixes | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Executor:
    """Load a model and give the executor that serves it; leaves nothing behind when it raises.

    Args:
        backend: where its class is, as "module:attribute".
        model: a local model; a relative path is taken from the current directory.
        options: how to load it; progress goes to `on_progress`, not to the callback in here.
        isolation: a process of its own, or a thread of the app.
        privacy: strict needs a process.
        worker_command: the command that starts a Python, for frozen and embedded apps; default: `ONDEVICE_PYTHON`, else
            this interpreter.
        prefixes: where prefixes are kept on the disk; None: nowhere.
        on_progress: called on this thread (with a thread as isolation: on that one).

    Raises:
        ConfigurationError: strict privacy in a thread, or no Python to start.
        PrivacyUnavailable: strict privacy cannot be enforced here, or the worker did not prove its seal.
        WorkerCrashed: the worker died while it loaded the model.
        BackendUnavailable, LoadFailed, ModelCorrupt, ModelUnsupported: from the backend.
    """
    local = replace(
        model, path=str(Path(model.path).absolute()), files=tuple(str(Path(file).absolute()) for file in model.files)
    )
    if isolation == "thread":
        from ondevice_sdk.runtime.thread import ThreadExecutor

        return ThreadExecutor(backend, local, options, privacy=privacy, prefixes=prefixes, on_progress=on_progress)
    if isolation != "process":
        raise ConfigurationError(f'isolation is "process" or "thread", not {isolation!r}')
    from ondevice_sdk.runtime.process import ProcessExecutor

    return ProcessExecutor(
        backend,
        local,
        options,
        privacy=privacy,
        worker_command=worker_command,
        prefixes=prefixes,
        on_progress=on_progress,
    )
