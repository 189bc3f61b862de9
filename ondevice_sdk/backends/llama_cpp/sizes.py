"""Sizes that a prediction of memory and a loaded model must agree on."""

from __future__ import annotations

from typing import Final

DEFAULT_CONTEXT: Final = 8192  # tokens
# Rows of a pass that are computed together: with more, the scores of attention no longer fit into the processor's
# caches (1,024 tokens: 291, 320, 311, 289, 242 tokens/s with 32, 64, 128, 256, 512 rows).
ROWS_AT_A_TIME: Final = 128
