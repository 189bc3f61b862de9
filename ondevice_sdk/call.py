"""Drive task flows: a `Call` feeds one flow with results, a `Window` keeps several calls going in order.

Both are `Work`, which is free of waiting, so that one piece of code serves sync and async callers.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, Generic, Literal, TypeVar

from ondevice_sdk import errors
from ondevice_sdk.backends import requests
from ondevice_sdk.runtime.executor import Ticket
from ondevice_sdk.tasks.flow import Flow, Step
from ondevice_sdk.types import Progress, PromptProgress, TextDelta

T = TypeVar("T")
OnError = Literal["raise", "return"]
ProgressCallback = Callable[[Progress], None]

_LONGEST_SLEEP_S: Final = 3600.0  # a timeout may be longer than the system can wait at once


class Work(ABC):
    """Work that one thread at a time advances, and that any thread may abandon meanwhile.

    `set_wakeup` names a function that is called (from any thread) when there is something to do, `advance` does it,
    `abandon` ends what still runs. Work that is forgotten is abandoned.
    """

    def __init__(self) -> None:
        self._wakeup: Callable[[], None] = _ignore
        self._abandoned = False
        self._busy = threading.Lock()

    @property
    @abstractmethod
    def remaining(self) -> float | None:
        """Seconds until a deadline passes, None without one."""

    @abstractmethod
    def set_wakeup(self, wakeup: Callable[[], None]) -> None:
        """Call `wakeup` from any thread when `advance` has something to do."""

    def advance(self) -> bool:
        """Do what can be done now; True when it is over, or there is a result to take."""
        try:
            with self._busy:
                return self._advance()
        finally:
            if self._abandoned:  # by another thread, which could not end it meanwhile
                self.abandon()

    def abandon(self) -> None:
        """Stop whatever still runs and forget it. Idempotent."""
        self._abandoned = True
        if self._busy.acquire(blocking=False):
            try:
                self._drop()
            finally:
                self._busy.release()
            self._wakeup()

    @abstractmethod
    def _advance(self) -> bool: ...

    @abstractmethod
    def _drop(self) -> None: ...


class Call(Work, Generic[T]):
    """One flow under way.

    Args:
        submit: starts a request.
        flow: the task; its first step is submitted at once.
        on_progress: told of the prompt tokens that a step has read, and of its finished requests.
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
        super().__init__()
        self._submit = submit
        self._flow = flow
        self._on_progress = on_progress
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._on_end = on_end
        self._tickets: list[Ticket] = []
        self._results: list[requests.Result | None] = []
        self._prompts: dict[int, requests.PromptProgress] = {}  # how far each request's prompt is
        self._step: Step = Step(())
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

    def _advance(self) -> bool:
        try:
            self._go_on()
        except errors.OnDeviceError as error:
            self._fail(error)
        except BaseException as error:  # of the app's callback, or Ctrl-C: nothing goes on behind it
            self._fail(error)
            raise
        return self._outcome is not None

    def _go_on(self) -> None:
        """Take in what has arrived and let the flow go on."""
        while self._outcome is None and not self._abandoned:
            error = self._collect()
            if isinstance(error, errors.Cancelled) and not self._cancelled:
                self._fail(error)  # the client was closed: no flow goes on
            elif error is not None:
                self._cancel_tickets()
                self._resume(None, error)
            elif all(result is not None for result in self._results):
                self._resume([result for result in self._results if result is not None], None)
            elif (remaining := self.remaining) is not None and remaining <= 0:
                self._fail(errors.DeadlineExceeded())
            else:
                return

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

    def _drop(self) -> None:
        self._fail(errors.Cancelled())

    def __del__(self) -> None:
        self.abandon()

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
                    self._prompts[index] = event
                    self._report_prompts()
        return None

    def _report_prompts(self) -> None:
        """Tell the prompt tokens of all requests of this step; how many there will be once all have begun.

        Of a step that counts in a unit of its own nothing else is told.
        """
        if self._on_progress and self._step.unit == "requests":
            begun = all(index in self._prompts or result is not None for index, result in enumerate(self._results))
            done = sum(prompt.done for prompt in self._prompts.values())
            total = sum(prompt.total for prompt in self._prompts.values()) if begun else None
            self._on_progress(Progress("prompt", done, total, "tokens"))

    def _report(self) -> None:
        if self._on_progress:
            step, done, asked = self._step, sum(result is not None for result in self._results), len(self._results)
            if step.unit == "requests":
                self._on_progress(Progress(step.stage, done, asked, step.unit))
            else:
                self._on_progress(Progress(step.stage, step.done + step.gain * done // asked, step.total, step.unit))

    def _resume(self, results: list[requests.Result] | None, error: BaseException | None) -> None:
        """Let the flow run to its next step, and submit that."""
        self._tickets, self._results, self._prompts = [], [], {}
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
        self._step = step
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

    def _fail(self, error: BaseException) -> None:
        if self._outcome is None:
            self._cancel_tickets()
            self._finish(None, error)

    def _finish(self, value: T | None, error: BaseException | None) -> None:
        self._flow.close()
        self._outcome = (value, error)
        if self._on_end:
            self._on_end()


class Window(Work, Generic[T]):
    """Calls over a sequence of items, at most `size` under way, results in the order of the items.

    An item is asked for when no result is waiting to be taken, so that a slow source never holds back what is done.

    Args:
        starts: one function per item that starts its call; taken lazily.
        size: most calls under way.
        on_error: "raise" ends the whole at the first error; "return" gives the error in the item's place.
    """

    def __init__(self, starts: Iterator[Callable[[], Call[T]]], size: int, on_error: OnError) -> None:
        super().__init__()
        self._starts = starts
        self._size = size
        self._on_error = on_error
        self._calls: deque[Call[T] | errors.OnDeviceError] = deque()
        self._exhausted = False
        self._fault: Exception | None = None  # of the source of items, or nothing can be started any more
        self._ready: deque[T | errors.OnDeviceError] = deque()

    @property
    def remaining(self) -> float | None:
        """Seconds until the first deadline of a call passes."""
        times = [call.remaining for call in self._under_way()]
        return min((time for time in times if time is not None), default=None)

    def set_wakeup(self, wakeup: Callable[[], None]) -> None:
        """Call `wakeup` from any thread when `advance` has something to do."""
        self._wakeup = wakeup
        for call in self._under_way():
            call.set_wakeup(wakeup)

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

    def _advance(self) -> bool:
        for call in self._under_way():
            call.advance()
        self._settle()
        while not self._abandoned and self._take_item():
            self._settle()
            if self._ready:
                break
        if self.finished and self._fault is not None:
            raise self._fault
        return bool(self._ready) or self.finished

    def _drop(self) -> None:
        for call in self._under_way():
            call.abandon()
        self._calls.clear()
        self._exhausted, self._fault = True, None

    def _under_way(self) -> list[Call[T]]:
        return [call for call in self._calls if isinstance(call, Call)]

    def _take_item(self) -> bool:
        """Start the call of the next item; False if there is none, or no room."""
        if self._exhausted or len(self._calls) + len(self._ready) >= self._size:
            return False
        try:
            start = next(self._starts)
        except StopIteration:
            self._exhausted = True
            return False
        except Exception as fault:  # noqa: BLE001 - raised when the results of the items before it were given
            self._exhausted, self._fault = True, fault
            return False
        try:
            call = start()
            call.set_wakeup(self._wakeup)
            self._calls.append(call)
        except errors.ClientClosed as closed:
            self._exhausted, self._fault = True, closed
            return False
        except errors.OnDeviceError as error:
            self._calls.append(error)
        return True

    def _settle(self) -> None:
        """Move the results of the first calls, as far as they are over, to those that can be taken."""
        while self._calls:
            head = self._calls[0]
            if isinstance(head, Call) and not head.advance():
                return
            self._calls.popleft()
            if isinstance(head, errors.OnDeviceError):
                self._ready.append(head)
                continue
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
        self._event.wait(None if timeout is None else min(max(0.0, timeout), _LONGEST_SLEEP_S))
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
                waiter.wait(window.remaining)
            if window.finished:
                return
            yield window.take()
    finally:
        window.abandon()


def _ignore() -> None:
    pass
