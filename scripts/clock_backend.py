"""An engine that writes, as its tokens, the time at which it made them: to measure the way to the app."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ondevice_sdk.backends.api import (
    Backend,
    Capability,
    DeviceProfile,
    Done,
    Engine,
    Event,
    Footprint,
    Generate,
    Generated,
    LoadOptions,
    LocalModel,
    ModelShape,
    Probe,
    Request,
    TextDelta,
    Usage,
)

STEP_S = 0.004  # a model of 250 tokens/s


class ClockEngine(Engine):
    """Gives a token every few milliseconds."""

    capabilities = frozenset({Capability.GENERATE})
    context_tokens = 4096

    def __init__(self) -> None:
        self._left: dict[str, int] = {}

    def add_request(self, request_id: str, request: Request) -> None:
        """Count its tokens down."""
        assert isinstance(request, Generate)
        self._left[request_id] = request.max_tokens

    def abort_request(self, request_id: str) -> None:
        """End it at the next step."""
        if request_id in self._left:
            self._left[request_id] = 0

    def step(self, token_budget: int) -> Sequence[Event]:  # noqa: ARG002 - there is no prompt to process
        """Wait, then tell the time."""
        time.sleep(STEP_S)
        events: list[Event] = []
        for request_id in list(self._left):
            if self._left[request_id] == 0:
                del self._left[request_id]
                events.append(Done(request_id, Generated("", "length", Usage())))
            else:
                self._left[request_id] -= 1
                events.append(TextDelta(request_id, f"{time.monotonic_ns()} "))
        return events

    @property
    def busy(self) -> bool:
        """Whether somebody waits."""
        return bool(self._left)

    def close(self) -> None:
        """Nothing is held."""


class ClockBackend(Backend):
    """Has one model."""

    name = "clock"
    formats = frozenset({"clock"})

    def probe(self, device: DeviceProfile) -> Probe:  # noqa: ARG002 - it works everywhere
        """Usable."""
        return Probe(True)

    def estimate(self, shape: ModelShape, weights_bytes: int, options: LoadOptions) -> Footprint:  # noqa: ARG002
        """Nothing."""
        return Footprint(0, 0, 0)

    def load(self, model: LocalModel, options: LoadOptions) -> Engine:  # noqa: ARG002
        """Make it."""
        return ClockEngine()
