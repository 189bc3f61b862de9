"""Scale the weights of a model so that they are easier to round (pre-SINQ), and prove that it computes the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ondevice_sdk.errors import WorkerCrashed
from ondevice_sdk.quantise import workers

ORDER: Final = 16  # turns of the Sinkhorn iteration: of 2 to 32 on SmolLM2, 16 gave the least KL, 32 no less
BLOCK: Final = 64  # columns that it balances at a time: of 32, 64 and 128 the one with the least KL
TOKENS: Final = 64  # that are read for the proof: a wrong factor shows in each of them
WRITER: Final = "ondevice_sdk.quantise.reparametrise:write"  # those need numpy
_CHECK: Final = "ondevice_sdk.quantise.reparametrise:check"


def check(
    entry: str, source: Path, changed: Path, text: str, threads: int, on_progress: Callable[[float], None] | None
) -> float:
    """The largest difference of two logits, by the largest logit of the source, all computed in 32 bits.

    A copy of the source in 32 bits lies beside `changed` meanwhile.

    Args:
        entry: the backend that computes them.
        source: what was scaled.
        changed: the result.
        text: what they read.
        threads: that they run with.
        on_progress: hears the share that is done.

    Raises:
        GenerationFailed: it is more than rounding explains. ConfigurationError: the text is too short. LoadFailed,
        WorkerCrashed, ...
    """
    difference = workers.call(
        _CHECK,
        {
            "entry": entry,
            "source": str(source),
            "changed": str(changed),
            "text": text,
            "tokens": TOKENS,
            "threads": threads,
        },
        read=[source, changed],
        folder=changed.parent,
        on_progress=on_progress,
    )
    if type(difference) is not float or not math.isfinite(difference) or difference < 0:
        raise WorkerCrashed("the worker gave an answer that is none")
    return difference
