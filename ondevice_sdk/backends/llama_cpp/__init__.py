"""llama.cpp as a backend: GGUF files on its low-level functions.

Importing this module imports nothing native; `load` does.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, ClassVar

from ondevice_sdk.backends.api import (
    RUNNER_CAPABILITIES,
    Backend,
    Calibrator,
    Capability,
    Compressor,
    DeviceProfile,
    Footprint,
    KvType,
    LoadOptions,
    LocalModel,
    ModelShape,
    Probe,
    Relayer,
)
from ondevice_sdk.backends.llama_cpp.sizes import DEFAULT_CONTEXT, ROWS_AT_A_TIME
from ondevice_sdk.catalogue.gguf import read_header
from ondevice_sdk.catalogue.lora import is_adapter
from ondevice_sdk.errors import BackendUnavailable, LoadFailed, ModelUnsupported

if TYPE_CHECKING:
    from ondevice_sdk.backends.llama_cpp.embedder import LlamaCppEmbedder
    from ondevice_sdk.backends.llama_cpp.runner import LlamaCppRunner

__all__ = ["LlamaCppBackend"]

_HINT = "pip install 'ondevice-sdk[llama-cpp]'"
_NEEDED = ("llama_cpp", "numpy")
_PROCESS_BYTES = 76_000_000  # measured: Python, numpy and llama.cpp, before a model
_WORD_BYTES = 100  # of the vocabulary in memory, per entry
# Formats of weights that are measured, in the order of their importance.
_CALIBRATED = ("Q4_K", "Q8_0", "Q6_K", "Q4_0", "Q4_1", "Q5_0", "BF16", "F16")
# What a precision usually means: the formats with the fastest kernels on the processors that were measured.
_COMPRESSED = {"int4": "Q4_0", "int8": "Q8_0"}
# Formats that are worth a trial as those of a copy: there are fast kernels for them on some processors.
_RELAID = ("Q8_0", "Q4_0", "BF16", "F16")


class LlamaCppBackend(Backend):
    """Runs GGUF models on the CPU with llama.cpp."""

    name: ClassVar[str] = "llama_cpp"
    formats: ClassVar[frozenset[str]] = frozenset({"gguf"})
    kv_types: ClassVar[tuple[KvType, ...]] = ("f16", "q8_0")

    def probe(self, device: DeviceProfile) -> Probe:  # noqa: ARG002 - llama.cpp runs on every CPU it was built for
        """Look whether the packages are there, without importing them."""
        missing = [name for name in _NEEDED if not _installed(name)]
        if missing:
            return Probe(False, f"not installed: {', '.join(missing)}", _HINT)
        capabilities = {*RUNNER_CAPABILITIES, Capability.CHAT, Capability.BATCH, Capability.EMBED, Capability.ADAPTER}
        if _installed("llguidance"):
            capabilities.add(Capability.SCHEMA)
        return Probe(True, capabilities=frozenset(capabilities))

    def estimate(self, shape: ModelShape, weights_bytes: int, options: LoadOptions) -> Footprint:
        """Predict memory: weights and adapters once, the KV cache, llama.cpp's graph buffers and its vocabulary."""
        context = options.context_tokens or min(shape.context_tokens, DEFAULT_CONTEXT)
        cache = shape.kv_bytes_per_token() * context
        if options.kv_type == "q8_0":
            cache = cache * 17 // 32  # blocks of 32 values have 34 bytes
        elif options.kv_type == "f32":
            cache *= 2
        rows = min(options.batch_tokens, context, ROWS_AT_A_TIME)
        # In f32: the two widest activations and some of the width, the scores of attention, logits of all sequences.
        scores = 0 if options.kv_type == "q8_0" else shape.heads * context  # flash attention has none
        activations = 4 * rows * (2 * shape.feed_forward + 4 * shape.width + scores)
        logits = 2 * 4 * options.max_sequences * shape.vocabulary
        weights = weights_bytes + sum(adapter.size for adapter in options.adapters)
        return Footprint(weights, cache, activations + logits + _WORD_BYTES * shape.vocabulary, _PROCESS_BYTES)

    def library(self) -> str:
        """The binding's version, which has llama.cpp inside."""
        return _library()

    def calibrator(self) -> Calibrator | None:
        """Measured with small random models, which `gguf` writes."""
        if not (_installed("llama_cpp") and _installed("gguf")):
            return None
        writer = "ondevice_sdk.backends.llama_cpp.synthetic:write"
        return Calibrator(writer, "gguf", _CALIBRATED, _library())

    def relayer(self) -> Relayer | None:
        """Written by llama.cpp's own quantisation."""
        if not all(map(_installed, _NEEDED)):
            return None
        return Relayer("ondevice_sdk.backends.llama_cpp.relayout:write", "gguf", _RELAID, _library())

    def compressor(self) -> Compressor | None:
        """Written by llama.cpp's own quantisation, with an importance matrix in its own format."""
        if not all(map(_installed, (*_NEEDED, "gguf"))):
            return None
        return Compressor(
            model_format="gguf",
            library=_version(),
            quantisations=_COMPRESSED,
            writer="ondevice_sdk.backends.llama_cpp.compress:write",
            importance="ondevice_sdk.backends.llama_cpp.importance:write",
        )

    def import_runtime(self) -> None:
        """Import llama.cpp.

        Raises:
            BackendUnavailable: it is not installed.
        """
        missing = [name for name in _NEEDED if not _installed(name)]
        if missing:
            raise BackendUnavailable(
                "llama.cpp is not installed", reason=f"not installed: {', '.join(missing)}", hint=_HINT
            )
        import llama_cpp  # noqa: F401

        import ondevice_sdk.backends.llama_cpp.runner  # noqa: F401

    def load(self, model: LocalModel, options: LoadOptions) -> LlamaCppRunner | LlamaCppEmbedder:
        """Check the file's header, then load it: as what gives embeddings where it says that it does.

        Raises:
            ModelCorrupt, ModelUnsupported, LoadFailed, BackendUnavailable.
        """
        self.import_runtime()
        from ondevice_sdk.backends.llama_cpp.runner import LlamaCppRunner

        try:
            header = read_header(model.path)
        except OSError as error:
            raise LoadFailed(f"the model file cannot be read: {error.strerror}") from error
        if is_adapter(header):
            hint = "install it with `ondevice models add`, and name it as adapter="
            raise ModelUnsupported("this is an adapter and no model", architecture=header.architecture, hint=hint)
        if header.embeds:
            from ondevice_sdk.backends.llama_cpp.embedder import LlamaCppEmbedder

            return LlamaCppEmbedder(model, header, options)
        return LlamaCppRunner(model, header, options)


def _library() -> str:
    # What is measured depends on how the library is used, too.
    return f"{_version()}, no flash attention"


def _version() -> str:
    from importlib.metadata import version  # not needed where a model is loaded, and slow to import

    return f"llama.cpp {version('llama-cpp-python')}"


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
