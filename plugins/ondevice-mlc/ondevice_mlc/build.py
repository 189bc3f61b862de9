"""The maker of the build seam: a model of the store becomes a model folder with a compiled library."""

from __future__ import annotations

import platform
import queue
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Final

from ondevice_mlc.architecture.config import ModelConfig
from ondevice_mlc.convert import convert, write_config
from ondevice_mlc.quantisation import Precision
from ondevice_mlc.sources import open_source
from ondevice_mlc.versions import TVM_VERSION
from ondevice_sdk.errors import ConfigurationError

LIBRARY: Final = "model.so"
_CONVERTED: Final = 0.2  # of all the work; the rest is compiling (seen with SmolLM2)
_POLL_S: Final = 0.2


def make(
    *, source: str, folder: str, precision: str, target: str | None, threads: int
) -> Generator[tuple[str, float], None, list[str]]:
    """Fill a folder; see `ondevice_sdk.backends.builder.Builder`.

    Raises:
        ModelCorrupt, ModelUnsupported, LoadFailed: the source. BackendUnavailable: there is no linker.
        ConfigurationError: the precision or the target is not known.
    """
    del threads  # compiling is one thread's work, and so is quantising beside it
    if precision not in ("int4", "int8"):
        raise ConfigurationError("a model is compiled to int4 or int8")
    wanted: Precision = "int4" if precision == "int4" else "int8"
    place = Path(folder)
    yield "read", 0.0
    model = open_source(Path(source))
    names: list[str] = []
    steps = convert(model, place, wanted)
    while True:
        try:
            yield "quantise", _CONVERTED * next(steps)
        except StopIteration as end:
            names = end.value
            break
    for stage, share in _compile(model.config, wanted, target, place / LIBRARY):
        yield stage, _CONVERTED + (1 - _CONVERTED) * share
    made = {"tvm": TVM_VERSION, "system": sys.platform, "machine": platform.machine(), "target": target or "native"}
    return [write_config(model, place, wanted, made), *names, LIBRARY]


def _compile(
    config: ModelConfig, precision: Precision, target: str | None, out: Path
) -> Generator[tuple[str, float], None, None]:
    """Compile in a thread, and tell how far it is."""
    from ondevice_mlc.compiler import compile as compile_library

    told: queue.SimpleQueue[tuple[str, float] | BaseException | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            compile_library(config, precision, target, out, lambda stage, share: told.put((stage, share)))
            told.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again where it is read
            told.put(error)

    thread = threading.Thread(target=work, name="ondevice-mlc-compile", daemon=True)
    thread.start()
    while True:
        try:
            step = told.get(timeout=_POLL_S)
        except queue.Empty:
            continue
        if step is None:
            return
        if isinstance(step, BaseException):
            raise step
        yield step
