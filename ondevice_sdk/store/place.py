"""Where a fetcher works and what it hands back; shared by the fetchers of all kinds of source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ondevice_sdk.catalogue.spec import Artifact

OnBytes = Callable[[int, int | None], None]  # bytes so far, bytes in all if known


@dataclass(frozen=True, slots=True)
class Place:
    """Directories on the store's disk: `work` goes away afterwards, `partial` stays until the download is whole."""

    work: Path
    partial: Path
    on_bytes: OnBytes
    on_converted: OnBytes  # where what arrived has to be made into a model file


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that has arrived, not checked yet. `sha256` is what the source promises, None if it says nothing."""

    path: Path
    name: str
    sha256: str | None = None


class Fetcher(Protocol):
    """Brings what an artifact names. `rest` is its source without the scheme."""

    def __call__(self, rest: str, artifact: Artifact, place: Place) -> tuple[Fetched, ...]:
        """Fetch; several files only where they belong together.

        Raises:
            DownloadFailed, ModelCorrupt, StoreError, LicenceNotAccepted, ConfigurationError.
        """
