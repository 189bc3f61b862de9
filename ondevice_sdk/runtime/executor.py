"""What the pipeline knows of the place where engines run: a worker process, a thread, later a server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ondevice_sdk.backends.api import Event, Request
from ondevice_sdk.types import PrivacyReport


@dataclass(frozen=True, slots=True)
class StartTimes:
    """Seconds that the parts of a start took, one after the other. A thread has nothing to spawn or seal.

    `spawn_s` lasts until Python runs in the worker, `seal_s` until its seal was verified, `import_s` until the runtime
    library is imported, `load_s` until the model can be used.
    """

    spawn_s: float
    seal_s: float
    import_s: float
    load_s: float

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.spawn_s + self.seal_s + self.import_s + self.load_s


@dataclass(frozen=True, slots=True)
class Loaded:
    """What an executor says of the model that it has loaded."""

    context_tokens: int
    max_sequences: int
    capabilities: frozenset[str]
    start: StartTimes
    template: str | None = None  # SHA-256 of its chat template


class Ticket(Protocol):
    """One submitted request, seen from the app's side. All methods may be called from any thread."""

    request_id: str

    def take(self) -> list[Event]:
        """The events that have arrived since the last call, without waiting. The last one is `Done` or `Failed`."""

    def set_wakeup(self, wakeup: Callable[[], None]) -> None:
        """Call `wakeup` (from any thread; it must be quick and not raise) whenever events arrive.

        Called at once if some are waiting.
        """

    def cancel(self) -> None:
        """Ask for an early end; the terminal event still comes. Idempotent."""


class Executor(ABC):
    """Runs requests on one loaded model. Thread-safe."""

    loaded: Loaded

    @property
    @abstractmethod
    def alive(self) -> bool:
        """False once the worker died or the executor was closed: `submit` then fails."""

    @abstractmethod
    def submit(self, request: Request) -> Ticket:
        """Start a request.

        Raises:
            WorkerCrashed: the worker is dead. ClientClosed: `close` was called.
        """

    @abstractmethod
    def report(self) -> PrivacyReport:
        """What protects this executor's worker."""

    @abstractmethod
    def forget(self) -> None:
        """Drop what is kept of requests that are over; when this returns it is gone. Nothing to do where it is dead."""

    @abstractmethod
    def close(self) -> None:
        """Stop; requests in flight fail with `Cancelled`. Idempotent."""
