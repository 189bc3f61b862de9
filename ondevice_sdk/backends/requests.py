"""What an engine is asked, and what it answers: plain frozen values that cross the pipe to the worker.

Every value has a `kind` word, so that a union of them can be told apart in JSON. A request gets exactly one terminal
event, `Done` or `Failed`; `PromptProgress` and `TextDelta` events come before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ondevice_sdk.errors import GenerationFailed, OnDeviceError
from ondevice_sdk.types import FinishReason, Message, Segment, Usage

# --- prompts ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Chat:
    """Messages, laid out by the model's own chat template. The answer starts after `answer_prefix`."""

    messages: tuple[Message, ...]
    answer_prefix: str = field(default="", repr=False)
    kind: Literal["chat"] = "chat"


@dataclass(frozen=True, slots=True)
class Raw:
    """Segments, used as they are (the model's begin-of-text token is put before them where it wants one)."""

    segments: tuple[Segment, ...]
    kind: Literal["raw"] = "raw"


Prompt = Chat | Raw


# --- requests ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. `temperature=0` is greedy; `seed=None` takes a fresh one."""

    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 40
    min_p: float = 0.05
    repetition_penalty: float = 1.0
    seed: int | None = None


GREEDY = Sampling(temperature=0.0)


@dataclass(frozen=True, slots=True)
class Grammar:
    """A constraint on the output: a JSON schema (as JSON text), a regular expression, or one of some strings."""

    form: Literal["json_schema", "regex", "choice"]
    source: str = field(default="", repr=False)
    choices: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Generate:
    """Write up to `max_tokens` tokens after the prompt."""

    prompt: Prompt
    max_tokens: int
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = field(default=(), repr=False)
    grammar: Grammar | None = None
    ignore_eos: bool = False
    deterministic: bool = False
    stream: bool = False  # whether TextDelta events are wanted
    adapter: str | None = None
    prefix_key: str | None = None  # requests with one key are likely to share a prefix
    priority: int = 0  # larger goes first
    kind: Literal["generate"] = "generate"


@dataclass(frozen=True, slots=True)
class Score:
    """Log-probability of each continuation after the prompt."""

    prompt: Prompt
    continuations: tuple[str, ...] = field(repr=False)
    adapter: str | None = None
    prefix_key: str | None = None
    priority: int = 0
    kind: Literal["score"] = "score"


@dataclass(frozen=True, slots=True)
class Embed:
    """A vector for each text."""

    texts: tuple[str, ...] = field(repr=False)
    priority: int = 0
    kind: Literal["embed"] = "embed"


@dataclass(frozen=True, slots=True)
class Tokenize:
    """Count tokens of plain texts, and of prompts with all that the template adds."""

    texts: tuple[str, ...] = field(default=(), repr=False)
    prompts: tuple[Prompt, ...] = ()
    priority: int = 0
    kind: Literal["tokenize"] = "tokenize"


Request = Generate | Score | Embed | Tokenize


# --- results ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Generated:
    """`text` is the whole output (without the stop string), also when it was streamed."""

    text: str = field(repr=False)
    finish_reason: FinishReason
    usage: Usage
    kind: Literal["generated"] = "generated"


@dataclass(frozen=True, slots=True)
class Scored:
    """Per continuation: the sum of its tokens' log-probabilities (natural logarithm) and how many tokens it has."""

    logprobs: tuple[float, ...]
    token_counts: tuple[int, ...]
    usage: Usage
    kind: Literal["scored"] = "scored"


@dataclass(frozen=True, slots=True)
class Embedded:
    """One vector per text."""

    vectors: tuple[tuple[float, ...], ...] = field(repr=False)
    usage: Usage
    kind: Literal["embedded"] = "embedded"


@dataclass(frozen=True, slots=True)
class Tokenized:
    """Counts in the order of the request: texts, then prompts."""

    counts: tuple[int, ...]
    kind: Literal["tokenized"] = "tokenized"


Result = Generated | Scored | Embedded | Tokenized


# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PromptProgress:
    """Prompt tokens processed so far, of how many."""

    request_id: str
    done: int
    total: int
    kind: Literal["prompt_progress"] = "prompt_progress"


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next characters of a streamed generation."""

    request_id: str
    text: str = field(repr=False)
    kind: Literal["text_delta"] = "text_delta"


@dataclass(frozen=True, slots=True)
class Done:
    """The request is finished."""

    request_id: str
    result: Result
    kind: Literal["done"] = "done"


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An error of `ondevice_sdk.errors` as plain data; `errors.rebuild` makes the exception again."""

    code: str
    message: str = ""
    hint: str | None = None
    data: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Failed:
    """The request ended with an error."""

    request_id: str
    error: ErrorInfo
    kind: Literal["failed"] = "failed"

    @classmethod
    def of(cls, request_id: str, error: Exception) -> Failed:
        """The event of an error. Foreign errors may quote the user's text: only their type is told."""
        if isinstance(error, OnDeviceError):
            return cls(request_id, ErrorInfo(error.code, error.message, error.hint, error.data()))
        return cls(request_id, ErrorInfo(GenerationFailed.code, f"the engine failed ({type(error).__name__})"))


Event = PromptProgress | TextDelta | Done | Failed
