"""A backend for tests whose requests are paths of model files: each is loaded and used once, in one sealed worker.

A worker for every file would take ten times as long. What is done to a file is what a worker does that is started for
it: the real backend's `load`, then one request on the SDK's engine.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from ondevice_sdk.backends.api import (
    GREEDY,
    Backend,
    Capability,
    Chat,
    DeviceProfile,
    Done,
    Engine,
    Event,
    Failed,
    Footprint,
    Generate,
    Generated,
    LoadOptions,
    LocalModel,
    Message,
    ModelShape,
    Probe,
    Raw,
    Request,
    Segment,
    Usage,
)
from ondevice_sdk.errors import OnDeviceError
from ondevice_sdk.runtime.loading import load_engine

ENTRY = "tests.fuzzing.many_models:ManyModels"
TOKENS = 4
_LLAMA = "ondevice_sdk.backends.llama_cpp:LlamaCppBackend"
_MOST_STEPS = 200


class ManyModels(Backend):
    name: ClassVar[str] = "many"
    formats: ClassVar[frozenset[str]] = frozenset({"many"})

    def probe(self, device: DeviceProfile) -> Probe:
        return Probe(True)

    def estimate(self, shape: ModelShape, weights_bytes: int, options: LoadOptions) -> Footprint:
        return Footprint(0, 0, 0)

    def load(self, model: LocalModel, options: LoadOptions) -> Engine:
        import llama_cpp  # once, not with the first file
        import numpy as np

        assert llama_cpp
        assert np
        return _Engine(options)


class _Engine(Engine):
    capabilities = frozenset({Capability.GENERATE})
    context_tokens = 4096

    def __init__(self, options: LoadOptions) -> None:
        self._options = replace(options, on_progress=None)  # the app heard of the one load that it knows
        self._waiting: list[tuple[str, str]] = []

    @property
    def busy(self) -> bool:
        return bool(self._waiting)

    def add_request(self, request_id: str, request: Request) -> None:
        assert isinstance(request, Generate)
        assert isinstance(request.prompt, Raw)
        self._waiting.append((request_id, request.prompt.segments[0].text))

    def abort_request(self, request_id: str) -> None:
        pass

    def step(self, token_budget: int) -> Sequence[Event]:
        request_id, path = self._waiting.pop(0)
        answer = json.dumps(use(path, self._options))
        return [Done(request_id, Generated(answer, "stop", Usage()))]

    def close(self) -> None:
        pass


def use(path: str, options: LoadOptions) -> tuple[str, str]:
    """Load a file and generate a little: what happened, and more of it."""
    try:
        engine = load_engine(_LLAMA, LocalModel("fuzz", "int8", "gguf", path, "0" * 64), options)
    except OnDeviceError as error:
        return "refused by the loader", error.code
    try:
        chat = Capability.CHAT in engine.capabilities
        prompt = Chat((Message("user", "hello and then"),)) if chat else Raw((Segment("hello"),))
        engine.add_request("q", Generate(prompt, TOKENS, GREEDY, ignore_eos=True))
        for _ in range(_MOST_STEPS):
            for event in engine.step(64):
                if isinstance(event, Failed):
                    return "refused the request", event.error.code
                if isinstance(event, Done):
                    assert isinstance(event.result, Generated)
                    return "generated", str(event.result.usage.completion_tokens)
        return "never ended", ""
    finally:
        engine.close()
