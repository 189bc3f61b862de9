"""The two ways for native code into the store: built on this machine, or pinned by its digest.

A backend whose models bring a compiled library installs them with one of these; nothing else accepts such files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ondevice_sdk.errors import ConfigurationError, ModelCorrupt, ModelNotInstalled, StoreError
from ondevice_sdk.store import compiled, formats, manifest
from ondevice_sdk.store.files import check_name, copy_file, hash_file, is_file_name, require_room, store_errors
from ondevice_sdk.store.manifest import CodeOrigin, Manifest, ModelFile
from ondevice_sdk.store.results import InstalledModel
from ondevice_sdk.store.store import Store, now


def add_built(
    store: Store,
    files: Mapping[str, Path],
    *,
    name: str,
    variant: str,
    form: str,
    source: str = "built here",
    licence: str = "unknown",
) -> InstalledModel:
    """Install a model whose native code the caller has just compiled on this machine.

    Args:
        store: where to.
        files: where they lie, by the names that they are to have; the one that a backend is given comes first.
        name: of the model.
        variant: of the model.
        form: the format, by which a backend is found.
        source: what it was built from, for people.
        licence: of the weights.

    Raises:
        ConfigurationError: an unusable name. ModelCorrupt: a file is pickle, or is named as code and is none.
        StoreError: another model has this name, or there is no room.
    """
    return _add(store, files, {}, _draft(name, variant, form, source, licence), "built")


def add_pinned(
    store: Store,
    files: Mapping[str, Path],
    digests: Mapping[str, str],
    *,
    name: str,
    variant: str,
    form: str,
    source: str = "pinned",
    licence: str = "unknown",
) -> InstalledModel:
    """Install a model with native code that the app knows by its SHA-256.

    Args:
        store: where to.
        files: as in `add_built`.
        digests: SHA-256 by name, from the app itself and not from where the files came from; one for every file that is
            native code, others are checked too.
        name: of the model.
        variant: of the model.
        form: the format, by which a backend is found.
        source: where it came from, for people.
        licence: of the weights.

    Raises:
        ConfigurationError: an unusable name, or code without a digest. ModelCorrupt: a file is not what its digest
            says. StoreError.
    """
    return _add(store, files, digests, _draft(name, variant, form, source, licence), "pinned")


def _draft(name: str, variant: str, form: str, source: str, licence: str) -> Manifest:
    return Manifest(
        name=check_name(name),
        variant=check_name(variant, "variant"),
        format=check_name(form, "format"),
        files=(),
        source=source,
        licence=licence,
        accepted_at=None,
        installed_at=now(),
        digest_origin="first_use",
    )


def _add(
    store: Store, files: Mapping[str, Path], digests: Mapping[str, str], draft: Manifest, origin: CodeOrigin
) -> InstalledModel:
    if missing := [name for name, path in files.items() if not path.is_file()]:
        raise ModelNotInstalled(f"there is no file {missing[0][:80]!r}", model=draft.name)
    with store.space.lock(f"{draft.name}--{draft.variant}"), store.space.session() as work:
        described: list[ModelFile] = []
        copies: dict[str, Path] = {}
        with store_errors("copy a model", store.root):
            require_room(work, sum(path.stat().st_size for path in files.values()))
            for name, path in files.items():
                copy = work / f"compiled-{len(described)}"
                copy_file(path, copy)
                file = _describe(name, copy, digests, origin)
                if file.code is not None:
                    file = replace(file, mark=compiled.mark(compiled.own_key(store.space), draft, file))
                described.append(file)
                copies[file.digest] = copy
        made = replace(draft, files=tuple(described))
        try:
            manifest.parse(made.to_bytes())  # what could not be read back is not written
        except StoreError as error:
            raise ConfigurationError(error.message) from error
        store.refuse_other(made)
        store.commit([made], copies, work)
    here = (draft.name, draft.variant)
    return next(each for each in store.installed() if (each.name, each.variant) == here)


def _describe(name: str, copy: Path, digests: Mapping[str, str], origin: CodeOrigin) -> ModelFile:
    """Look at the copy, which nobody else changes any more."""
    if not is_file_name(name):
        raise ConfigurationError(f"not a file name: {name[:80]!r}")
    formats.refuse_pickle(copy)
    code = formats.is_code(copy)
    if not code and formats.is_code_name(name):
        raise ModelCorrupt(f"{name} is no compiled library", expected="native code", actual="data")
    if code and origin == "pinned" and name not in digests:
        raise ConfigurationError(f"{name} is native code: its digest has to be given")
    digest = hash_file(copy)
    if digests.get(name, digest) != digest:
        raise ModelCorrupt(f"{name} is not the file that was pinned", expected=digests[name], actual=digest)
    return ModelFile(digest, copy.stat().st_size, name, origin if code else None)
