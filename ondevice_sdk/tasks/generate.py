"""Generate free text, or a value of a type."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ondevice_sdk.backends.api import Chat, Generate, Generated, Sampling
from ondevice_sdk.errors import ConfigurationError, GenerationFailed
from ondevice_sdk.tasks.chat import as_shown, messages_of
from ondevice_sdk.tasks.flow import Flow, Step
from ondevice_sdk.tasks.schema import grammar_for, json_schema, parse
from ondevice_sdk.tasks.tools.flow import call_tool
from ondevice_sdk.tasks.tools.offers import offers_of
from ondevice_sdk.text.split import check_encodable
from ondevice_sdk.types import Generation, Message, Tool, Usage

_SHOWN_SCHEMA = 2000  # characters; a longer schema would crowd out the prompt, the constraint holds without it


def generate(
    prompt: str | Sequence[Message],
    *,
    context_tokens: int,  # noqa: ARG001  (all flows take it; here the engine alone knows what fits)
    instructions: str | None = None,
    output_type: Any = None,
    tools: Sequence[Callable[..., Any] | Tool] = (),
    max_tokens: int = 512,
    temperature: float = 0.7,
    top_p: float = 0.95,
    top_k: int = 40,
    min_p: float = 0.05,
    repetition_penalty: float = 1.0,
    seed: int | None = None,
    stop: Sequence[str] = (),
    ignore_eos: bool = False,
    deterministic: bool = False,
    stream: bool = False,
) -> Flow[Generation[Any]]:
    """Write an answer to a prompt.

    With an `output_type` the output is constrained to it and `output` holds its value; the value of a generation that
    was cancelled is None, its `text` the part that was written. Without one, `output` is the text.

    Where one of the `tools` serves the request, the answer is a proposal to call it: `finish_reason` is "tool_call",
    `tool_calls` has the call, and `text` is the call as JSON. The app runs it, or does not.

    Raises:
        ConfigurationError: a wrong argument. SchemaUnsupported: a type that cannot be a constraint.
        OutputInvalid: the output ended before its form was complete.
    """
    messages = messages_of(prompt, instructions)
    offers = offers_of(tools)
    _check_integer("max_tokens", max_tokens, 1)
    sampling = checked_sampling(temperature, top_p, top_k, min_p, repetition_penalty, seed)
    grammar = None if output_type is None else grammar_for(output_type)
    stops = _checked_stop(stop)
    usage = Usage()
    if offers:
        call, usage = yield from call_tool(messages, offers, max_tokens=max_tokens, deterministic=bool(deterministic))
        if call is not None:
            return call if output_type is not None else replace(call, output=call.text)
    if grammar is not None and grammar.form == "json_schema":
        messages = _with_schema(messages, output_type)
    request = Generate(
        Chat(as_shown(messages)),
        max_tokens,
        sampling,
        stop=stops,
        grammar=grammar,
        ignore_eos=bool(ignore_eos),
        deterministic=bool(deterministic),
        stream=bool(stream),
    )
    (result,) = yield Step((request,), "writing")
    if not isinstance(result, Generated):
        raise GenerationFailed("the engine answered a generation with something else")
    output: Any = result.text
    if output_type is not None:
        output = None if result.finish_reason == "cancelled" else parse(output_type, result.text)
    return Generation(result.text, output, usage + result.usage, result.finish_reason)


def checked_sampling(
    temperature: float, top_p: float, top_k: int, min_p: float, repetition_penalty: float, seed: int | None
) -> Sampling:
    """The sampling settings.

    Raises:
        ConfigurationError: one is out of its range.
    """
    _check_number("temperature", temperature, 0, 100)
    _check_number("top_p", top_p, 0, 1, open_low=True)
    _check_integer("top_k", top_k, 0)
    _check_number("min_p", min_p, 0, 1)
    _check_number("repetition_penalty", repetition_penalty, 0, 100, open_low=True)
    check_seed(seed)
    return Sampling(float(temperature), float(top_p), top_k, float(min_p), float(repetition_penalty), seed)


def check_seed(seed: int | None) -> None:
    """Refuse a seed that is no whole number from 0 to 2**63 - 1.

    Raises:
        ConfigurationError.
    """
    if seed is not None:
        _check_integer("seed", seed, 0)
        if seed >= 2**63:
            raise ConfigurationError("seed must be less than 2**63")


def _check_integer(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"{name} must be a whole number, not {type(value).__name__}")
    if value < least:
        raise ConfigurationError(f"{name} must be at least {least}, not {value}")


def _check_number(name: str, value: object, low: float, high: float, *, open_low: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigurationError(f"{name} must be a finite number")
    if value > high or value < low or (open_low and value == low):
        raise ConfigurationError(f"{name} must be {'above' if open_low else 'at least'} {low:g} and at most {high:g}")


def _checked_stop(stop: Sequence[str]) -> tuple[str, ...]:
    if not isinstance(stop, Sequence):
        raise ConfigurationError(f"stop must be strings, not {type(stop).__name__}")
    strings = (stop,) if isinstance(stop, str) else tuple(stop)
    for index, string in enumerate(strings):
        if not isinstance(string, str) or not string:
            raise ConfigurationError(f"stop[{index}] must be a string that is not empty")
        check_encodable(string, f"stop[{index}]")
    return strings


def _with_schema(messages: tuple[Message, ...], output_type: Any) -> tuple[Message, ...]:
    """Tell the model what it will be held to: a constraint alone makes valid JSON, not sensible JSON."""
    schema = json.dumps(json_schema(output_type), separators=(",", ":"))
    shown = f" that fits this schema: {schema}" if len(schema) <= _SHOWN_SCHEMA else ""
    return messages_of(messages, f"Answer in JSON{shown}.")
