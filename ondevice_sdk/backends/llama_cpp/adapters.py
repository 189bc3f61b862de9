"""The LoRA adapters of a loaded model: checked, then given to llama.cpp, freed before the model is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from ondevice_sdk.backends.api import LocalAdapter
from ondevice_sdk.catalogue import lora
from ondevice_sdk.catalogue.lora import Base, LoraFile
from ondevice_sdk.errors import ConfigurationError, LoadFailed, ModelCorrupt, ModelUnsupported, OnDeviceError

_CHUNK: Final = 1 << 20  # values that are looked at together
# What numbers of a file are as numpy sees them: those that say of each value, or of its block, whether it is finite.
_FINITE: Final = {
    lora.F32: (1, [("value", "<f4")]),
    lora.F16: (1, [("value", "<f2")]),
    lora.BF16: (1, [("value", "<u2")]),
    lora.Q8_0: (32, [("value", "<f2"), ("rest", "V32")]),
}
_BF16_EXPONENT: Final = 0x7F80  # all ones: infinite, or no number


class Adapters:
    """Those that a model was loaded with. One that is refused is an error of the requests that name it."""

    def __init__(self, model: Any, files: Sequence[str], wanted: Sequence[LocalAdapter]) -> None:
        """Load them. Call before a context is made: llama.cpp sizes its graphs by the adapters that there are.

        Args:
            model: llama.cpp's handle.
            files: of the model.
            wanted: what to load.
        """
        import llama_cpp

        self._lib = llama_cpp
        self._digests: dict[str, str] = {}
        self._handles: dict[str, Any] = {}  # by digest
        self._refused: dict[str, OnDeviceError] = {}
        base = lora.read_base(files) if wanted else None
        for each in wanted:
            assert base is not None
            try:
                if each.sha256 not in self._handles:
                    self._handles[each.sha256] = self._load(model, each, base)
                self._digests[each.name] = each.sha256
            except OnDeviceError as error:
                self._refused[each.name] = error

    def digest(self, name: str) -> str:
        """See `ModelRunner.adapter_digest`."""
        if (refused := self._refused.get(name)) is not None:
            raise type(refused)(refused.message, hint=refused.hint)
        if name not in self._digests:
            raise ConfigurationError(
                "the model was loaded without an adapter of this name", hint="see `ondevice models list`"
            )
        return self._digests[name]

    def handle(self, digest: str) -> Any:
        """llama.cpp's, which is the same object every time; None for no adapter."""
        return self._handles[digest] if digest else None

    def close(self) -> None:
        """Free them, once no context uses them; may be called twice."""
        while self._handles:
            self._lib.llama_adapter_lora_free(self._handles.popitem()[1])
        self._digests.clear()

    def _load(self, model: Any, adapter: LocalAdapter, base: Base) -> Any:
        try:
            found = lora.read(adapter.path)
            _check_finite(adapter, found)
        except OSError as error:
            raise LoadFailed(f"the adapter {adapter.name} cannot be read: {error.strerror}") from error
        if (reason := lora.misfit(found, base)) is not None:
            raise unfit(adapter.name, found, reason)
        handle = self._lib.llama_adapter_lora_init(model, adapter.path.encode())
        if not handle:
            raise LoadFailed(f"llama.cpp could not load the adapter {adapter.name}")
        return handle


def unfit(name: str, found: LoraFile, reason: str) -> ModelUnsupported:
    """The error of an adapter that was made for another model."""
    return ModelUnsupported(
        f"the adapter {name} {reason}", architecture=found.architecture, hint="name the model that it was made for"
    )


def _check_finite(adapter: LocalAdapter, found: LoraFile) -> None:
    """Refuse numbers that would make all logits nonsense.

    Raises:
        ModelCorrupt. OSError.
    """
    import numpy as np

    for tensor in found.tensors:
        block, fields = _FINITE[tensor.kind]
        dtype = np.dtype(fields)
        left, offset = math.ceil(tensor.values / block), tensor.offset
        while left:
            count = min(left, _CHUNK)
            values = np.fromfile(adapter.path, dtype, count, offset=offset)["value"]
            odd = values & _BF16_EXPONENT == _BF16_EXPONENT if tensor.kind == lora.BF16 else ~np.isfinite(values)
            if len(values) < count or odd.any():
                raise ModelCorrupt(f"the adapter {adapter.name} has numbers that are not finite")
            left, offset = left - count, offset + count * dtype.itemsize
