"""What a fork must not share: the child of a forked app drops its parent's workers and leaves them alone."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Final, Protocol


class Orphan(Protocol):
    """Something that belongs to the process that made it."""

    def orphan(self) -> None:
        """Called in the child, the only thread there: close the inherited descriptors and be dead."""


# The registry is of the process, as the fork is: the hooks have to find whatever lives then.
_watched: Final[weakref.WeakSet[Orphan]] = weakref.WeakSet()
_lock = threading.RLock()


def spawning() -> threading.RLock:
    """The lock to hold from before descriptors are made until `watch`, so that no fork copies unwatched ones."""
    return _lock


def watch(owner: Orphan) -> None:
    """Tell `owner` in the child of every fork, for as long as it lives."""
    _watched.add(owner)


def _in_child() -> None:
    global _lock
    _lock = threading.RLock()
    for owner in list(_watched):
        owner.orphan()
    _watched.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _lock.acquire(), after_in_parent=lambda: _lock.release(), after_in_child=_in_child
    )
