"""How a benchmark runs: what is measured, how much of it, under which settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

from ondevice_sdk.device import detect
from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.types import DeviceProfile, PrivacyLevel

MeasureName = Literal[
    "prompt", "decode", "first_token", "batched", "documents", "streamed", "sampled", "schema", "cold"
]

MEASURES: Final[tuple[MeasureName, ...]] = get_args(MeasureName)
PAIRS: Final = 8


@dataclass(frozen=True, slots=True)
class Conditions:
    """Settings of the client under test. None: what the client itself takes."""

    context_tokens: int | None = None
    threads: int | None = None
    privacy: PrivacyLevel = "strict"
    against_library: bool = True
    backend: str | None = None

    @property
    def backends(self) -> tuple[str, ...] | None:
        """Those that the client may use."""
        return None if self.backend is None else (self.backend,)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Lengths in tokens and counts of what one sample does."""

    prompt_tokens: int = 512
    decode_prompt_tokens: int = 64
    decode_tokens: int = 128
    first_token_prompt_tokens: int = 128
    cached_tokens: int = 448  # of `prompt_tokens`, for the first token with a cached beginning
    batch_sizes: tuple[int, ...] = (1, 4, 8, 16)
    batch_tokens: int = 32
    documents: int = 8
    document_tokens: int = 400
    answer_tokens: int = 64

    def __post_init__(self) -> None:
        if min(self.decode_tokens, self.batch_tokens, self.answer_tokens) < 2:
            raise ConfigurationError("a speed of decoding needs at least 2 tokens")
        lengths = (self.prompt_tokens, self.decode_prompt_tokens, self.first_token_prompt_tokens, self.documents)
        if min(*lengths, self.document_tokens, *self.batch_sizes) < 1 or not self.batch_sizes:
            raise ConfigurationError("a size is at least 1")
        if not 0 < self.cached_tokens < self.prompt_tokens:
            raise ConfigurationError("cached_tokens lies between 0 and prompt_tokens")


QUICK: Final = Sizes(
    prompt_tokens=256, decode_tokens=48, cached_tokens=192, batch_tokens=16, documents=4, document_tokens=200,
    answer_tokens=16,
)  # fmt: skip
QUICK_PAIRS: Final = 3


def check_measures(names: object) -> tuple[MeasureName, ...]:
    """The measures of these names, in their own order.

    Raises:
        ConfigurationError: one is not known, or there is none.
    """
    words = tuple(names) if isinstance(names, list | tuple) else ()
    for word in words:
        if word not in MEASURES:
            raise ConfigurationError(f"there is no measure {word!r}", hint=f"one of {', '.join(MEASURES)}")
    if not words:
        raise ConfigurationError("there is nothing to measure", hint=f"one of {', '.join(MEASURES)}")
    return tuple(name for name in MEASURES if name in words)


def device_with(threads: int | None) -> DeviceProfile | None:
    """This machine as if it had so many cores, from which a client takes its threads; None leaves it to the client."""
    if threads is None:
        return None
    return replace(detect(measure=True), physical_cores=threads, usable_cores=threads)
