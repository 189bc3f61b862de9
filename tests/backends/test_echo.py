from __future__ import annotations

from pathlib import Path

import pytest

from ondevice_sdk.backends.api import Backend, LocalModel
from ondevice_sdk.backends.echo import EchoBackend
from ondevice_sdk.testing.contract import BackendContract


class TestEcho(BackendContract):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls) -> Backend:
        return EchoBackend()

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
        path: Path = tmp_path_factory.mktemp("echo") / "model.echo"
        path.write_text('{"ondevice-echo": 1, "context_tokens": 1024}')
        return LocalModel("echo", "int4", "echo", str(path), "")
