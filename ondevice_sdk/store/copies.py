"""The copies of a store's models that are faster here: found, checked, kept. They go with what they were made of."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from ondevice_sdk.backends.api import LocalModel
from ondevice_sdk.errors import ModelCorrupt, ModelNotInstalled
from ondevice_sdk.store import derived
from ondevice_sdk.store.derived import Derived
from ondevice_sdk.store.files import private_dir, settle, store_errors, sync_dir, write_durably

if TYPE_CHECKING:
    from ondevice_sdk.store.store import Store


class Copies:
    """Those of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._space = store.space

    def find(self, name: str, variant: str) -> Derived | None:
        """What is known of a faster copy of a model; None if nothing is, or it is of another file."""
        found = derived.read(self._space, name, variant)
        with contextlib.suppress(ModelNotInstalled, ModelCorrupt):
            if found is not None and found.is_of(self._store.manifest(name, variant)):
                return found
        return None

    def resolve(self, source: LocalModel) -> LocalModel | None:
        """The copy of a resolved model, known to be what it was when it was made; None if it is gone or damaged."""
        found = self.find(source.name, source.variant)
        if found is None or found.file is None or found.made_from != source.sha256:
            return None
        path = self._space.blob(found.file.digest)
        try:
            self._store._check(f"the optimised copy of {source.name}:{source.variant}", None, found.file, path)
        except ModelCorrupt:  # what it was made of is here
            return None
        return LocalModel(source.name, source.variant, source.format, str(path), found.file.digest, (str(path),))

    def keep(self, made: Derived, path: Path | None, work: Path) -> bool:
        """Keep a copy that lies on the store's disk, and its record, in place of an earlier one.

        False: the model is no longer the one that it was made of. Raises StoreError.
        """
        derived.parse(made.to_bytes())  # what could not be read back is not written
        with store_errors("write", self._store.root):
            if path is not None:
                settle(path)
            with self._space.lock("commit"):
                if not any(made.is_of(each) for each in self._store._readable([(made.name, made.variant)])):
                    return False
                if path is not None and made.file is not None:
                    blob = self._space.blob(made.file.digest)
                    path.replace(blob)
                    sync_dir(self._space.blobs)
                    self._space.stamp(made.file.digest, blob, made.file.digest)
                target = derived.place(self._space, made.name, made.variant)
                private_dir(target.parent)
                write_durably(target, made.to_bytes(), work / "derived.json")
                self._store._collect()
        return True
