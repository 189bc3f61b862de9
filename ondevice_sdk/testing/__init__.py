"""For authors of backends and for tests of apps: the contract that every backend keeps, and a driver for engines.

`ondevice_sdk.testing.contract` needs pytest; this module does not.
"""

from __future__ import annotations

from collections.abc import Mapping

from ondevice_sdk.backends.api import Done, Engine, ErrorInfo, Event, Failed, ModelRunner, Request, Result
from ondevice_sdk.errors import OnDeviceError, rebuild

__all__ = ["answer", "as_engine", "drain"]


def as_engine(loaded: Engine | ModelRunner) -> Engine:
    """What a backend loaded, as an engine."""
    if isinstance(loaded, Engine):
        return loaded
    from ondevice_sdk.engine import BatchedEngine

    return BatchedEngine(loaded)


def drain(
    engine: Engine, requests: Mapping[str, Request] | None = None, *, token_budget: int = 64, max_steps: int = 100_000
) -> dict[str, list[Event]]:
    """Add the requests, step until nothing is left to do, and give all events by request id.

    Raises:
        AssertionError: the engine does not come to an end, or a request has not exactly one terminal event, its last.
    """
    for request_id, request in (requests or {}).items():
        engine.add_request(request_id, request)
    events: dict[str, list[Event]] = {request_id: [] for request_id in requests or {}}
    for _ in range(max_steps):
        if not engine.busy:
            break
        for event in engine.step(token_budget):
            events.setdefault(event.request_id, []).append(event)
    else:
        raise AssertionError(f"the engine is still busy after {max_steps} steps")
    for request_id, seen in events.items():
        ends = [index for index, event in enumerate(seen) if isinstance(event, Done | Failed)]
        if ends != [len(seen) - 1]:
            raise AssertionError(f"request {request_id!r} has {len(ends)} terminal events, or events after it")
    return events


def answer(engine: Engine, request: Request) -> Result:
    """Run one request to its end.

    Raises:
        OnDeviceError: the error that the engine answered with.
    """
    last = drain(engine, {"request": request})["request"][-1]
    if isinstance(last, Done):
        return last.result
    assert isinstance(last, Failed)
    raise _error(last.error)


def _error(info: ErrorInfo) -> OnDeviceError:
    return rebuild(info.code, info.message, info.hint, info.data)
