"""A generation that arrives piece by piece, in blocking code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

from ondevice_sdk import errors
from ondevice_sdk.call import Call, Waiter
from ondevice_sdk.types import Completed, Generation, StreamEvent, TextDelta

T = TypeVar("T")


class StreamState(Generic[T]):
    """What sync and async streams share: the call, and the events that can be given now."""

    def __init__(self, call: Call[Generation[T]], finish: Callable[[Generation[T]], Generation[T]]) -> None:
        self._call = call
        self._finish = finish
        self._completed = False
        self._consumed = False

    def cancel(self) -> None:
        """End the generation within one step; `result()` then has the partial text. Idempotent."""
        self._call.cancel()

    def _claim(self) -> None:
        if self._consumed:
            raise errors.ConfigurationError("a stream has one consumer and can be read once")
        self._consumed = True

    def _ready(self) -> tuple[list[StreamEvent], bool]:
        """Events that have arrived, and whether the stream is over."""
        over = self._call.advance()
        events: list[StreamEvent] = list(self._call.take_deltas())
        if over and not self._completed:
            generation = self._call.result()  # raises what ended the call
            self._completed = True
            events.append(Completed(generation.usage, generation.finish_reason))
        return events, over

    def _value(self) -> Generation[T]:
        return self._finish(self._call.result())


class Stream(StreamState[T]):
    """Iterate for text deltas, or over `events()`; leave the `with` block to cancel what is not wanted any more."""

    def __iter__(self) -> Iterator[str]:
        return (event.text for event in self.events() if isinstance(event, TextDelta))

    def events(self) -> Iterator[StreamEvent]:
        """Typed events: prompt progress, text deltas, and `Completed` at the end."""
        self._claim()
        return self._events()

    def _events(self) -> Iterator[StreamEvent]:
        waiter = Waiter(self._call)
        over = False
        while not over:
            events, over = self._ready()
            yield from events
            if not over:
                waiter.wait(self._call.remaining)

    def result(self) -> Generation[T]:
        """Wait for the end, dropping deltas that nobody has read, and give the whole."""
        self._consumed = True
        waiter = Waiter(self._call)
        while not self._ready()[1]:
            waiter.wait(self._call.remaining)
        return self._value()

    def close(self) -> None:
        """Cancel and forget the rest. Idempotent."""
        self._call.abandon()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
