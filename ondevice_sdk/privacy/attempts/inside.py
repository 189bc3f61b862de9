"""The side of the worker: makes attempts and says what came of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from ondevice_sdk.privacy.attempts.attempt import Group, Reach, Untestable, Victim

Told = dict[str, str | bool]
ENTRY = f"{__name__}:run"


def answer() -> str:
    """Show that a worker runs functions."""
    return "here"


def run(attempts: Sequence[tuple[str, str]], reach: Mapping[str, Any]) -> list[Told]:
    """Make attempts, one after the other.

    Args:
        attempts: group and id of each.
        reach: the fields of `Reach`.

    Returns:
        For each `claim`, whether the function says that it got out; `text`, what it read; `note`, what stopped it.
    """
    target = Reach(**{**reach, "victim": Victim(**reach["victim"])})
    return [_make(group, name, target) for group, name in attempts]


def _make(group: str, attempt: str, target: Reach) -> Told:
    told: Told = {"claim": False, "text": "", "note": ""}
    made: Group = import_module(f"{__package__}.{group}").GROUP
    function = next(candidate.run for candidate in made.attempts if candidate.id == attempt)
    try:
        outcome = function(target)
    except Untestable as reason:
        told["note"] = str(reason)
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
