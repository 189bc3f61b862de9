"""What every backend keeps, kept with models of all kinds that this one makes or takes."""

from __future__ import annotations

from pathlib import Path

import pytest

import ondevice_mlc
from ondevice_mlc import MlcBackend
from ondevice_sdk.backends.api import Backend, LoadOptions, LocalModel
from ondevice_sdk.backends.llama_cpp import LlamaCppBackend
from ondevice_sdk.testing.contract import BackendContract
from ondevice_sdk.testing.contract.parity import ParityContract
from ondevice_sdk.testing.imports import strange_imports

from .conftest import Made


class Mlc(BackendContract):
    """For all models."""

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls) -> Backend:
        return MlcBackend()


@pytest.mark.slow
class TestTinyInt8(Mlc):
    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, made: Made) -> LocalModel:
        return made("llama", "int8")


@pytest.mark.slow
class TestTinyInt4(Mlc):
    """Of another architecture: with norms of the heads, and a head of its own for the logits."""

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, made: Made) -> LocalModel:
        return made("qwen3", "int4")


@pytest.mark.slow
class TestUpstream(Mlc):
    """A folder that is not this package's work, in 32 bits."""

    options = LoadOptions(context_tokens=1024, max_sequences=4, threads=1, batch_tokens=64)

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, of_upstream: LocalModel) -> LocalModel:
        return of_upstream


@pytest.mark.slow
@pytest.mark.model
class TestSmolLM2(Mlc):
    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, made: Made) -> LocalModel:
        return made("smollm2", "int4")


@pytest.mark.slow
@pytest.mark.model
class TestParityOfInt8(ParityContract):
    """Beside llama.cpp on the very file that the model was made of."""

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls) -> Backend:
        return MlcBackend()

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, made: Made) -> LocalModel:
        return made("smollm2", "int8")

    @pytest.fixture(scope="class")
    @classmethod
    def reference_backend(cls) -> Backend:
        return LlamaCppBackend()

    @pytest.fixture(scope="class")
    @classmethod
    def reference_model(cls, model_path: Path) -> LocalModel:
        return LocalModel("smollm2", "int4", "gguf", str(model_path), "")


def test_imports_nothing_that_may_change() -> None:
    assert strange_imports(Path(ondevice_mlc.__file__).parent, commands=["cli.py"]) == []
