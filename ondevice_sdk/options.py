"""The keyword options of the tasks: typed dictionaries for checkers, real signatures for readers.

A client method takes `**options: Unpack[...]` and hands them to the task's flow, whose parameters hold the defaults.
The decorator `takes` shows these parameters as the method's own, so that every name and default stands in one place.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict, TypeVar, get_args

from ondevice_sdk.call import OnError, ProgressCallback
from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.types import Format, Length, Message, Style, Tool

Prompt: TypeAlias = str | Sequence[Message]
F = TypeVar("F", bound=Callable[..., Any])

_INNER = frozenset({"context_tokens", "stream", "learned"})  # parameters of flows that the client sets


class SummariseOptions(TypedDict, total=False):
    """Options of `Client.summarise`."""

    style: Style
    length: Length
    format: Format
    language: str | None
    context: str | None
    seed: int | None
    adapter: str | None
    on_progress: ProgressCallback | None


class AnalyseOptions(TypedDict, total=False):
    """Options of `Client.analyse`."""

    examples: Sequence[tuple[str, Any]]
    abstain_below: float | None
    seed: int | None
    adapter: str | None
    on_progress: ProgressCallback | None


class RedactOptions(TypedDict, total=False):
    """Options of `Client.redact`."""

    kinds: Collection[str] | None
    min_confidence: float
    adapter: str | None
    on_progress: ProgressCallback | None


class GenerateOptions(TypedDict, total=False):
    """Options of `Client.generate`, without `output_type`."""

    instructions: str | None
    tools: Sequence[Callable[..., Any] | Tool]
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    seed: int | None
    stop: Sequence[str]
    ignore_eos: bool
    adapter: str | None
    timeout: float | None
    deterministic: bool
    on_progress: ProgressCallback | None


class SummariseManyOptions(SummariseOptions, total=False):
    """Options of `Client.summarise_many`."""

    on_error: OnError
    window: int | None


class AnalyseManyOptions(AnalyseOptions, total=False):
    """Options of `Client.analyse_many`."""

    on_error: OnError
    window: int | None


class GenerateManyOptions(GenerateOptions, total=False):
    """Options of `Client.generate_many`."""

    on_error: OnError
    window: int | None


def check_word(name: str, value: object, words: object) -> None:
    """Refuse a value that is none of the words of a `Literal`.

    Raises:
        ConfigurationError.
    """
    allowed = get_args(words)
    if value not in allowed:
        raise ConfigurationError(f"{name} must be one of {', '.join(map(repr, allowed))}")  # the value may be a text


def check_count(name: str, value: object, least: int) -> None:
    """Refuse what is no whole number, or too small.

    Raises:
        ConfigurationError.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"{name} must be a whole number, not {type(value).__name__}")
    if value < least:
        raise ConfigurationError(f"{name} must be at least {least}, not {value}")


def check_seconds(name: str, value: object) -> None:
    """Refuse what is no time span.

    Raises:
        ConfigurationError.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ConfigurationError(f"{name} is in seconds, finite and not negative")


def check_several(name: str, value: object) -> None:
    """Refuse one string in the place of several, of which it would be the letters.

    Raises:
        ConfigurationError.
    """
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise ConfigurationError(f"{name} must be a sequence, not {type(value).__name__}")


def check_adapter(value: object) -> None:
    """Refuse what is no name of an adapter.

    Raises:
        ConfigurationError.
    """
    if not isinstance(value, str | None):
        raise ConfigurationError(f"adapter must be the name of one, not {type(value).__name__}")


_Extra = Literal["adapter", "timeout", "on_progress", "on_error", "window"]
_EXTRA_DEFAULTS: dict[_Extra, Any] = {
    "adapter": None, "timeout": None, "on_progress": None, "on_error": "raise", "window": None
}  # fmt: skip


def takes(flow: Callable[..., Any], *extra: _Extra) -> Callable[[F], F]:
    """Show the keyword parameters of a task's flow, and the named extra ones, as those of the decorated method."""

    def decorate(method: F) -> F:
        own = inspect.signature(method)
        named = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        seen = {p.name for p in named}
        options = [
            p
            for p in inspect.signature(flow).parameters.values()
            if p.kind is p.KEYWORD_ONLY and p.name not in _INNER and p.name not in seen
        ]
        options += [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_EXTRA_DEFAULTS[name]) for name in extra
        ]
        method.__signature__ = own.replace(parameters=[*named, *options])  # type: ignore[attr-defined]
        return method

    return decorate
