"""Fixtures that the tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from ondevice_sdk import errors
from ondevice_sdk.backends.api import LocalModel
from ondevice_sdk.store import Store

MODEL = "smollm2-135m-instruct"


@pytest.fixture(scope="session")
def model_path() -> Path:
    """The real model, SmolLM2-135M-Instruct in int4, in the user's own store."""
    try:
        return Path(Store.open().resolve(MODEL).path)
    except errors.ModelNotInstalled as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def gguf_model(model_path: Path) -> LocalModel:
    """The same as backends are given it."""
    return LocalModel(MODEL, "int4", "gguf", str(model_path), "")
