"""Frozen values that cross the borders between the parts: options, results, descriptions of models and devices.

No value shows the user's text in its `repr`, so that a logged result leaks nothing.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import mul
from typing import Any, Generic, Literal, TypeAlias

from typing_extensions import TypeVar

from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.intervals import Interval
from ondevice_sdk.receipt import ModelInfo, Receipt

__all__ = [
    "Analysis",
    "Availability",
    "Candidate",
    "Completed",
    "Coverage",
    "DeviceProfile",
    "Embeddings",
    "Generation",
    "JsonValue",
    "MeasuredSpeed",
    "Mechanism",
    "Message",
    "ModelInfo",
    "ModelShape",
    "Point",
    "PrivacyReport",
    "Progress",
    "PromptProgress",
    "Receipt",
    "Redaction",
    "Replacement",
    "Segment",
    "Selection",
    "Span",
    "StreamEvent",
    "Summary",
    "TextDelta",
    "Tool",
    "ToolCall",
    "Usage",
]

T = TypeVar("T", default=str)

JsonValue: TypeAlias = "dict[str, JsonValue] | list[JsonValue] | str | int | float | bool | None"

PrivacyLevel = Literal["strict", "guarded", "off"]
Isolation = Literal["process", "thread"]
Prefer = Literal["quality", "balanced", "speed", "memory", "battery"]
Style = Literal["key_points", "tldr", "teaser", "headline", "paragraph"]
Length = Literal["short", "medium", "long"] | int  # a number is a limit of words
Format = Literal["plain", "markdown"]
TaskName = Literal["summarise", "analyse", "generate", "embed"]
Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "cancelled", "tool_call"]
PointStatus = Literal["supported", "repaired", "extractive"]
MechanismState = Literal["active", "absent", "not_available"]


# --- what goes in -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. Its content is data: special tokens in it are plain text.

    A "tool" turn brings back what a tool gave; `ToolCall.reply` makes it.
    """

    role: Role
    content: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that is no Python function: `parameters` is the JSON schema of its arguments, which are an object."""

    name: str
    description: str = field(repr=False)
    parameters: Mapping[str, JsonValue] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a prompt. Only `control` text may become special tokens of the model; `data` never does."""

    text: str = field(repr=False)
    kind: Literal["control", "data"] = "data"


# --- what comes out ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and seconds of one call, summed over all requests it made.

    `prompt_tokens` counts every prompt token, `cached_tokens` those of them that did not have to be processed again.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.prefill_s + other.prefill_s,
            self.decode_s + other.decode_s,
        )


@dataclass(frozen=True, slots=True)
class Span:
    """A range of the caller's string in code points, end exclusive: `text[start:end] == span.text`."""

    start: int
    end: int
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Evidence(Span):
    """Where the text bears out a value of `Analysis.output`: the value's own words, or the sentence that supports it.

    `path` is the JSON pointer (RFC 6901) of the value in the output: "/buyer/name", "/items/0", "" for the whole.
    """

    path: str = field(default="", repr=False)  # has names of the app's own fields


