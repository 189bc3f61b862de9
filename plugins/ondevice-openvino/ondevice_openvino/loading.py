"""From a model's files to an engine, with OpenVINO's failures as the SDK's errors."""

from __future__ import annotations

import os
import re
from typing import Final

from ondevice_openvino import devices
from ondevice_openvino.engine import OpenVinoEngine
from ondevice_openvino.pipeline import Pipeline, Sizes
from ondevice_openvino.sizes import DEFAULT_CONTEXT, rows_of_a_pass
from ondevice_openvino.source import Source, open_source
from ondevice_sdk.backends.api import LoadOptions, LocalModel
from ondevice_sdk.errors import BackendUnavailable, LoadFailed, ModelCorrupt, ModelUnsupported, OnDeviceError

_MEMORY: Final = re.compile(r"bad_alloc|out of memory|[Nn]ot enough memory|failed to allocate")
_DEVICE: Final = re.compile(r"[Dd]evice with .* name is not registered|No device|[Cc]an(?:not|'t) (?:find|load)")
_FORMAT: Final = re.compile(r"[Uu]nsupported|not supported|unknown opset|Cannot create .* layer|model == \"gpt2\"")
_CORRUPT: Final = re.compile(
    r"[Ii]ncorrect weights|[Ee]rror reading|[Pp]arsing|corrupt|truncated|mismatch|out of range|map::at|load_gguf"
)


def load_engine(model: LocalModel, options: LoadOptions, device: str) -> OpenVinoEngine:
    """Check the files and load them.

    Raises:
        ModelCorrupt, ModelUnsupported, LoadFailed, BackendUnavailable.
    """
    _report(options, 0.0)
    source = open_source(model)
    context = min(source.context_tokens, options.context_tokens or DEFAULT_CONTEXT)
    sizes = Sizes(
        options.context_tokens or context,
        options.max_sequences,
        min(options.batch_tokens, rows_of_a_pass(model.size())),
        options.threads or usable_cores(),
        options.kv_type,
    )

    def make() -> Pipeline:
        with source.to_load() as path:
            try:
                return Pipeline(path, device, sizes)
            except (RuntimeError, ValueError, IndexError) as error:
                raise _typed(error, source, device) from error

    engine = OpenVinoEngine(make, sizes, context_tokens=context, rows=source.rows, begin=source.begin)
    _report(options, 1.0)
    return engine


def _report(options: LoadOptions, share: float) -> None:
    if options.on_progress is not None:
        options.on_progress(share)


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _typed(error: Exception, source: Source, device: str) -> OnDeviceError:
    """The error that fits what OpenVINO says, which quotes paths and values of the file."""
    text = str(error)
    if _MEMORY.search(text):
        return LoadFailed("not enough memory for the model", hint="use a smaller model, or a smaller context")
    if device != "CPU" and _DEVICE.search(text):
        return BackendUnavailable(
            f"OpenVINO has no device {device}",
            reason=f"no device {device}: its driver is missing, or this process may not use it",
            hint=f'unset {devices.VARIABLE}; under privacy="strict" a worker reaches the processor only',
        )
    if _FORMAT.search(text):
        return ModelUnsupported("OpenVINO cannot run this model", architecture=source.architecture)
    if _CORRUPT.search(text):
        return ModelCorrupt("OpenVINO refuses the model's files: they are damaged or incomplete")
    return LoadFailed(f"OpenVINO could not load the model on {device}")
