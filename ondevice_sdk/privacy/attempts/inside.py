"""The side of the worker: makes one attempt and says what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ondevice_sdk.privacy.attempts.attempt import Group, Reach, Untestable, Victim

ENTRY = f"{__name__}:run"


def answer() -> str:
    """Show that a worker runs functions."""
    return "here"


def run(attempt: str, group: str, reach: Mapping[str, Any]) -> dict[str, str | bool]:
    """Make one attempt.

    Returns:
        `claim`: whether the function says that it got out. `text`: what it read. `note`: why not. `untestable`.
    """
    told: dict[str, str | bool] = {"claim": False, "text": "", "note": "", "untestable": False}
    target = Reach(**{**reach, "victim": Victim(**reach["victim"])})
    made: Group = import_module(f"{__package__}.{group}").GROUP
    function = next(candidate.run for candidate in made.attempts if candidate.id == attempt)
    try:
        outcome = function(target)
    except Untestable as reason:
        told |= {"untestable": True, "note": str(reason)}
    except Exception as error:  # noqa: BLE001 - whatever stops it, it was stopped; the note says by what
        told["note"] = _describe(error)
    else:
        if isinstance(outcome, bytes):
            outcome = outcome.decode("latin-1")
        told |= {"text": outcome} if isinstance(outcome, str) else {"claim": bool(outcome)}
    return told


def _describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        import errno
        import os

        return f"{errno.errorcode.get(error.errno, error.errno)}: {os.strerror(error.errno)}"
    return type(error).__name__
