"""Drive task flows: a `Call` feeds one flow with results, a `Window` keeps several calls going in order.

Both are free of waiting, so that one piece of code serves sync and async callers: `set_wakeup` names a function that is
called (from any thread) when there is something to do, `advance` does it, `abandon` ends what still runs.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Generic, Literal, Protocol, TypeVar

from ondevice_sdk import errors
from ondevice_sdk.backends import requests
from ondevice_sdk.runtime.executor import Ticket
from ondevice_sdk.tasks.flow import Flow
from ondevice_sdk.types import Progress, PromptProgress, TextDelta

T = TypeVar("T")
OnError = Literal["raise", "return"]
ProgressCallback = Callable[[Progress], None]


class Work(Protocol):
    """What a waiter needs of a `Call` or a `Window`."""

    def set_wakeup(self, wakeup: Callable[[], None]) -> None:
        """Name the function to call when there is something to do."""

    def advance(self) -> bool:
        """Do what can be done now; True when there is a result to take."""

    def abandon(self) -> None:
        """Stop and forget. Idempotent."""


class Call(Generic[T]):
    """One flow under way.

    Args:
        submit: starts a request.
        flow: the task; its first step is submitted at once.
        on_progress: told of finished requests, and of prompt tokens where a step has a single request.
        timeout: seconds until `DeadlineExceeded`.
        on_end: called once when the call is over, whatever way.
    """

    def __init__(
        self,
        submit: Callable[[requests.Request], Ticket],
        flow: Flow[T],
        *,
        on_progress: ProgressCallback | None = None,
        timeout: float | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self._submit = submit
        self._flow = flow
        self._on_progress = on_progress
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._on_end = on_end
        self._wakeup: Callable[[], None] = _ignore
        self._tickets: list[Ticket] = []
        self._results: list[requests.Result | None] = []
        self._stage = ""
        self._deltas: list[PromptProgress | TextDelta] = []
        self._outcome: tuple[T | None, BaseException | None] | None = None
        self._cancelled = False
        try:
            self._resume(None, None)
        except BaseException:
            self.abandon()
            raise

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline, None without one."""
        return None if self._deadline is None else self._deadline - time.monotonic()

    def set_wakeup(self, wakeup: Callable[[], None]) -> None:
        """Call `wakeup` from any thread when `advance` has something to do."""
        self._wakeup = wakeup
        for ticket in self._tickets:
            ticket.set_wakeup(wakeup)

    def advance(self) -> bool:
        """Take in what has arrived and let the flow go on; True when the call is over."""
        while self._outcome is None:
            error = self._collect()
            if error is not None:
                self._cancel_tickets()
                self._resume(None, error)
            elif all(result is not None for result in self._results):
                self._resume([result for result in self._results if result is not None], None)
            elif (remaining := self.remaining) is not None and remaining <= 0:
                self._cancel_tickets()
                self._finish(None, errors.DeadlineExceeded())
            else:
                return False
        return True

    def take_deltas(self) -> list[PromptProgress | TextDelta]:
        """Stream events that arrived since the last call."""
        deltas, self._deltas = self._deltas, []
        return deltas

    def result(self) -> T:
        """The flow's value, or its error raised; only once `advance` gave True."""
        assert self._outcome is not None
        value, error = self._outcome
        if error is not None:
            raise error
        return value  # type: ignore[return-value]  # there is a value where there is no error

    def cancel(self) -> None:
        """End the requests in flight early; a generation then ends with its partial text. Idempotent."""
        self._cancelled = True
        self._cancel_tickets()

    def abandon(self) -> None:
        """Stop whatever still runs and forget it."""
        if self._outcome is None:
            self._cancel_tickets()
            self._finish(None, errors.Cancelled())

    # --- inner steps --------------------------------------------------------------------------------------------------

    def _collect(self) -> BaseException | None:
        for index, ticket in enumerate(self._tickets):
            if self._results[index] is not None:
                continue
            for event in ticket.take():
                if isinstance(event, requests.Done):
                    self._results[index] = event.result
                    self._report()
                elif isinstance(event, requests.Failed):
                    info = event.error
                    return errors.rebuild(info.code, info.message, info.hint, info.data)
                elif isinstance(event, requests.TextDelta):
                    self._deltas.append(TextDelta(event.text))
                else:
                    self._deltas.append(PromptProgress(event.done, event.total))
                    if self._on_progress and len(self._tickets) == 1:
                        self._on_progress(Progress("prompt", event.done, event.total, "tokens"))
        return None

    def _report(self) -> None:
        if self._on_progress:
            done = sum(result is not None for result in self._results)
            self._on_progress(Progress(self._stage, done, len(self._results), "requests"))

    def _resume(self, results: list[requests.Result] | None, error: BaseException | None) -> None:
        """Let the flow run to its next step, and submit that."""
        self._tickets, self._results = [], []
        try:
            if error is not None:
                step = self._flow.throw(error)
            elif results is None:
                step = next(self._flow)
            else:
                step = self._flow.send(results)
        except StopIteration as stop:
            self._finish(stop.value, None)
            return
        except errors.OnDeviceError as failure:
            self._finish(None, failure)
            return
        self._stage = step.stage
        self._results = [None] * len(step.requests)
        for request in step.requests:
            ticket = self._submit(request)
            self._tickets.append(ticket)
            ticket.set_wakeup(self._wakeup)
        if self._cancelled:
            self._cancel_tickets()

    def _cancel_tickets(self) -> None:
        for ticket in self._tickets:
            ticket.cancel()

    def _finish(self, value: T | None, error: BaseException | None) -> None:
        self._flow.close()
        self._outcome = (value, error)
        if self._on_end:
            self._on_end()


