"""The one loop that owns an engine: one thread makes, steps and closes it; everybody else only posts to the inbox."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, cast

from ondevice_sdk.backends.api import (
    Done,
    Engine,
    ErrorInfo,
    Event,
    Failed,
    Generate,
    PromptProgress,
    Request,
    TextDelta,
)
from ondevice_sdk.errors import GenerationFailed

_MOST_FAILURES: Final = 8  # steps in a row that raise before the engine is given up
_PACE_S: Final = 0.03  # text of a stream goes out this often: every wake-up of the app costs the model processor time


class EngineBroken(Exception):
    """The engine raises at every step; its thread or process has to end."""


class StepBudget:
    """How many prompt tokens a step may process.

    So many that a step takes about 100 ms while somebody watches a stream, else 250 ms: without a stream only a cancel
    has to wait for the end of a step. In whole grains of 32 rows, and not fewer (unwatched: two grains), however slow
    the model: smaller passes were measured to read a prompt noticeably more slowly (llama.cpp, 135M model: 291 tokens/s
    with 32 rows, 320 with 64).

    Grows only on evidence: progress events that show how many tokens a step really processed. A step that took too
    long shrinks it in any case.
    """

    TARGET_S: Final = 0.1
    UNWATCHED_S: Final = 0.25
    START: Final = 64
    MOST: Final = 512
    GRAIN: Final = 32

    def __init__(self) -> None:
        self.tokens = self.START
        self.watched = True
        self._rate: float | None = None  # prompt tokens/s, smoothed

    def observe(self, seconds: float, prompt_tokens: int) -> None:
        """Learn from a step: its duration, and the prompt tokens it is known to have processed."""
        if seconds <= 0:
            return
        target = self.TARGET_S if self.watched else self.UNWATCHED_S
        if 2 * prompt_tokens >= self.tokens:  # less says little: the fixed cost of a step would hide the speed
            rate = prompt_tokens / seconds
            self._rate = rate if self._rate is None else 0.5 * (self._rate + rate)
            wanted = min(self._rate * target, 2 * self.tokens)
        elif seconds > target:
            wanted = self.tokens * max(0.5, target / seconds)
        elif seconds < target / 2 and self.tokens < self.START:
            wanted = self.tokens + self.GRAIN
        else:
            return
        least = self.GRAIN if self.watched else 2 * self.GRAIN
        self.tokens = min(max(int(wanted) // self.GRAIN * self.GRAIN, least), self.MOST)


@dataclass(frozen=True, slots=True)
class _Add:
    request_id: str
    request: Request


@dataclass(frozen=True, slots=True)
class _Abort:
    request_id: str


@dataclass(frozen=True, slots=True)
class _Forget:
    forgotten: Callable[[], None]


class EngineLoop:
    """Serves requests with one engine until `stop`.

    `emit` gets every batch of events, on the thread of `run`. The other methods may be called from any thread.
    """

    def __init__(
        self, engine: Engine, emit: Callable[[Sequence[Event]], None], *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._engine = engine
        self._emit = emit
        self._clock = clock
        self._inbox: queue.SimpleQueue[_Add | _Abort | _Forget | None] = queue.SimpleQueue()
        self._in_flight: dict[str, int] = {}  # prompt tokens known to be processed
        self._streams: set[str] = set()  # of those in flight, the ones that somebody watches
        self._begun: set[str] = set()  # of the streams, those that the app has heard of
        self._held: list[Event] = []  # text that waits for more
        self._sent = float("-inf")
        self._failures = 0
        self._worked = False  # since the engine was last told that there is nothing to do
        self.budget = StepBudget()

    def submit(self, request_id: str, request: Request) -> None:
        """Start a request."""
        self._inbox.put(_Add(request_id, request))

    def cancel(self, request_id: str) -> None:
        """End a request early; an unknown id is ignored."""
        self._inbox.put(_Abort(request_id))

    def forget(self, forgotten: Callable[[], None]) -> None:
        """Have the engine drop what it keeps of requests that are over; then `forgotten` is called, on its thread."""
        self._inbox.put(_Forget(forgotten))

    def stop(self) -> None:
        """Make `run` close the engine and return after its present step."""
        self._inbox.put(None)

    def run(self) -> None:
        """Serve.

        Raises:
            EngineBroken: the engine raises at every step.
        """
        try:
            while self._take_messages():
                self._step()
        finally:
            self._engine.close()

    def _take_messages(self) -> bool:
        """Apply what was posted, waiting if there is nothing else to do; False to stop."""
        while True:
            try:
                message = self._inbox.get_nowait()
            except queue.Empty:
                if self._in_flight:
                    return True
                self._rest()
                message = self._inbox.get()
            match message:
                case None:
                    return False
                case _Add(request_id, request):
                    self._in_flight[request_id] = 0
                    if isinstance(request, Generate) and request.stream:
                        self._streams.add(request_id)
                    self._send_held()  # to begin with a request can take long
                    try:
                        self._engine.add_request(request_id, request)
                    except Exception as error:  # noqa: BLE001 - whatever a backend raises ends this request only
                        self._finish([failure(request_id, error)])
                case _Forget(forgotten):
                    try:
                        self._engine.forget()
                    except Exception as error:  # nobody can say what it still keeps
                        raise EngineBroken from error
                    forgotten()
                case _Abort(request_id) if request_id in self._in_flight:
                    try:
                        self._engine.abort_request(request_id)
                    except Exception as error:  # noqa: BLE001
                        self._finish([failure(request_id, error)])

    def _step(self) -> None:
        if not self._in_flight:
            return
        self._worked = True
        self.budget.watched = bool(self._streams)
        begin = self._clock()
        try:
            events = self._engine.step(self.budget.tokens)
        except MemoryError as error:  # whatever it was about to allocate is missing now
            raise EngineBroken from error
        except Exception as error:  # noqa: BLE001 - the requests fail, the engine may still be good for others
            self._fail_all(error)
            return
        self._failures = 0
        seconds = self._clock() - begin
        self.budget.observe(seconds, self._finish(events))
        if self._in_flight and not self._engine.busy:
            lost = ErrorInfo(GenerationFailed.code, "the engine lost the request")
            self._finish([Failed(request_id, lost) for request_id in self._in_flight])

    def _rest(self) -> None:
        """Nobody waits for anything: time for what the engine puts off."""
        if self._worked:
            self._worked = False
            try:
                self._engine.idle()
            except Exception as error:  # it may be in the midst of anything
                raise EngineBroken from error

    def _fail_all(self, error: Exception) -> None:
        self._failures += 1
        failed = list(self._in_flight)
        self._finish([failure(request_id, error) for request_id in failed])
        if self._failures >= _MOST_FAILURES:
            raise EngineBroken from error
        for request_id in failed:
            try:
                self._engine.abort_request(request_id)
            except Exception as second:
                raise EngineBroken from second

    def _finish(self, events: Sequence[Event]) -> int:
        """Emit what belongs to requests in flight; give the prompt tokens that were processed."""
        known, tokens = [], 0
        for event in events:
            done = self._in_flight.get(event.request_id)
            if done is None:
                continue  # the late end of a request that has failed
            if isinstance(event, PromptProgress):
                tokens += max(0, event.done - done)
                self._in_flight[event.request_id] = max(done, event.done)
            elif isinstance(event, Done | Failed):
                del self._in_flight[event.request_id]
                self._streams.discard(event.request_id)
            known.append(event)
        self._send(known)
        return tokens

    def _send(self, events: Sequence[Event]) -> None:
        """Emit these, unless they are more text of streams whose last text went out a moment ago."""
        self._held += events
        if not any(isinstance(event, TextDelta) for event in self._held):
            ready, self._held = self._held, []
            if ready:
                self._emit(ready)
        elif not all(event.request_id in self._begun and isinstance(event, TextDelta) for event in self._held) or (
            self._clock() >= self._sent + _PACE_S
        ):
            self._send_held()

    def _send_held(self) -> None:
        """Emit the text that waits for more."""
        if self._held:
            ready, self._held, self._sent = joined(self._held), [], self._clock()
            self._begun = self._streams & (self._begun | {event.request_id for event in ready})
            self._emit(ready)


def joined(events: Sequence[Event]) -> list[Event]:
    """The same events, with the text of a request in one piece as far as nothing else of it comes between."""
    ready: list[Event] = []
    text: dict[str, int] = {}  # where the request's text stands that may go on
    for event in events:
        at = text.get(event.request_id)
        if not isinstance(event, TextDelta):
            text.pop(event.request_id, None)
        elif at is None:
            text[event.request_id] = len(ready)
        else:
            ready[at] = TextDelta(event.request_id, cast("TextDelta", ready[at]).text + event.text)
            continue
        ready.append(event)
    return ready


def failure(request_id: str, error: Exception) -> Failed:
    """The event for an exception that a backend let out; its message may quote the user's text, its type does not."""
    return Failed(request_id, ErrorInfo(GenerationFailed.code, f"the engine failed ({type(error).__name__})"))
