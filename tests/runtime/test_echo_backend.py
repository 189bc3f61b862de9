"""The runtime with the SDK's own backend, whose model runner is wrapped by the SDK's own engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from ondevice_sdk.backends.api import Chat, Done, Generate, Generated, LoadOptions, LocalModel, Message, TextDelta
from ondevice_sdk.runtime import open_executor
from ondevice_sdk.types import Isolation, PrivacyLevel

from .conftest import drain


@pytest.mark.parametrize(("isolation", "privacy"), [("process", "strict"), ("thread", "guarded")])
def test_a_streamed_generation(echo_path: Path, isolation: Isolation, privacy: PrivacyLevel) -> None:
    model = LocalModel("echo", "int8", "echo", str(echo_path), "")
    entry = "ondevice_sdk.backends.echo:EchoBackend"
    executor = open_executor(entry, model, LoadOptions(), isolation=isolation, privacy=privacy)
    try:
        request = Generate(Chat((Message("user", "hello there"),)), 40, stream=True)
        events = drain(executor.submit(request))
        end = events[-1]
        assert isinstance(end, Done), end
        assert isinstance(end.result, Generated)
        assert end.result.text
        assert "".join(e.text for e in events if isinstance(e, TextDelta)) == end.result.text
    finally:
        executor.close()
