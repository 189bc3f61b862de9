"""The contract of the SDK on a real model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest

from ondevice_openvino import OpenVinoBackend
from ondevice_sdk.backends.api import Backend, LocalModel
from ondevice_sdk.backends.llama_cpp import LlamaCppBackend
from ondevice_sdk.testing import parity
from ondevice_sdk.testing.contract import BackendContract
from ondevice_sdk.testing.contract.parity import ParityContract


@pytest.mark.model
@pytest.mark.slow
class TestOpenVino(BackendContract):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls) -> Iterator[Backend]:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("ONDEVICE_OPENVINO_DEVICE", raising=False)
            yield OpenVinoBackend()

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, gguf_model: LocalModel) -> LocalModel:
        return gguf_model


@pytest.mark.model
@pytest.mark.slow
class TestOpenVinoParity(ParityContract):
    """The same GGUF file as llama.cpp has it: 4-bit weights, which come through in 8."""

    prompts: ClassVar[tuple[str, ...]] = parity.PROMPTS[:8]
    tokens: ClassVar[int] = 32

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls) -> Backend:
        return OpenVinoBackend()

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, gguf_model: LocalModel) -> LocalModel:
        return gguf_model

    @pytest.fixture(scope="class")
    @classmethod
    def reference_backend(cls) -> Backend:
        return LlamaCppBackend()

    @pytest.fixture(scope="class")
    @classmethod
    def reference_model(cls, gguf_model: LocalModel) -> LocalModel:
        return gguf_model
