"""Fixtures that many tests share."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from ondevice_sdk import errors, models
from ondevice_sdk.store import Store

MODEL = "smollm2-135m-instruct"


def pytest_configure() -> None:
    """Let Ctrl-C work in the processes that tests start, also where a shell in the background had it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def installed_store() -> Store:
    """The user's own store, with the default model in it; `make test` pulls that before the tests run."""
    store = Store.open()
    try:
        store.resolve(MODEL)
    except errors.ModelNotInstalled:
        models.pull(MODEL, store=store)
    return store


@pytest.fixture(scope="session")
def model_path(installed_store: Store) -> Path:
    """The real model, SmolLM2-135M-Instruct in int4."""
    return Path(installed_store.resolve(MODEL).path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store.open(tmp_path / "store")


@pytest.fixture
def echo_path(tmp_path: Path) -> Path:
    """A model file of the echo backend."""
    path = tmp_path / "model.echo"
    path.write_text(json.dumps({"ondevice-echo": 1, "context_tokens": 2048}))
    return path


@pytest.fixture(autouse=True)
def no_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hub clients must not phone home from tests."""
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
