"""One request in flight, seen from the app's side: a queue that stays small however slowly it is emptied."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from ondevice_sdk.backends.api import Done, Event, Failed, PromptProgress, TextDelta


class RequestTicket:
    """The `Ticket` of every executor.

    What was not taken is merged: pieces of text are joined, and only the newest progress is kept. So it never holds
    more than three events, and its text is bounded by what the request may produce.
    """

    def __init__(self, request_id: str, cancel: Callable[[str], None]) -> None:
        self.request_id = request_id
        self._cancel = cancel
        self._lock = threading.Lock()
        self._progress: PromptProgress | None = None
        self._text: list[str] = []
        self._end: Done | Failed | None = None
        self._ended = False
        self._wakeup: Callable[[], None] | None = None

    def take(self) -> list[Event]:
        """The events that have arrived since the last call, merged, without waiting."""
        with self._lock:
            progress, text, end = self._progress, self._text, self._end
            self._progress, self._text, self._end = None, [], None
        events: list[Event] = [progress] if progress else []
        if text:
            events.append(TextDelta(self.request_id, "".join(text)))
        if end:
            events.append(end)
        return events

    def set_wakeup(self, wakeup: Callable[[], None]) -> None:
        """Call `wakeup` whenever events arrive, and at once if some are waiting."""
        with self._lock:
            self._wakeup = wakeup
            waiting = bool(self._progress or self._text or self._end)
        if waiting:
            self._wake(wakeup)

    def cancel(self) -> None:
        """Ask for an early end; the terminal event still comes."""
        self._cancel(self.request_id)

    def put(self, event: Event) -> None:
        """Add an event; called by the executor only. What comes after the terminal event is dropped."""
        with self._lock:
            if self._ended:
                return
            if isinstance(event, PromptProgress):
                self._progress = event
            elif isinstance(event, TextDelta):
                self._text.append(event.text)
            else:
                self._end, self._ended = event, True
            wakeup = self._wakeup
        if wakeup:
            self._wake(wakeup)

    def orphan(self, end: Failed) -> None:
        """End the ticket in a forked child: other threads' locks may be held for ever there, so nobody is woken."""
        self._lock = threading.Lock()
        self._wakeup = None
        if not self._ended:
            self._end, self._ended = end, True

    @staticmethod
    def _wake(wakeup: Callable[[], None]) -> None:
        # A consumer's fault (its event loop was closed, say) must not end the thread that serves all the others.
        with contextlib.suppress(Exception):
            wakeup()
