"""Measures at a full context: the prompt fills it but for what is written after.

Reading such a prompt can take minutes, so that it is read as seldom as can be: each cold start reads it once, which
gives the memory, the first token and the speed of the prompt; what is written after it needs it read once more for all
samples together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from ondevice_sdk.bench import prompts
from ondevice_sdk.bench.conditions import Sizes
from ondevice_sdk.bench.measures import Measure, Sample, ask_cold
from ondevice_sdk.bench.session import Session
from ondevice_sdk.bench.stations import Station, Target, loaded
from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.types import Message

# Of the 1B shape with random weights, on two cores: 8,192 tokens take two minutes to read. Three rounds of three
# precisions are then half an hour.
FILLED_PAIRS: Final = 3
_MOST_WRITTEN: Final = 64  # tokens; as many as say something of a speed, and leave the context to the prompt
_ANSWER: Final = 8  # of a cold start, where nothing is measured after the first token
_LEAST_PROMPT: Final = 32
_SEED: Final = 1


class Prepared(Station):
    """A text for every sample. `session`: where it is continued; None where each sample starts its own."""

    def __init__(self, target: Target, text: str, session: Session | None = None) -> None:
        super().__init__(target, None)
        self.text = text
        self.session = session


def filling(context_tokens: int, sizes: Sizes) -> Sizes:
    """The sizes with a prompt that fills so large a context.

    Raises:
        ConfigurationError: the context has no room for a prompt.
    """
    written = min(sizes.decode_tokens, _MOST_WRITTEN)
    prompt = context_tokens - written
    if prompt < _LEAST_PROMPT:
        raise ConfigurationError(
            f"a context of {context_tokens} tokens has no room for a prompt",
            hint=f"at least {written + _LEAST_PROMPT} tokens",
        )
    return replace(
        sizes,
        prompt_tokens=prompt,
        decode_prompt_tokens=prompt,
        decode_tokens=written,
        first_token_prompt_tokens=prompt,
        cached_tokens=prompt // 2,
        answer_tokens=min(sizes.answer_tokens, written, _ANSWER),
    )


@contextmanager
def _asked_cold(target: Target) -> Iterator[Prepared]:
    """Find the text, with a client that is gone when the samples start."""
    with target.client() as ai:
        text = prompts.exact(
            lambda texts: [ai.count_tokens([Message("user", text)]) for text in texts],
            target.sizes.prompt_tokens,
            _SEED,
            fan=1,
        )
    yield Prepared(target, text)


@contextmanager
def _continued(target: Target) -> Iterator[Prepared]:
    """A worker with the model loaded."""
    with loaded(target) as station:
        text = prompts.exact(station.session.count, target.sizes.decode_prompt_tokens, _SEED)
        yield Prepared(target, text, station.session)


def _prompt(station: Prepared, turn: int) -> Sequence[Sample]:  # noqa: ARG001 - there is nobody to take turns with
    """A new app and a new worker; from the moment that the model is loaded to the first token."""
    cold = ask_cold(station.target, station.text)
    seconds = cold.times["first"] - cold.times["loaded"]
    return [
        *cold.memory,
        Sample("first_token_warm_s", seconds),
        Sample("prompt_tokens_per_s", cold.prompt_tokens / seconds),
    ]


def _decode(station: Prepared, turn: int) -> Sequence[Sample]:  # noqa: ARG001
    """Write tokens one by one, none of them drafted. The warm-up reads the prompt, which is then in the cache."""
    assert station.session is not None
    timing = station.session.generate([station.text], station.target.sizes.decode_tokens, stepwise=True)[0]
    return [Sample("decode_tokens_per_s", timing.decode_tokens_per_s)]


GROUPS: Final[Sequence[Sequence[Measure[Prepared]]]] = (
    (Measure("decode", _continued, _decode),),
    (Measure("cold", _asked_cold, _prompt, warm_up=False),),
)
