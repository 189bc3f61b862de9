"""Tasks as pure generators: a flow yields batches of requests, receives their results, and returns a value.

A flow knows no client, thread or event loop; whoever drives it decides how requests run. The same flow serves sync,
async, batched and streamed calls, and a test drives it with plain values and no model (`run_with`).
If a request fails, its error is thrown into the flow at the `yield`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from ondevice_sdk.backends.api import Request, Result

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """Requests that may run side by side. `stage` names them for progress, e.g. "reading".

    Where a stage has many steps, `done` of `total` are done before this one (None: nobody knows how many there are),
    and it brings `gain` more; they count in `unit`. Without one the requests of the step are counted.
    """

    requests: tuple[Request, ...]
    stage: str = ""
    done: int = 0
    gain: int = 0
    total: int | None = None
    unit: str = "requests"


Flow: TypeAlias = Generator[Step, Sequence[Result], T]


def run_with(flow: Flow[T], answer: Callable[[Request], Result]) -> T:
    """Drive a flow with a function that answers each request: for tests and experiments."""
    try:
        step = next(flow)
        while True:
            step = flow.send([answer(request) for request in step.requests])
    except StopIteration as stop:
        value: T = stop.value
        return value
