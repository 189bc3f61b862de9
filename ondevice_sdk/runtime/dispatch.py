"""The app's side of every executor: which requests are in flight, and whether what comes back can be true."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ondevice_sdk.backends.api import (
    Done,
    Embed,
    Embedded,
    Event,
    Failed,
    Generate,
    Generated,
    PromptProgress,
    Request,
    Result,
    Score,
    Scored,
    TextDelta,
    Tokenize,
    Tokenized,
    Usage,
)
from ondevice_sdk.errors import Cancelled, OnDeviceError
from ondevice_sdk.runtime.protocol import REQUEST_ERRORS, describe, restore
from ondevice_sdk.runtime.ticket import RequestTicket
from ondevice_sdk.runtime.wire import ProtocolError

# The longest tokens of known vocabularies stand for some 130 bytes; a constraint may close a value beyond the budget.
BYTES_PER_TOKEN: Final = 256
SPARE_BYTES: Final = 4_096
# A request may have one progress event per step of at least 16 prompt tokens: this is a prompt of a million tokens.
EVENTS_BEYOND_TOKENS: Final = 65_536
_LARGEST_COUNT: Final = 2**40
_LARGEST_VECTOR: Final = 65_536
_LOGPROB_ROUNDING: Final = 0.01  # per token: how far above 0 arithmetic may carry a log-probability


@dataclass(slots=True)
class _Flight:
    request: Request
    ticket: RequestTicket
    cancelled: bool = False
    text_bytes: int = 0
    events: int = 0


class Dispatcher:
    """Issues request ids and hands events to their tickets, after checking them against the request.

    Whoever produces the events is treated as hostile: `handle` raises at the first thing that no honest engine does.
    """

    def __init__(self, send_cancel: Callable[[str], None]) -> None:
        self._send_cancel = send_cancel
        self._lock = threading.RLock()  # the garbage collector may cancel a forgotten call anywhere, also in here
        self._numbers = itertools.count(1)
        self._flights: dict[str, _Flight] = {}
        self._refusal: Callable[[], OnDeviceError] | None = None

    @property
    def open(self) -> bool:
        """Whether requests are taken."""
        return self._refusal is None

    def issue(self, request: Request) -> RequestTicket:
        """Make the ticket of a new request.

        Raises:
            OnDeviceError: `stop` was called; the error it was given.
        """
        with self._lock:
            if self._refusal is not None:
                raise self._refusal()
            ticket = RequestTicket(f"r{next(self._numbers)}", self._cancel)
            self._flights[ticket.request_id] = _Flight(request, ticket)
        return ticket

    def forget(self, request_id: str) -> None:
        """Take back a ticket that was never sent."""
        with self._lock:
            self._flights.pop(request_id, None)

    def _cancel(self, request_id: str) -> None:
        with self._lock:
            flight = self._flights.get(request_id)
            if flight is None or flight.cancelled:
                return
            flight.cancelled = True
        self._send_cancel(request_id)

    def handle(self, events: Sequence[Event]) -> None:
        """Check events and hand them on; those before a bad one are handed on.

        Raises:
            ProtocolError: no honest engine gives this.
        """
        if not events:
            raise ProtocolError("an empty batch of events")
        for event in events:
            with self._lock:
                if self._refusal is not None:
                    return  # stopped meanwhile; everybody was told
                flight = self._flights.get(event.request_id)
                if flight is None:
                    raise ProtocolError("an event of a request that is not in flight")
                _check_event(flight, event)
                if isinstance(event, Done | Failed):
                    del self._flights[event.request_id]
            flight.ticket.put(event)

    def stop(self, in_flight: OnDeviceError, afterwards: Callable[[], OnDeviceError]) -> None:
        """End all requests in flight with an error, and refuse new ones. May be called again, also concurrently."""
        with self._lock:
            self._refusal = afterwards
            flights, self._flights = self._flights, {}
        for request_id, flight in flights.items():
            flight.ticket.put(Failed(request_id, describe(in_flight)))

    def orphan(self, in_flight: OnDeviceError, afterwards: Callable[[], OnDeviceError]) -> None:
        """`stop` for a forked child, where locks may be held by threads that do not exist there."""
        self._lock = threading.RLock()
        self._refusal = afterwards
        for request_id, flight in self._flights.items():
            flight.ticket.orphan(Failed(request_id, describe(in_flight)))
        self._flights = {}


def _check_event(flight: _Flight, event: Event) -> None:
    request = flight.request
    tokens = request.max_tokens if isinstance(request, Generate) else 0
    flight.events += 1
    if flight.events > EVENTS_BEYOND_TOKENS + 4 * tokens:
        raise ProtocolError("more events than the request can have")
    match event:
        case PromptProgress(done=done, total=total):
            if not 0 <= done <= total <= _LARGEST_COUNT:
                raise ProtocolError("impossible progress")
        case TextDelta(text=text):
            flight.text_bytes += len(text.encode("utf-8", "surrogatepass"))
            if not (isinstance(request, Generate) and request.stream):
                raise ProtocolError("text that was not asked for")
            _check_text(flight.text_bytes, tokens)
        case Failed(error=info):
            error = restore(info, REQUEST_ERRORS)
            if isinstance(error, Cancelled) and not flight.cancelled:
                raise ProtocolError("cancelled by nobody")
        case Done(result=result):
            _check_result(request, result, cancelled=flight.cancelled)


def _check_text(size: int, tokens: int) -> None:
    if size > tokens * BYTES_PER_TOKEN + SPARE_BYTES:
        raise ProtocolError("more text than the request allows")


def _check_result(request: Request, result: Result, *, cancelled: bool) -> None:
    match request, result:
        case Generate(max_tokens=tokens), Generated(text=text, finish_reason=reason, usage=usage):
            _check_text(len(text.encode("utf-8", "surrogatepass")), tokens)
            if reason == "cancelled" and not cancelled:
                raise ProtocolError("cancelled by nobody")
            _check_usage(usage)
        case Score(continuations=asked), Scored(logprobs=logprobs, token_counts=counts, usage=usage):
            if not len(asked) == len(logprobs) == len(counts):
                raise ProtocolError("not one score for each continuation")
            for logprob, count in zip(logprobs, counts, strict=True):
                if not (_is_count(count) and math.isfinite(logprob) and logprob <= _LOGPROB_ROUNDING * max(1, count)):
                    raise ProtocolError("an impossible score")
            _check_usage(usage)
        case Embed(texts=texts), Embedded(vectors=vectors, usage=usage):
            widths = {len(vector) for vector in vectors}
            if len(vectors) != len(texts) or len(widths) > 1 or not all(0 < w <= _LARGEST_VECTOR for w in widths):
                raise ProtocolError("not one vector for each text")
            if not all(math.isfinite(value) for vector in vectors for value in vector):
                raise ProtocolError("an impossible vector")
            _check_usage(usage)
        case Tokenize(texts=texts, prompts=prompts), Tokenized(counts=counts):
            if len(counts) != len(texts) + len(prompts) or not all(map(_is_count, counts)):
                raise ProtocolError("not one count for each text")
        case _:
            raise ProtocolError("a result of another kind of request")


def _is_count(value: int) -> bool:
    return 0 <= value <= _LARGEST_COUNT


def _check_usage(usage: Usage) -> None:
    counts = (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)
    seconds = (usage.prefill_s, usage.decode_s)
    if not all(map(_is_count, counts)) or not all(math.isfinite(s) and s >= 0 for s in seconds):
        raise ProtocolError("impossible usage")
