"""llama.cpp with the SDK's engine, but without drafts: what speculation is compared with, see bench_speculation.py."""

from __future__ import annotations

from typing import ClassVar

from ondevice_sdk.backends.api import Engine, LoadOptions, LocalModel
from ondevice_sdk.backends.llama_cpp import LlamaCppBackend


class PlainBackend(LlamaCppBackend):
    """The built-in backend with one switch off."""

    name: ClassVar[str] = "plain"

    def load(self, model: LocalModel, options: LoadOptions) -> Engine:  # type: ignore[override]  # narrower
        """Load the model into an engine that never looks ahead."""
        from ondevice_sdk.engine import BatchedEngine

        runner = super().load(model, options)
        return runner if isinstance(runner, Engine) else BatchedEngine(runner, speculate=False)
