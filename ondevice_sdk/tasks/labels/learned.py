"""What scoring labels found out once and needs for every text: how the model leans, and what examples taught.

Numbers under a digest of page and examples, never a text. A client has one, for its one model.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass
from typing import Final

from ondevice_sdk.tasks.labels.odds import Fit

_MOST: Final = 64  # pages with their examples; an app has a handful


@dataclass(frozen=True, slots=True)
class Lean:
    """What the words of a page score without a text, the correction by examples, and how many of these were too long.

    `fit` is None without examples.
    """

    without: tuple[float, ...]
    fit: Fit | None
    left_out: int


class Learned:
    """Leans by their keys, the oldest forgotten first. Safe between threads."""

    def __init__(self) -> None:
        self._held: dict[bytes, Lean] = {}
        self._lock = threading.Lock()
        self._apart: dict[str, Learned] = {}

    def apart(self, adapter: str) -> Learned:
        """What holds for the model with an adapter, by its digest: it leans in its own way."""
        with self._lock:
            return self._apart.setdefault(adapter, Learned())

    def get(self, key: bytes) -> Lean | None:
        """What was kept under a key."""
        return self._held.get(key)

    def keep(self, key: bytes, lean: Lean) -> None:
        """Remember it for the texts to come."""
        with self._lock:
            self._held[key] = lean
            while len(self._held) > _MOST:
                del self._held[next(iter(self._held))]

    def __repr__(self) -> str:
        return f"Learned({len(self._held)})"


def key_of(*parts: object) -> bytes:
    """A digest of texts, from which they cannot be read back."""
    return hashlib.sha256(json.dumps(parts).encode()).digest()
