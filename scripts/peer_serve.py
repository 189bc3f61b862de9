"""What every peer of bench_peers.py does with its input: a JSON object per line in, one out. Needs only Python."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, Protocol


class Peer(Protocol):
    """A loaded model."""

    system: str

    def answer(self, texts: list[str], tokens: int) -> dict[str, Any]:
        """Answer every text with so many tokens; the seconds, and what was used."""
        ...


def serve(load: Callable[[dict[str, Any]], Peer]) -> None:
    """Load what is ordered and answer, until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    peer: Peer | None = None
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if order["do"] == "load":
                peer = load(order)
                answer: dict[str, Any] = {"system": peer.system}
            else:
                assert peer is not None
                answer = peer.answer(order["texts"], order["tokens"])
        except Exception as error:  # noqa: BLE001 - the other side is told, whatever it was
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
    os._exit(0)
