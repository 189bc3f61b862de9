"""Sizes that a prediction of memory and a loaded model must agree on."""

from __future__ import annotations

from typing import Final

DEFAULT_CONTEXT: Final = 8192  # tokens, as the other backends
_ROWS: Final = 256
_SMALL: Final = 200_000_000  # bytes of weights


def rows_of_a_pass(weights_bytes: int) -> int:
    """How much of a prompt is read in a step: a cancel, and the next tokens of others, wait for its end.

    With SmolLM2 on one core of a Xeon with AMX: 800, 1290, 1870, 1820, 1850 tokens/s with 32, 64, 128, 256, 512 rows;
    on two 1430, 1670, 2790, 3320. So 256 where that takes some 100 ms; and 128, but not fewer, with larger models.
    """
    return _ROWS if weights_bytes <= _SMALL else _ROWS // 2
