"""A backend around a runtime library that phones home; else the echo backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ondevice_sdk.backends.api import Batch, LoadOptions, LocalModel, ModelRunner
from ondevice_sdk.backends.echo import EchoBackend, _EchoRunner, _read

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ChattyBackend(EchoBackend):
    name: ClassVar[str] = "chatty"

    def load(self, model: LocalModel, options: LoadOptions) -> ModelRunner:
        import chatty_runtime  # type: ignore[import-not-found]  # it lies beside, where only the app looks

        chatty_runtime.speak("load")
        return _ChattyRunner(_read(model.path), options)


class _ChattyRunner(_EchoRunner):
    def forward(self, batch: Batch) -> NDArray[np.float32]:
        import chatty_runtime

        chatty_runtime.speak("step")
        return super().forward(batch)
