from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ondevice_sdk.backends.api import (
    Done,
    Event,
    Failed,
    Generate,
    Generated,
    LoadOptions,
    LocalModel,
    Raw,
    Request,
    Segment,
)
from ondevice_sdk.runtime import Executor, Ticket, open_executor
from ondevice_sdk.types import Isolation, PrivacyLevel

MODULES = Path(__file__).with_name("modules")
FAKE = "ondevice_fake:FakeBackend"
PATIENCE = 60.0  # only ever waited out by a test that fails

Opener = Callable[..., Executor]


def ask(text: str, *, max_tokens: int = 100, stream: bool = False) -> Generate:
    return Generate(Raw((Segment(text),)), max_tokens, stream=stream)


def local_model(name: str = "fake") -> LocalModel:
    return LocalModel(name, "int4", "fake", "/nowhere", "0" * 64)


def drain(ticket: Ticket) -> list[Event]:
    """Take all events of a request."""
    arrived = threading.Event()
    ticket.set_wakeup(arrived.set)
    events: list[Event] = []
    while not (events and isinstance(events[-1], Done | Failed)):
        assert arrived.wait(PATIENCE), "no event arrived"
        arrived.clear()
        events += ticket.take()
    return events


def finish(executor: Executor, request: Request) -> Done | Failed:
    last = drain(executor.submit(request))[-1]
    assert isinstance(last, Done | Failed)
    return last


def answer(executor: Executor, text: str, *, max_tokens: int = 100) -> str:
    last = finish(executor, ask(text, max_tokens=max_tokens))
    assert isinstance(last, Done), last
    assert isinstance(last.result, Generated)
    return last.result.text


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(MODULES)])


@pytest.fixture
def opener(modules: None) -> Iterator[Opener]:
    """Opens executors and closes them after the test."""
    opened: list[Executor] = []

    def make(
        name: str = "fake",
        *,
        isolation: Isolation = "process",
        privacy: PrivacyLevel = "strict",
        backend: str = FAKE,
        worker_command: list[str] | None = None,
    ) -> Executor:
        executor = open_executor(
            backend,
            local_model(name),
            LoadOptions(),
            isolation=isolation,
            privacy=privacy,
            worker_command=worker_command,
        )
        opened.append(executor)
        return executor

    yield make
    for executor in opened:
        executor.close()