@dataclass(frozen=True, slots=True)
class Point:
    """One statement of a summary, with the spans that it stands on.

    `supported`: the model's words, found in the sources; `repaired`: a shorter form of them, or a second attempt;
    `extractive`: the document's own sentences, because the model's words were not supported, or say clearly less.
    """

    text: str = field(repr=False)
    sources: tuple[Span, ...]
    status: PointStatus


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of the document was read: characters, and in how many model calls."""

    read_chars: int
    total_chars: int
    calls: int

    @property
    def fraction(self) -> float:
        """Share of the document that was read, 0 to 1."""
        return self.read_chars / self.total_chars if self.total_chars else 1.0


@dataclass(frozen=True, slots=True)
class Summary:
    """A summary; `text` is its rendered form, `points` its statements (never empty)."""

    text: str = field(repr=False)
    points: tuple[Point, ...]
    coverage: Coverage
    warnings: tuple[str, ...] = ()
    usage: Usage = Usage()
    receipt: Receipt | None = None


@dataclass(frozen=True, slots=True)
class Analysis(Generic[T]):
    """The answer of `analyse`.

    `probabilities` is given for closed label sets and sums to 1; `confidence` is then the probability of `output`.
    `evidence` names for each value of a form with fields where the text bears it out; a value without any is not borne
    out, and a warning names its path.
    """

    output: T = field(repr=False)
    confidence: float | None = None
    probabilities: Mapping[str, float] | None = field(default=None, repr=False)  # would tell the output
    evidence: tuple[Evidence, ...] = ()
    warnings: tuple[str, ...] = field(default=(), repr=False)  # may name fields of the form
    usage: Usage = Usage()
    receipt: Receipt | None = None


@dataclass(frozen=True, slots=True)
class Replacement:
    """A placeholder, what it stands for, and the places of that in the original text."""

    placeholder: str
    original: str = field(repr=False)
    kind: str
    spans: tuple[Span, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Redaction:
    """A text with placeholders in the place of personal data, and the map back. Keep the map as safe as the original.

    `text` has one placeholder per string that was found, the same at all its places; none occurs in the original.
    """

    text: str = field(repr=False)
    replacements: tuple[Replacement, ...]
    warnings: tuple[str, ...] = ()
    usage: Usage = Usage()
    receipt: Receipt | None = None

    def restore(self, text: str | None = None) -> str:
        """Put the originals back, into the redacted text or another that uses its placeholders.

        Such as an answer of a model that saw the redacted text only. Placeholders are known in any letter case; others
        stay.
        """
        text = self.text if text is None else text
        if not self.replacements:
            return text
        originals = {item.placeholder: item.original for item in self.replacements}
        pattern = re.compile("|".join(map(re.escape, originals)), re.IGNORECASE | re.ASCII)
        return pattern.sub(lambda match: originals[match.group().upper()], text)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The answer of `embed`: a vector of length 1 for each text, so that the product of two is their similarity.

    A vector is an `array` of 32-bit floats, which numpy takes without copying.
    """

    vectors: tuple[Sequence[float], ...] = field(repr=False)
    warnings: tuple[str, ...] = ()
    usage: Usage = Usage()
    receipt: Receipt | None = None

    @property
    def dimensions(self) -> int:
        """Numbers of a vector; 0 where there is none."""
        return len(self.vectors[0]) if self.vectors else 0

    def nearest(self, vector: Sequence[float], most: int = 10) -> tuple[tuple[int, float], ...]:
        """The places of the vectors that are nearest to one of the same model, best first, with their similarity.

        The similarity is the cosine: 1 for the same direction, around 0 for texts that have nothing in common.

        Raises:
            ValueError: the vector has other dimensions.
        """
        if self.vectors and len(vector) != self.dimensions:
            raise ValueError(f"a vector of {len(vector)} numbers among vectors of {self.dimensions}")
        found = ((sum(map(mul, vector, other)), place) for place, other in enumerate(self.vectors))
        best = heapq.nsmallest(most, found, key=lambda each: (-each[0], each[1]))
        return tuple((place, similarity) for similarity, place in best)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model asks for. It is a proposal: nothing runs before the app calls `run()`.

    The arguments have the types of the function's parameters; those that the request says nothing about are left out.
    """

    name: str
    arguments: Mapping[str, Any] = field(repr=False)
    function: Callable[..., Any] | None = field(default=None, repr=False, compare=False)

    def run(self) -> Any:
        """Call the function, and give what it returns: of an `async def` something to await.

        Raises:
            ConfigurationError: the tool is a schema, with no function behind it.
        """
        if self.function is None:
            raise ConfigurationError("this tool has no function to run", hint="pass a function in tools=")
        return self.function(**self.arguments)

    def reply(self, result: object) -> Message:
        """The turn that tells the model what the tool gave: a text as it is, anything else as JSON if it can be."""
        if not isinstance(result, str):
            from pydantic_core import to_json

            try:
                result = to_json(result, fallback=str).decode()
            except ValueError:  # bytes that are no text, or what holds itself
                result = str(result)
        return Message("tool", f"Result of {self.name}: {result}")


@dataclass(frozen=True, slots=True)
class Generation(Generic[T]):
    """The answer of `generate`: `text` as the model wrote it, `output` in the type that was asked for."""

    text: str = field(repr=False)
    output: T = field(repr=False)
    usage: Usage
    finish_reason: FinishReason
    tool_calls: tuple[ToolCall, ...] = ()
    receipt: Receipt | None = None


# --- progress and stream events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Progress:
    """How far long work is. `done` and `total` count in `unit`; `total` is None while it is not known."""

    stage: str
    done: int
    total: int | None
    unit: str = "steps"


@dataclass(frozen=True, slots=True)
class PromptProgress:
    """Prompt tokens that have been processed so far."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of text; never splits a character."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Completed:
    """The last event of a stream."""

    usage: Usage
    finish_reason: FinishReason


