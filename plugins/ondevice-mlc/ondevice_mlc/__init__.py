"""MLC as a backend: models compiled for this processor by Apache TVM.

Importing this module imports nothing native; `load` does.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, ClassVar

from ondevice_mlc.versions import TVM_VERSION, installed_tvm
from ondevice_sdk.backends.api import (
    RUNNER_CAPABILITIES,
    Backend,
    Builder,
    Capability,
    DeviceProfile,
    Footprint,
    LoadOptions,
    LocalModel,
    ModelShape,
    Probe,
)
from ondevice_sdk.errors import BackendUnavailable

if TYPE_CHECKING:
    from ondevice_mlc.runner import MlcRunner

__all__ = ["MlcBackend"]

_HINT = "pip install ondevice-mlc"
_NEEDED = ("tvm", "tvm_ffi", "tokenizers", "numpy")
_PROCESS_BYTES = 72_000_000  # measured: Python, numpy, TVM's runtime and the tokeniser, with a tiny model
# Of the vocabulary in memory, per entry, while it is read: with it the peak of a process with SmolLM2 in int4, 220 MB,
# is predicted within 5 %.
_WORD_BYTES = 600
DEFAULT_CONTEXT = 8192  # tokens, as the other backends


class MlcBackend(Backend):
    """Runs folders in MLC's format on the CPU with TVM's virtual machine."""

    name: ClassVar[str] = "mlc"
    formats: ClassVar[frozenset[str]] = frozenset({"mlc"})

    def probe(self, device: DeviceProfile) -> Probe:  # noqa: ARG002 - TVM runs on every CPU it was built for
        """Look whether the packages are there and fit, without importing them."""
        if reason := _obstacle():
            return Probe(False, reason, _HINT)
        capabilities = {*RUNNER_CAPABILITIES, Capability.CHAT, Capability.BATCH}
        if _installed("llguidance"):
            capabilities.add(Capability.SCHEMA)
        return Probe(True, capabilities=frozenset(capabilities))

    def estimate(self, shape: ModelShape, weights_bytes: int, options: LoadOptions) -> Footprint:
        """Predict memory from the shape: weights once, the KV cache in 32 bits, activations and logits."""
        context = options.context_tokens or min(shape.context_tokens, DEFAULT_CONTEXT)
        rows = min(options.batch_tokens, context)
        activations = 4 * rows * (2 * shape.feed_forward + 6 * shape.width)
        logits = 2 * 4 * max(options.max_sequences, 8) * shape.vocabulary
        words = _WORD_BYTES * shape.vocabulary
        cache = shape.kv_bytes_per_token(4) * context
        return Footprint(weights_bytes, cache, activations + logits + words, _PROCESS_BYTES)

    def builder(self) -> Builder | None:
        """Makes such folders of GGUF and safetensors models; needs a C compiler as the linker."""
        if _obstacle() or not _installed("gguf"):
            return None
        return Builder(
            maker="ondevice_mlc.build:make",
            form="mlc",
            sources=("gguf", "safetensors"),
            precisions=("int4", "int8"),
            library=f"tvm {TVM_VERSION}",
        )

    def import_runtime(self) -> None:
        """Import TVM's runtime, which is a small part of TVM, and the tokeniser.

        Raises:
            BackendUnavailable: they are not installed, or TVM is of another version.
        """
        if reason := _obstacle():
            raise BackendUnavailable("TVM cannot be used", reason=reason, hint=_HINT)
        import ondevice_mlc.runner
        import ondevice_mlc.runtime

        ondevice_mlc.runtime.start()

    def load(self, model: LocalModel, options: LoadOptions) -> MlcRunner:
        """Check the folder, then load its weights and its library.

        Raises:
            ModelCorrupt, ModelUnsupported, LoadFailed, BackendUnavailable.
        """
        self.import_runtime()
        from ondevice_mlc.runner import MlcRunner

        return MlcRunner(model, options)


def _obstacle() -> str:
    """Why TVM cannot be used; empty if it can."""
    missing = [name for name in _NEEDED if not _installed(name)]
    if missing:
        return f"not installed: {', '.join(missing)}"
    version = installed_tvm()
    return "" if version == TVM_VERSION else f"apache-tvm {version} is installed, {TVM_VERSION} is needed"


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
