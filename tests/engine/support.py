"""An engine on the echo model, for tests of what the engine does with any model."""

from __future__ import annotations

from pathlib import Path

from ondevice_sdk.backends.api import (
    Chat,
    Done,
    Event,
    Generated,
    LoadOptions,
    LocalModel,
    Message,
    ModelRunner,
    Raw,
    Segment,
)
from ondevice_sdk.backends.echo import EchoBackend
from ondevice_sdk.engine import BatchedEngine


def echo_runner(
    tmp_path: Path, settings: str = "", *, context: int = 1024, sequences: int = 4, batch: int = 128
) -> ModelRunner:
    path = tmp_path / "model.echo"
    path.write_text(f'{{"ondevice-echo": 1, "context_tokens": {context}{settings}}}')
    options = LoadOptions(context_tokens=context, max_sequences=sequences, batch_tokens=batch)
    return EchoBackend().load(LocalModel("echo", "int4", "echo", str(path), ""), options)


def echo_engine(
    tmp_path: Path, settings: str = "", *, context: int = 1024, sequences: int = 4, batch: int = 128
) -> BatchedEngine:
    return BatchedEngine(echo_runner(tmp_path, settings, context=context, sequences=sequences, batch=batch))


def chat(text: str, prefix: str = "") -> Chat:
    return Chat((Message("user", text),), prefix)


def raw(text: str) -> Raw:
    return Raw((Segment(text),))


def generated(events: list[Event]) -> Generated:
    last = events[-1]
    assert isinstance(last, Done), last
    assert isinstance(last.result, Generated)
    return last.result