StreamEvent = PromptProgress | TextDelta | ToolCall | Completed


# --- models, devices, choices -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Dimensions of a decoder-only transformer, as its configuration file gives them."""

    parameters: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    vocabulary: int
    context_tokens: int

    def kv_bytes_per_token(self, bytes_per_value: int = 2) -> int:
        """Bytes of the KV cache for one token over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * bytes_per_value


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """This machine, as far as this process may use it.

    `memory_bytes` is the least of physical memory, cgroup limit and address-space limit; `memory_available_bytes` what
    is free of it now. `read_bandwidth` is bytes/s with all usable cores, None where it was not measured.
    """

    system: str  # "linux", "macos", "windows"
    machine: str  # "x86_64", "aarch64"
    cpu_name: str
    instruction_sets: tuple[str, ...]
    physical_cores: int
    usable_cores: int  # after affinity and cgroup quota
    memory_bytes: int
    memory_available_bytes: int
    read_bandwidth: float | None = None
    on_battery: bool | None = None
    limits: tuple[str, ...] = ()  # what narrowed the figures, in words

    @property
    def threads(self) -> int:
        """Threads that a model runs with: one for each physical core that this process may use."""
        return max(1, min(self.physical_cores, self.usable_cores))

    @property
    def cpu_bandwidth(self) -> float:
        """Read bandwidth in bytes/s; a cautious 8 GB/s where it was not measured."""
        return self.read_bandwidth or 8e9


@dataclass(frozen=True, slots=True)
class MeasuredSpeed:
    """What a model did with a backend on this device, in turns with the other backends that run it.

    Tokens/s, with the range in which the median lies; `prefill_tokens_per_s` is over the whole time until the first
    token after `prompt_tokens`.
    """

    library: str
    threads: int
    rounds: int
    prompt_tokens: int
    prefill_tokens_per_s: Interval
    decode_tokens_per_s: Interval


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model, variant and backend that was weighed. Exactly one of `rank` (from 1) and `rejected` is set.

    The speeds are predicted: from a measurement of this device where `calibrated`, else roughly from its description.
    `measured` has the figures where this very model was measured with this backend. `layout` names the formats of the
    optimised copy that is used in place of the model's own file, None: there is none; `notes` say more of all that,
    such as why a copy is not used.
    """

    name: str
    variant: str
    backend: str
    memory_bytes: int
    ttft_s: float
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    installed: bool = False
    calibrated: bool = False
    rank: int | None = None
    rejected: str | None = None
    layout: str | None = None
    notes: tuple[str, ...] = ()
    measured: MeasuredSpeed | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """The choice and everything that was weighed for it, ranked first, then the rejected."""

    chosen: Candidate | None
    candidates: tuple[Candidate, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a task can run now, and if not, why."""

    state: Literal["available", "downloadable", "downloading", "unavailable"]
    reasons: tuple[str, ...] = ()


# --- privacy ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One protection: `active` only where it was proved in that very worker."""

    name: str
    state: MechanismState
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PrivacyReport:
    """What protects the text in this client's worker, and what does not. Holds no text."""

    level: PrivacyLevel
    isolation: Isolation
    enforced: bool
    mechanisms: tuple[Mechanism, ...]
    limits: tuple[str, ...] = ()
    attempts: tuple[Mapping[str, Any], ...] = ()

    @property
    def summary(self) -> str:
        """The report in one line."""
        active = ", ".join(m.name for m in self.mechanisms if m.state == "active") or "nothing"
        head = "network refused by the kernel" if self.enforced else "network NOT refused by the kernel"
        return f"privacy {self.level}: {head}; active: {active}"
