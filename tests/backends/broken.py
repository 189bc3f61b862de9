"""Backends and engines with one thing wrong, to try the contract on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ondevice_sdk.backends.api import (
    DeviceProfile,
    Done,
    Embed,
    Embedded,
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
    Score,
    Scored,
    TextDelta,
    Usage,
)
from ondevice_sdk.backends.echo import EchoBackend
from ondevice_sdk.testing import as_engine
from ondevice_sdk.testing.contract import BackendContract

Change = Callable[[Request], Request]


class Broken(Engine):
    """The echo's engine with one thing wrong; without a change it is right."""

    def __init__(self, **wrong: Any) -> None:
        self.wrong = wrong
        self.inner: Engine = as_engine(EchoBackend().load(MODEL[0], BackendContract.options))
        self.capabilities = frozenset(
            (self.inner.capabilities | wrong.get("claims", set())) - wrong.get("hides", set())
        )
        self.context_tokens = self.inner.context_tokens
        self.max_sequences = self.inner.max_sequences
        self.spoilt = False
        self.kept: list[Event] = []
        self.ready: list[Event] = []

    def add_request(self, request_id: str, request: Request) -> None:
        if isinstance(request, Embed) and "vectors" in self.wrong:
            self.ready.append(Done(request_id, Embedded(self.wrong["vectors"](len(request.texts)), Usage(1))))
            return
        self.inner.add_request(request_id, self.wrong.get("request", lambda each: each)(request))

    def abort_request(self, request_id: str) -> None:
        self.spoilt = "spoilt" in self.wrong
        if "deaf" not in self.wrong:
            self.inner.abort_request(request_id)

    def step(self, token_budget: int) -> Sequence[Event]:
        ready, self.ready = self.ready, []
        events = [*ready, *map(self.wrong.get("event", lambda each: each), self.inner.step(token_budget))]
        if self.spoilt:
            events = list(map(result(lambda made: replace(made, text=made.text[1:])), events))
        if "late" not in self.wrong:
            return events
        self.kept += events
        if self.inner.busy:
            return []
        kept, self.kept = self.kept, []
        return kept

    @property
    def busy(self) -> bool:
        return self.inner.busy or bool(self.kept or self.ready)

    def forget(self) -> None:
        if "remembers" not in self.wrong:
            self.inner.forget()

    def close(self) -> None:
        if "closed" in self.wrong:
            raise RuntimeError("closed before")
        if "again" in self.wrong:
            self.wrong["closed"] = True
        if "immortal" not in self.wrong:
            self.inner.close()


MODEL: list[LocalModel] = []


def generate(**change: Any) -> Change:
    """Lose a part of every generation."""
    return lambda request: replace(request, **change) if isinstance(request, Generate) else request


def sampling(**change: Any) -> Change:
    def changed(request: Request) -> Request:
        if not isinstance(request, Generate) or request.sampling.temperature == 0:
            return request
        return replace(request, sampling=replace(request.sampling, **change))

    return changed


def result(change: Callable[[Generated], Generated]) -> Callable[[Event], Event]:
    def changed(event: Event) -> Event:
        match event:
            case Done(request_id, Generated() as made):
                return Done(request_id, change(made))
        return event

    return changed


def delta(change: Callable[[str], str]) -> Callable[[Event], Event]:
    return lambda event: replace(event, text=change(event.text)) if isinstance(event, TextDelta) else event


def mixed_up(event: Event) -> Event:
    match event:
        case Done("r3", Generated() as made):
            return Done("r3", replace(made, text="0 1 2 3 4 5 6"))
    return event


def rescored(change: Callable[[float], float]) -> Callable[[Event], Event]:
    def changed(event: Event) -> Event:
        match event:
            case Done(request_id, Scored() as made):
                return Done(request_id, replace(made, logprobs=tuple(map(change, made.logprobs))))
        return event

    return changed


def longer(request: Request) -> Request:
    return replace(request, max_tokens=request.max_tokens + 1) if isinstance(request, Generate) else request


def no_adapter(request: Request) -> Request:
    return replace(request, adapter=None) if isinstance(request, Generate | Score) else request


def not_cancelled(made: Generated) -> Generated:
    return replace(made, finish_reason="stop")


class Other(EchoBackend):
    """The echo backend with one thing wrong."""

    def __init__(self, **wrong: Any) -> None:
        self.wrong = wrong

    def probe(self, device: DeviceProfile) -> Probe:
        probe = super().probe(device)
        return replace(
            probe, capabilities=probe.capabilities | self.wrong.get("claims", set()), **self.wrong.get("probe", {})
        )

    def estimate(self, shape: ModelShape, weights_bytes: int, options: LoadOptions) -> Footprint:
        found = super().estimate(shape, weights_bytes, options)
        return replace(found, **self.wrong.get("estimate", {}))

    def load(self, model: LocalModel, options: LoadOptions) -> Any:
        if self.wrong.get("careless") and Path(model.path).exists():
            model = MODEL[0]
        if self.wrong.get("untyped") and not Path(model.path).exists():
            raise OSError("no such file")
        if self.wrong.get("missing is corrupt"):
            Path(model.path).read_bytes()
        if "progress" in self.wrong:
            options = replace(options, on_progress=None)
        return Broken(**self.wrong["engine"]) if "engine" in self.wrong else super().load(model, options)
