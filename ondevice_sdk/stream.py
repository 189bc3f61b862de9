"""A generation that arrives piece by piece, in blocking code."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Generic, NoReturn, Self, TypeVar

from ondevice_sdk import errors
from ondevice_sdk.call import Call, Waiter
from ondevice_sdk.types import Completed, Generation, PromptProgress, StreamEvent, TextDelta, ToolCall

T = TypeVar("T")

CANCEL_S: Final = 2.0  # to end the present step; whoever does not manage that is not waited for


class StreamState(Generic[T]):
    """What sync and async streams share: the call, and who reads it."""

    def __init__(self, call: Call[Generation[T]]) -> None:
        self._call = call
        self._consumed = False
        self._reading = threading.Lock()

    def cancel(self) -> None:
        """End the generation within one step; `result()` then has the partial text. Idempotent."""
        self._call.cancel()

    def _claim(self) -> None:
        if self._consumed:
            raise errors.ConfigurationError("a stream has one consumer and can be read once")
        self._consumed = True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Refuse a second reader while one waits: it would take the first one's wake-up."""
        if not self._reading.acquire(blocking=False):
            raise errors.ConfigurationError("a stream has one consumer: another thread or task is reading it")
        try:
            yield
        finally:
            self._reading.release()

    def _arrived(self) -> tuple[Sequence[PromptProgress | TextDelta], bool]:
        """Events that have arrived, and whether there is nothing to wait for."""
        over = self._call.advance()
        events = self._call.take_deltas()
        return events, over or bool(events)

    def _last(self) -> Sequence[ToolCall | Completed]:
        """The last events; raises what ended the call."""
        generation = self._call.result()
        return [*generation.tool_calls, Completed(generation.usage, generation.finish_reason)]

    def __reduce__(self) -> NoReturn:
        raise TypeError("a stream is a running generation and cannot be copied or pickled")


class Stream(StreamState[T]):
    """Iterate for text deltas, or over `events()`; leaving the `with` block cancels what was not read yet.

    Cancelled that way, `result()` still gives the partial text.
    """

    def __init__(self, call: Call[Generation[T]]) -> None:
        super().__init__(call)
        self._waiter = Waiter(call)

    def __iter__(self) -> Iterator[str]:
        return (event.text for event in self.events() if isinstance(event, TextDelta))

    def events(self) -> Iterator[StreamEvent]:
        """Typed events: prompt progress, text deltas or the call of a tool, and `Completed` at the end."""
        self._claim()
        return self._events()

    def _events(self) -> Iterator[StreamEvent]:
        while events := self._next():
            yield from events
        yield from self._last()

    def _next(self) -> Sequence[PromptProgress | TextDelta]:
        """Wait for the next events; none when the call is over."""
        with self._alone():
            events, ready = self._arrived()
            while not ready:
                self._waiter.wait(self._call.remaining)
                events, ready = self._arrived()
            return events

    def result(self) -> Generation[T]:
        """Wait for the end, dropping deltas that nobody has read, and give the whole."""
        self._consumed = True
        while self._next():
            pass
        return self._call.result()

    def close(self) -> None:
        """Cancel and forget the rest. Idempotent."""
        self._call.abandon()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._end()
        finally:
            self.close()

    def _end(self) -> None:
        """Cancel, and wait for the partial result, which comes within a step."""
        self.cancel()
        deadline = time.monotonic() + CANCEL_S
        while not self._call.advance() and (left := deadline - time.monotonic()) > 0:
            self._waiter.wait(left)
