"""A loaded model in a worker, seen with a clock: when the prompt was read, when the last token came."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ondevice_sdk import errors
from ondevice_sdk.backends.api import (
    GREEDY,
    Capability,
    Done,
    Event,
    Failed,
    Generate,
    Generated,
    PromptProgress,
    Raw,
    Request,
    Segment,
    Tokenize,
    Tokenized,
    Usage,
)
from ondevice_sdk.errors import GenerationFailed
from ondevice_sdk.runtime.executor import Executor, Ticket

_PATIENCE_S: Final = 3600.0  # for a request; a large model on a busy machine
INSTANT_S: Final = 1e-6  # between two events that arrived together


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds as the app sees them, from the submission on: the pipes, the sampling, everything is in them.

    `prompt_s` is when the first token had been chosen, `end_s` when the last had come. `usage` is the engine's own
    account, which counts the time inside the model only.
    """

    prompt_s: float
    end_s: float
    usage: Usage

    @property
    def decode_tokens_per_s(self) -> float:
        """Tokens after the first, per second."""
        return (self.usage.completion_tokens - 1) / (self.end_s - self.prompt_s)


class Session:
    """Times requests on an executor, whose owner closes it."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor

    @property
    def context_tokens(self) -> int:
        """Most tokens of a request."""
        return self.executor.loaded.context_tokens

    def count(self, texts: Sequence[str]) -> Sequence[int]:
        """Tokens of texts as `generate` uses them."""
        request = Tokenize(prompts=tuple(Raw((Segment(text),)) for text in texts))
        ((_, _, event),) = self._wait([request])
        assert isinstance(event.result, Tokenized)
        return event.result.counts

    def generate(self, texts: Sequence[str], tokens: int, *, stepwise: bool = False) -> list[Timing]:
        """Continue the texts greedily, all at a time, with exactly so many tokens each.

        Args:
            texts: prompts.
            tokens: to write.
            stepwise: a pass of the model for each token, as a bare loop has it: nothing is drafted. It is the engine's
                deterministic way, for want of another switch; where an engine has none, it is as always.

        Raises:
            GenerationFailed: fewer tokens came. WorkerCrashed, InputTooLong, ... : as from a client.
        """
        exact = stepwise and Capability.DETERMINISTIC in self.executor.loaded.capabilities
        prompts = [Raw((Segment(text),)) for text in texts]
        timings = self._run([Generate(p, tokens, GREEDY, ignore_eos=True, deterministic=exact) for p in prompts])
        if any(timing.usage.completion_tokens != tokens for timing in timings):
            raise GenerationFailed("fewer tokens came than were asked for", hint="the context is too short")
        return timings

    def _run(self, requests: Sequence[Request]) -> list[Timing]:
        timings = []
        for prompt_s, end_s, event in self._wait(requests):
            assert isinstance(event.result, Generated)
            timings.append(Timing(prompt_s, end_s, event.result.usage))
        return timings

    def _wait(self, requests: Sequence[Request]) -> list[tuple[float, float, Done]]:
        """Submit all at once; for each when its prompt was read, when it ended, and its end."""
        start = time.perf_counter()
        watched = [_Watched(self.executor.submit(request)) for request in requests]
        try:
            for each in watched:
                if not each.ended.wait(_PATIENCE_S):
                    raise GenerationFailed("the worker does not answer")
            return [each.times(start) for each in watched]
        except BaseException:  # Ctrl-C too: nothing goes on behind it
            for each in watched:
                each.ticket.cancel()
            raise


class _Watched:
    """A request whose events get the time of their arrival, on the thread that brings them."""

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket
        self.ended = threading.Event()
        self._arrivals: list[tuple[float, Event]] = []
        ticket.set_wakeup(self._take)

    def _take(self) -> None:
        now = time.perf_counter()
        for event in self.ticket.take():
            self._arrivals.append((now, event))
            if isinstance(event, Done | Failed):
                self.ended.set()

    def times(self, start: float) -> tuple[float, float, Done]:
        """When the prompt was read and when the end came, in seconds after `start`; raises if that was a failure."""
        end, last = self._arrivals[-1]
        if isinstance(last, Failed):
            raise errors.rebuild(last.error.code, last.error.message, last.error.hint, last.error.data)
        assert isinstance(last, Done)
        read = (now for now, event in self._arrivals if isinstance(event, PromptProgress) and event.done == event.total)
        prompt = next(read, end)
        return prompt - start, max(end, prompt + INSTANT_S) - start, last
