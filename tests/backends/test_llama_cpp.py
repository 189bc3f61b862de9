from __future__ import annotations

from pathlib import Path

import pytest

from ondevice_sdk.backends.api import Backend, LocalModel
from ondevice_sdk.backends.llama_cpp import LlamaCppBackend
from ondevice_sdk.testing.contract import BackendContract


@pytest.mark.model
@pytest.mark.slow
class TestLlamaCpp(BackendContract):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls) -> Backend:
        return LlamaCppBackend()

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, model_path: Path) -> LocalModel:
        return LocalModel("smollm2-135m-instruct", "int4", "gguf", str(model_path), "")
