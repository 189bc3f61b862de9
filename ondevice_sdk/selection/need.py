"""What a choice is made from, besides the device and the catalogue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias, get_args

from ondevice_sdk.backends.api import Footprint, KvType, LoadOptions
from ondevice_sdk.backends.calibration import Calibration
from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.types import ModelShape, Prefer, TaskName

Estimate: TypeAlias = Callable[[ModelShape, int, LoadOptions], Footprint]

LEAST_CONTEXT = 2048  # tokens in which every task of the SDK can work
LEAST_TO_EMBED = 64  # tokens; longer texts are embedded in parts
ANSWER_TOKENS = 512  # room kept for the answer
TYPICAL_PROMPT = 1000  # tokens, where the caller does not say


@dataclass(frozen=True, slots=True)
class Need:
    """What the model is for. `tokens` is the length of the input, `context` the room that the app insists on.

    `model` and `variant` restrict the choice to what was named; `backends` to those that may be used, None: all.
    """

    task: TaskName | None = None
    tokens: int | None = None
    prefer: Prefer = "balanced"
    model: str | None = None
    variant: str | None = None
    context: int | None = None
    backends: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name, value, words in (("task", self.task, TaskName), ("prefer", self.prefer, Prefer)):
            if value is not None and value not in get_args(words):
                raise ConfigurationError(f"{name} is one of {', '.join(get_args(words))}")
        if self.tokens is not None and self.tokens < 0:
            raise ConfigurationError("tokens is not negative")
        if self.context is not None and self.context <= 0:
            raise ConfigurationError("context is positive")

    @property
    def required_context(self) -> int:
        """Tokens without which the task cannot be done. Long documents are summarised in pieces and need no more."""
        if self.context is not None:
            return self.context
        if self.task == "embed":
            return LEAST_TO_EMBED
        if self.tokens is None or self.task == "summarise":
            return LEAST_CONTEXT
        return max(LEAST_CONTEXT, self.tokens + ANSWER_TOKENS)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the first prompt, for predictions."""
        tokens = TYPICAL_PROMPT if self.tokens is None else self.tokens
        return min(tokens, LEAST_CONTEXT) if self.task == "summarise" else tokens


@dataclass(frozen=True, slots=True)
class CopyOffer:
    """An installed variant's copy in a layout that was measured to be faster with a backend on a processor.

    `stale` says why it is not to be used here; empty where it was measured on this processor with this library.
    """

    name: str
    variant: str
    backend: str
    layout: str
    size: int
    prompt: float  # times as fast as the model's own file
    decode: float
    stale: str = ""


@dataclass(frozen=True, slots=True)
class BackendOffer:
    """A backend as the choice sees it: what it reads, whether it works here, and how it predicts memory."""

    name: str
    formats: frozenset[str]
    usable: bool
    reason: str = ""  # why it is not usable
    hint: str = ""  # what to do about it
    kv_types: tuple[KvType, ...] = ("f16",)
    calibration: Calibration | None = None  # what was measured here with it; None: speeds are guessed
    built_in: bool = False  # comes with the SDK, and so has the longer record
    estimate: Estimate = field(kw_only=True, compare=False, repr=False)
