"""What Meta published of its quantised Llama 3.2 models: the rows that a comparison here is printed beside.

From "Introducing quantized Llama models with increased speed and a reduced memory footprint" (Meta, October 2024).
Another machine, another runtime, other prompts: only the ratios can be set beside those of this machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

WHERE: Final = "published by Meta; a OnePlus 12, prompt of 64 tokens: another machine, not measured here"
_SMALL: Final = 2_000_000_000  # parameters; below, the 1B rows are the nearer ones


@dataclass(frozen=True, slots=True)
class Published:
    """A row of the published table. Sizes are in MB as published, `ratios` those against its BF16 row."""

    model: str
    method: str
    file_mb: int
    memory_mb: int  # resident set
    first_token_s: float
    prompt_tokens_per_s: float
    decode_tokens_per_s: float
    where: str = WHERE
    ratios: Mapping[str, float] = field(default_factory=dict)  # by the names of the figures here


_ONE: Final = (
    Published("Llama 3.2 1B", "BF16", 2358, 3185, 1.0, 60.3, 19.2),
    Published("Llama 3.2 1B", "SpinQuant", 1083, 1921, 0.3, 260.5, 50.2),
    Published("Llama 3.2 1B", "QLoRA", 1127, 2255, 0.3, 252.0, 45.8),
)
_THREE: Final = (
    Published("Llama 3.2 3B", "BF16", 6129, 7419, 3.0, 21.2, 7.6),
    Published("Llama 3.2 3B", "SpinQuant", 2435, 3726, 0.7, 89.7, 19.7),
    Published("Llama 3.2 3B", "QLoRA", 2529, 4060, 0.7, 88.8, 18.5),
)


def beside(parameters: int) -> tuple[Published, ...]:
    """The rows of the model that is nearer in size, BF16 first."""
    reference, *others = _ONE if parameters < _SMALL else _THREE
    return reference, *(replace(each, ratios=_ratios(each, reference)) for each in others)


def _ratios(row: Published, reference: Published) -> Mapping[str, float]:
    return {
        "file_bytes": row.file_mb / reference.file_mb,
        "peak_memory_bytes": row.memory_mb / reference.memory_mb,
        "first_token_warm_s": row.first_token_s / reference.first_token_s,
        "prompt_tokens_per_s": row.prompt_tokens_per_s / reference.prompt_tokens_per_s,
        "decode_tokens_per_s": row.decode_tokens_per_s / reference.decode_tokens_per_s,
    }
