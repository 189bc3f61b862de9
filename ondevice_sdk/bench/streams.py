"""The speed of a stream, as the app that reads it sees it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from ondevice_sdk import Client
from ondevice_sdk.bench.session import INSTANT_S
from ondevice_sdk.errors import GenerationFailed
from ondevice_sdk.options import GenerateOptions
from ondevice_sdk.stream import Stream
from ondevice_sdk.types import JsonValue, PromptProgress, TextDelta

_ROOM: Final = 12  # times the tokens that are measured: a piece of text may be of as many as are written in one pass


def endless(tokens: int) -> Mapping[str, JsonValue]:
    """A form that so many tokens do not complete: an item takes three at least."""
    return {"type": "array", "items": {"type": "string", "maxLength": 40}, "minItems": 2 * tokens}


def stream_speed(
    ai: Client, text: str, tokens: int, *, sampled: bool = False, form: Mapping[str, JsonValue] | None = None
) -> float:
    """Tokens per second of a stream, from the moment its prompt was read to the arrival of the last text.

    Args:
        ai: the client.
        text: the prompt.
        tokens: written; with a form about so many, after which the stream is cancelled: the form is not complete.
        sampled: by the client's default sampling; else greedily.
        form: a JSON schema.

    Raises:
        GenerationFailed: fewer tokens came, or none.
    """
    options: GenerateOptions = {"max_tokens": tokens if form is None else _ROOM * tokens, "ignore_eos": True}
    if not sampled:
        options["temperature"] = 0
    stream: Stream[str] | Stream[JsonValue]
    stream = ai.stream(text, **options) if form is None else ai.stream(text, output_type=form, **options)
    read = first = last = 0.0
    pieces = 0
    with stream:
        for event in stream.events():
            now = time.perf_counter()
            if isinstance(event, PromptProgress) and event.done == event.total:
                read = now
            elif isinstance(event, TextDelta):
                first, last, pieces = first or now, now, pieces + 1
                if form is not None and pieces >= tokens:
                    stream.cancel()
        written = stream.result().usage.completion_tokens
    if written < 2 or (form is None and written != tokens):
        raise GenerationFailed("fewer tokens came than were asked for", hint="the context is too short")
    return (written - 1) / max(last - (read or first), INSTANT_S)
