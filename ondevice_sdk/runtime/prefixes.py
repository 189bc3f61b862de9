"""What a worker is given to keep prefixes on the disk: a directory, a key for one model, a limit."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from ondevice_sdk.backends.api import LoadOptions, LocalModel, ModelRunner
from ondevice_sdk.privacy.vault import EncryptedCache, ScopedKey
from ondevice_sdk.runtime import protocol
from ondevice_sdk.types import PrivacyReport

if TYPE_CHECKING:
    from ondevice_sdk.engine.disk import DiskPrefixes

PURPOSE: Final = "prefix-state"
_LIMIT: Final = (
    "a prefix cache is on: what was read is kept on the disk, encrypted, in a directory that the worker may write to; "
    "the number, sizes and times of its entries can be seen"
)


@dataclass(frozen=True, slots=True)
class Prefixes:
    """A cache on the disk for the prefixes of one model."""

    directory: str  # there already, private
    key: ScopedKey
    limit_bytes: int

    def open(self, model: LocalModel, options: LoadOptions, runner: ModelRunner) -> DiskPrefixes | None:
        """Open it for a loaded model, with a copy of the key; None where no state of this runner can be kept.

        Raises:
            StoreError: the directory cannot be used. BackendUnavailable: `cryptography` is not installed.
        """
        if not runner.state_version or type(runner).kv_save is ModelRunner.kv_save:
            return None
        from ondevice_sdk.engine.disk import DiskPrefixes

        key = ScopedKey(self.key.reveal(), self.key.purpose, self.key.model_digest)  # `purge` in here erases no other
        cache = EncryptedCache(self.directory, key, max_bytes=self.limit_bytes, durable=False)
        return DiskPrefixes(cache, binding(model, options, runner), limit_bytes=self.limit_bytes)


def hand(prefixes: Prefixes) -> protocol.Handed:
    """What to send to a worker.

    Raises:
        StoreError: the key was forgotten.
    """
    key = prefixes.key
    secret = base64.b64encode(key.reveal()).decode()
    return protocol.Handed(prefixes.directory, secret, key.purpose, key.model_digest, prefixes.limit_bytes)


def take(handed: protocol.Handed) -> Prefixes:
    """What was sent by `hand`.

    Raises:
        ConfigurationError: it is no key.
    """
    key = ScopedKey(base64.b64decode(handed.secret), handed.purpose, handed.model_digest)
    return Prefixes(handed.directory, key, handed.limit_bytes)


def binding(model: LocalModel, options: LoadOptions, runner: ModelRunner) -> str:
    """Everything that a state depends on besides the bytes of the model's files, to which the key is bound.

    Those of a folder elsewhere may have changed since they were hashed: the size and the time tell.
    """
    from ondevice_sdk._version import __version__
    from ondevice_sdk.engine.disk import FORM
    from ondevice_sdk.engine.prefix import GRID

    parts = [
        __version__, FORM, GRID, options.kv_type, runner.state_version,
        [runner.vocabulary, runner.begin_token, sorted(runner.end_tokens)],
        [_file(path) for path in model.files[1:]],
    ]  # fmt: skip
    return json.dumps(parts)


def _file(path: str) -> Sequence[str | int]:
    status = os.stat(path)  # noqa: PTH116 - paths are strings here
    return [os.path.realpath(path), status.st_size, status.st_mtime_ns]


def reported(report: PrivacyReport) -> PrivacyReport:
    """The report of a worker that was given such a cache."""
    return replace(report, limits=(*report.limits, _LIMIT))
