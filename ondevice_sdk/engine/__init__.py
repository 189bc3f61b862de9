"""The engine: makes an `Engine` of a `ModelRunner`. Runs in the worker only."""

from __future__ import annotations

from ondevice_sdk.engine.batched import BatchedEngine

__all__ = ["BatchedEngine"]
