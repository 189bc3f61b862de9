"""From a backend's entry string to a loaded engine, with every failure as a typed error."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ondevice_sdk.backends.api import Backend, Engine, LoadOptions, LocalModel, ModelRunner
from ondevice_sdk.errors import BackendUnavailable, LoadFailed, OnDeviceError

if TYPE_CHECKING:
    from ondevice_sdk.runtime.prefixes import Prefixes


def import_runtime(entry: str) -> None:
    """Import the backend at "module:attribute", and the library that it runs models with.

    Raises:
        BackendUnavailable, LoadFailed.
    """
    backend = _backend(entry)
    with _typed(entry):
        backend.import_runtime()


def load_engine(
    entry: str, model: LocalModel, options: LoadOptions, prefixes: Prefixes | None = None, *, speculate: bool = True
) -> Engine:
    """Import the backend at "module:attribute" and load the model.

    Args:
        entry: the backend.
        model: a local model.
        options: how to load it.
        prefixes: where the engine may keep what it has read; unused where a backend brings an engine of its own.
        speculate: whether it may draft; what is timed depends on what a text repeats, then. Unused like `prefixes`.

    Raises:
        BackendUnavailable, LoadFailed, ModelCorrupt, ModelUnsupported. StoreError: `prefixes` cannot be used.
    """
    loaded = load_model(entry, model, options)
    if isinstance(loaded, Engine):
        return loaded
    with _typed(entry):
        from ondevice_sdk.engine import BatchedEngine

        disk = None if prefixes is None else prefixes.open(model, options, loaded)
        return BatchedEngine(loaded, speculate=speculate, prefix_cache_bytes=options.prefix_cache_bytes, disk=disk)


def load_model(entry: str, model: LocalModel, options: LoadOptions) -> Engine | ModelRunner:
    """As `load_engine`, but what the backend gives, as it is.

    Raises:
        BackendUnavailable, LoadFailed, ModelCorrupt, ModelUnsupported.
    """
    backend = _backend(entry)
    with _typed(entry):
        loaded = backend.load(model, options)
    if not isinstance(loaded, Engine | ModelRunner):
        raise LoadFailed(f"the backend {entry} gave neither an engine nor a model runner")
    return loaded


def template_digest(engine: Engine) -> str | None:
    """SHA-256 of the chat template; None where the model has none."""
    source = engine.chat_template
    return None if source is None else hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()


@contextmanager
def _typed(entry: str) -> Iterator[None]:
    try:
        yield
    except OnDeviceError:
        raise
    except ImportError as error:
        raise BackendUnavailable(f"the backend {entry} is not installed", reason=str(error)) from error
    except Exception as error:
        raise LoadFailed(f"the backend {entry} failed to load the model: {error}") from error


def _backend(entry: str) -> Backend:
    module, _, attribute = entry.partition(":")
    try:
        backend = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, ValueError) as error:
        raise BackendUnavailable(f"there is no backend {entry}", reason=str(error)) from error
    except Exception as error:
        raise BackendUnavailable(f"the backend {entry} cannot be used", reason=str(error)) from error
    if not isinstance(backend, Backend):
        raise BackendUnavailable(f"{entry} is not a backend", reason="not a subclass of Backend")
    return backend