class Window(Generic[T]):
    """Calls over a sequence of items, at most `size` under way, results in the order of the items.

    Args:
        starts: one function per item that starts its call; taken lazily.
        size: most calls under way.
        on_error: "raise" ends the whole at the first error; "return" gives the error in the item's place.
    """

    def __init__(self, starts: Iterator[Callable[[], Call[T]]], size: int, on_error: OnError) -> None:
        self._starts = starts
        self._size = size
        self._on_error = on_error
        self._wakeup: Callable[[], None] = _ignore
        self._calls: deque[Call[T] | errors.OnDeviceError] = deque()
        self._exhausted = False
        self._ready: deque[T | errors.OnDeviceError] = deque()

    def set_wakeup(self, wakeup: Callable[[], None]) -> None:
        """Call `wakeup` from any thread when `advance` has something to do."""
        self._wakeup = wakeup
        for call in self._calls:
            if isinstance(call, Call):
                call.set_wakeup(wakeup)

    def advance(self) -> bool:
        """Advance all calls; True when a result can be taken or all are taken."""
        self._fill()
        for call in self._calls:
            if isinstance(call, Call):
                call.advance()
        while self._calls:
            head = self._calls[0]
            if isinstance(head, Call) and not head.advance():
                break
            self._calls.popleft()
            self._settle(head)
            self._fill()
        return bool(self._ready) or self.finished

    @property
    def finished(self) -> bool:
        """All items are done and their results taken."""
        return self._exhausted and not self._calls and not self._ready

    def take(self) -> T | errors.OnDeviceError:
        """The next result; raises its error with `on_error="raise"`."""
        item = self._ready.popleft()
        if isinstance(item, errors.OnDeviceError) and self._on_error == "raise":
            raise item
        return item

    def abandon(self) -> None:
        """Stop all calls under way."""
        for call in self._calls:
            if isinstance(call, Call):
                call.abandon()
        self._calls.clear()
        self._exhausted = True

    def _fill(self) -> None:
        while not self._exhausted and len(self._calls) + len(self._ready) < self._size:
            try:
                start = next(self._starts)
            except StopIteration:
                self._exhausted = True
                return
            try:
                call = start()
                call.set_wakeup(self._wakeup)
                self._calls.append(call)
            except errors.OnDeviceError as error:
                self._calls.append(error)

    def _settle(self, head: Call[T] | errors.OnDeviceError) -> None:
        if isinstance(head, errors.OnDeviceError):
            self._ready.append(head)
            return
        try:
            self._ready.append(head.result())
        except errors.OnDeviceError as error:
            self._ready.append(error)


class Waiter:
    """Lets a thread sleep until work can go on."""

    def __init__(self, work: Work) -> None:
        self._event = threading.Event()
        work.set_wakeup(self._event.set)

    def wait(self, timeout: float | None = None) -> None:
        """Sleep until woken or `timeout` seconds passed; Ctrl-C interrupts it."""
        self._event.wait(None if timeout is None else max(0.0, timeout))
        self._event.clear()


def run(call: Call[T]) -> T:
    """Wait for a call in this thread. Whatever ends the wait, nothing of the call goes on."""
    try:
        waiter = Waiter(call)
        while not call.advance():
            waiter.wait(call.remaining)
        return call.result()
    finally:
        call.abandon()


def run_window(window: Window[T]) -> Iterator[Any]:
    """The results of a window, in order; closing the iterator ends the rest."""
    try:
        waiter = Waiter(window)
        while True:
            while not window.advance():
                waiter.wait()
            if window.finished:
                return
            yield window.take()
    finally:
        window.abandon()


def _ignore() -> None:
    pass
