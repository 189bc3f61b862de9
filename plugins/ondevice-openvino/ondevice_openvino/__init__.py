"""OpenVINO GenAI as a backend: GGUF files, and folders in OpenVINO's own format (IR).

Importing this module imports nothing native; `load` does.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, ClassVar

from ondevice_openvino import devices, quiet
from ondevice_openvino.sizes import DEFAULT_CONTEXT, rows_of_a_pass
from ondevice_sdk.backends.api import (
    Backend,
    Capability,
    DeviceProfile,
    Footprint,
    KvType,
    LoadOptions,
    LocalModel,
    ModelShape,
    Probe,
)
from ondevice_sdk.errors import BackendUnavailable, ConfigurationError

if TYPE_CHECKING:
    from ondevice_openvino.engine import OpenVinoEngine

__all__ = ["OpenVinoBackend"]

_HINT = "pip install ondevice-openvino"
_NEEDED = ("openvino", "openvino_genai", "llguidance", "numpy")
_PROCESS_BYTES = 90_000_000  # measured: Python, numpy and OpenVINO's libraries, before a model
_COPIES = 2.2  # of the weights: as they were read, and as the kernels want them; measured with SmolLM2
_WORD_BYTES = 600  # of the vocabulary in memory, per entry: tokeniser, detokeniser, XGrammar and ours


class OpenVinoBackend(Backend):
    """Runs models with OpenVINO GenAI's continuous-batching pipeline."""

    name: ClassVar[str] = "openvino"
    formats: ClassVar[frozenset[str]] = frozenset({"gguf", "openvino"})
    kv_types: ClassVar[tuple[KvType, ...]] = ("f16", "q8_0")

    def __init__(self) -> None:
        self._device = devices.chosen()

    def probe(self, device: DeviceProfile) -> Probe:  # noqa: ARG002 - OpenVINO runs on every processor it was built for
        """Look whether the packages and the device are there, without importing anything of them."""
        missing = [name for name in _NEEDED if not _installed(name)]
        if missing:
            return Probe(False, f"not installed: {', '.join(missing)}", _HINT)
        if reason := devices.obstacle(self._device):
            return Probe(False, reason, f"unset {devices.VARIABLE}, or set it to CPU")
        capabilities = {Capability.GENERATE, Capability.BATCH, Capability.SCHEMA, Capability.SCORE, Capability.SEED}
        return Probe(True, capabilities=frozenset(capabilities | {Capability.PREFIX_CACHE, Capability.CHAT}))

    def estimate(self, shape: ModelShape, weights_bytes: int, options: LoadOptions) -> Footprint:
        """Predict memory from the shape."""
        context = options.context_tokens or min(shape.context_tokens, DEFAULT_CONTEXT)
        cache = shape.kv_bytes_per_token() * (context + 32 * options.max_sequences)
        if options.kv_type == "q8_0":
            cache = cache * 17 // 32
        rows = min(options.batch_tokens, context, rows_of_a_pass(weights_bytes))
        # In 32 bits, twice: as they are computed, and as they are handed on.
        activations = 8 * rows * (2 * shape.feed_forward + 6 * shape.width + shape.vocabulary)
        weights = int(_COPIES * max(weights_bytes, shape.parameters * 17 // 16))  # of 4 bits some become 8: `exact`
        return Footprint(weights, cache, activations + _WORD_BYTES * shape.vocabulary, _PROCESS_BYTES)

    def library(self) -> str:
        """The plugin and what it requires, and the device that it computes on."""
        return f"{super().library()}, {self._device}"

    def import_runtime(self) -> None:
        """Import OpenVINO, without its telemetry.

        Raises:
            BackendUnavailable: it is not installed.
        """
        missing = [name for name in _NEEDED if not _installed(name)]
        if missing:
            raise BackendUnavailable(
                "OpenVINO GenAI is not installed", reason=f"not installed: {', '.join(missing)}", hint=_HINT
            )
        quiet.import_runtime()
        import ondevice_openvino.engine  # noqa: F401

    def load(self, model: LocalModel, options: LoadOptions) -> OpenVinoEngine:
        """Check the model's files, then load them.

        Raises:
            ModelCorrupt, ModelUnsupported, LoadFailed, BackendUnavailable.
        """
        if min(options.max_sequences, options.batch_tokens, options.context_tokens or 1) < 1:
            raise ConfigurationError("context_tokens, max_sequences and batch_tokens must be at least 1")
        self.import_runtime()
        from ondevice_openvino.loading import load_engine

        return load_engine(model, options, self._device)


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
