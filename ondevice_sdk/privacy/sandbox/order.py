"""The order of the seal. Each layer is taken while what it needs is still allowed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from . import confine, landlock, seccomp, trial


def close(
    level: str, read: Sequence[str], private: str, hand_over: int | None, caches: Sequence[str] = ()
) -> dict[str, object]:
    """Seal this process, which must have one thread only; what is lacking is told, not raised.

    Args:
        level: the privacy level; "off" and "guarded" close next to nothing.
        read: paths that stay readable besides Python's own.
        private: the directory that stays writable.
        hand_over: the socket over which the app gets the kernel's reports; closed in any case.
        caches: directories that outlive this process, in which it may keep plain files.

    Returns:
        What was done, for the app.
    """
    account: dict[str, object] = {
        "landlock": 0,
        "landlock_lack": "",
        "namespaces_lack": "",
        "told": False,
        "told_lack": "",
        "error": "",
    }
    try:
        if level != "off":
            confine.no_core_file()
        if level == "strict":
            _layers(account, [*read, *own_paths()], private, caches)
            filtered = seccomp.install(hand_over)
            account["told"], account["told_lack"] = filtered
    except (OSError, ValueError) as problem:  # ValueError: setrlimit
        account["error"] = str(problem)
    finally:
        if hand_over is not None:
            os.close(hand_over)
    return account


def _layers(account: dict[str, object], read: Sequence[str], private: str, caches: Sequence[str]) -> None:
    try:
        confine.own_namespaces()
    except OSError as problem:
        account["namespaces_lack"] = str(problem)
    confine.no_capabilities()
    confine.no_new_privileges()
    try:
        account["landlock"] = landlock.restrict([*landlock.SYSTEM, *read], [*landlock.NOWHERE, private], caches)
    except OSError as problem:
        account["landlock_lack"] = str(problem)


def prove(level: str, private: str) -> dict[str, object]:
    """Hide from the other processes of the user, try what is refused, ask the kernel."""
    error = ""
    try:
        if level != "off":
            confine.not_dumpable()
    except OSError as problem:
        error = str(problem)
    now = confine.state()
    strict = level == "strict"
    return {
        "hiding_error": error,
        "attempts": trial.network() if strict else [],
        "files": trial.files(private) if strict else [],
        "app_out_of_reach": trial.memory_of_the_app() if strict else False,
        "no_new_privileges": now.no_new_privileges,
        "dumpable": now.dumpable,
        "core_limit": now.core_limit,
    }


def own_paths() -> list[str]:
    """Where this Python lies: its standard library, and the shared libraries beside that."""
    prefixes = dict.fromkeys((sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix))
    return [*sys.path, *(f"{prefix}/{folder}" for prefix in prefixes for folder in ("lib", "lib64"))]
