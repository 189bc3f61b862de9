"""llama.cpp as a backend: GGUF files on its low-level functions.

Importing this module imports nothing native; `load` does.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, ClassVar

from ondevice_sdk.backends.api import (
    RUNNER_CAPABILITIES,
    Backend,
    Capability,
    DeviceProfile,
    Footprint,
    LoadOptions,
    LocalModel,
    ModelShape,
    Probe,
)
from ondevice_sdk.catalogue.gguf import read_header
from ondevice_sdk.errors import BackendUnavailable, LoadFailed

if TYPE_CHECKING:
    from ondevice_sdk.backends.llama_cpp.runner import LlamaCppRunner

__all__ = ["LlamaCppBackend"]

_HINT = "pip install 'ondevice-sdk[llama-cpp]'"
_NEEDED = ("llama_cpp", "numpy")
_DEFAULT_CONTEXT = 8192


class LlamaCppBackend(Backend):
    """Runs GGUF models on the CPU with llama.cpp."""

    name: ClassVar[str] = "llama_cpp"
    formats: ClassVar[frozenset[str]] = frozenset({"gguf"})

    def probe(self, device: DeviceProfile) -> Probe:  # noqa: ARG002 - llama.cpp runs on every CPU it was built for
        """Look whether the packages are there, without importing them."""
        missing = [name for name in _NEEDED if not _installed(name)]
        if missing:
            return Probe(False, f"not installed: {', '.join(missing)}", _HINT)
        capabilities = {*RUNNER_CAPABILITIES, Capability.CHAT, Capability.BATCH}
        if _installed("llguidance"):
            capabilities.add(Capability.SCHEMA)
        return Probe(True, capabilities=frozenset(capabilities))

    def estimate(self, shape: ModelShape, weights_bytes: int, options: LoadOptions) -> Footprint:
        """Predict memory from the shape: weights once, an f16 KV cache, and llama.cpp's graph buffers."""
        context = options.context_tokens or min(shape.context_tokens, _DEFAULT_CONTEXT)
        rows = min(options.batch_tokens, context)
        # Activations of one batch: a few rows of the widest layers in f32, and the rows of logits kept (64).
        widest = max(shape.feed_forward * 2, shape.width * 6)
        buffers = 4 * (rows * widest + 2 * 64 * shape.vocabulary) + 16_000_000
        return Footprint(weights_bytes, shape.kv_bytes_per_token() * context, buffers)

    def load(self, model: LocalModel, options: LoadOptions) -> LlamaCppRunner:
        """Check the file's header, then load it.

        Raises:
            ModelCorrupt, ModelUnsupported, LoadFailed, BackendUnavailable.
        """
        missing = [name for name in _NEEDED if not _installed(name)]
        if missing:
            raise BackendUnavailable(
                "llama.cpp is not installed", reason=f"not installed: {', '.join(missing)}", hint=_HINT
            )
        from ondevice_sdk.backends.llama_cpp.runner import LlamaCppRunner

        try:
            header = read_header(model.path)
        except OSError as error:
            raise LoadFailed(f"the model file cannot be read: {error.strerror}") from error
        return LlamaCppRunner(model, header, options, default_context=_DEFAULT_CONTEXT)


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
