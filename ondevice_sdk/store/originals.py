"""The model that another one is made of here: an installed one, or one that lies at a path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ondevice_sdk.backends.api import LocalModel
from ondevice_sdk.errors import Unsupported
from ondevice_sdk.store.elsewhere import digest_of, is_path
from ondevice_sdk.store.files import split_name
from ondevice_sdk.store.store import Store


@dataclass(frozen=True, slots=True)
class Original:
    """A model with the SHA-256 of each of its files, and the licence of its weights."""

    model: LocalModel
    digests: tuple[str, ...]
    licence: str

    @property
    def label(self) -> str:
        """For people; never a path of this machine."""
        return f"{self.model.name}:{self.model.variant}"


def find(store: Store, name: str, formats: Sequence[str], *, capability: str) -> Original:
    """The model of that name, or at that path; of several variants the largest, which is the most exact.

    Args:
        store: where it is.
        name: also as `"name:variant"`, or a path.
        formats: that it may have.
        capability: what cannot be done with others.

    Raises:
        ModelNotInstalled, ModelCorrupt, StoreError. Unsupported: it has another format.
    """

    def require(form: str, label: str) -> None:
        if form not in formats:
            said = f"{label} is of the format {form}; models are made of {' or '.join(formats)}"
            raise Unsupported(said, capability=capability)

    if is_path(name):
        model = store.from_path(name)
        require(model.format, model.name)
        return Original(model, tuple(digest_of(store.space, Path(path)) for path in model.files), "unknown")
    base, variant = split_name(name)
    here = [each for each in store.installed() if each.name == base and variant in (None, each.variant)]
    if not here:
        store.resolve(base, variant)  # damaged, or not here: it raises
    fitting = [each for each in here if each.format in formats]
    if not fitting:
        require(here[0].format, name)
    best = max(fitting, key=lambda each: each.size)
    model = store.resolve(best.name, best.variant)
    return Original(model, tuple(file.digest for file in store.manifest(best.name, best.variant).files), best.licence)
