"""The two ways for native code into the store: built on this machine, or pinned by its digest.

A backend whose models bring a compiled library installs them with one of these; nothing else accepts such files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from ondevice_sdk.errors import ConfigurationError, ModelCorrupt, ModelNotInstalled, StoreError
from ondevice_sdk.store import compiled, folders, formats, manifest
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
    recipe: str | None = None,
    take: Callable[[Path, Path], object] = copy_file,
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
        recipe: SHA-256 of all that it was built from and with. A model with one takes the place of another with one.
        take: brings a file to a new place in the store: `Path.replace` for files on its disk that nobody else has.

    Raises:
        ConfigurationError: an unusable name. ModelCorrupt: a file is pickle, or is named as code and is none.
        StoreError: another model has this name, or there is no room.
    """
    draft = replace(_draft(name, variant, form, source, licence), recipe=recipe)
    return _add(store, files, {}, draft, "built", take)


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
    return _add(store, files, digests, _draft(name, variant, form, source, licence), "pinned", copy_file)


def _draft(name: str, variant: str, form: str, source: str, licence: str) -> Manifest:
    return Manifest(
        name=check_name(name),
        variant=check_name(variant, "variant"),
        format=check_name(form, "format"),
        files=(),
        source="".join(c if c.isprintable() else "?" for c in source)[:4096],
        licence=licence,
        accepted_at=None,
        installed_at=now(),
        digest_origin="first_use",
    )


def _add(
    store: Store,
    files: Mapping[str, Path],
    digests: Mapping[str, str],
    draft: Manifest,
    origin: CodeOrigin,
    take: Callable[[Path, Path], object],
) -> InstalledModel:
    if missing := [name for name, path in files.items() if not path.is_file()]:
        raise ModelNotInstalled(f"there is no file {missing[0][:80]!r}", model=draft.name)
    digests = compiled.pins(digests, files)
    with store.space.lock(f"{draft.name}--{draft.variant}"), store.space.session() as work:
        described: list[ModelFile] = []
        copies: dict[str, Path] = {}
        with store_errors("copy a model", store.root):
            if take is copy_file:
                require_room(work, sum(path.stat().st_size for path in files.values()))
            for name, path in files.items():
                copy = work / f"compiled-{len(described)}"
                take(path, copy)
                file = _describe(name, draft.format, copy, digests, origin)
                if file.code is not None:
                    file = replace(file, mark=compiled.mark(compiled.own_key(store.space), draft, file))
                described.append(file)
                copies[file.digest] = copy
        made = replace(draft, files=tuple(described))
        try:
            manifest.parse(made.to_bytes())  # what could not be read back is not written
        except StoreError as error:
            raise ConfigurationError(error.message) from error
        if not (made.recipe and _recipe(store, made)):
            store.refuse_other(made)
        store.commit([made], copies, work)
    here = (draft.name, draft.variant)
    return next(each for each in store.installed() if (each.name, each.variant) == here)


def _recipe(store: Store, made: Manifest) -> str | None:
    """That of the model which has the name and variant now."""
    try:
        return store.manifest(made.name, made.variant).recipe
    except (ModelNotInstalled, ModelCorrupt):
        return None


def _describe(name: str, form: str, copy: Path, digests: Mapping[str, str], origin: CodeOrigin) -> ModelFile:
    """Look at the copy, which nobody else changes any more."""
    if not is_file_name(name):
        raise ConfigurationError(f"not a file name: {name[:80]!r}")
    raw = folders.is_raw(form, name)
    formats.refuse_pickle(copy, raw=raw)
    code = formats.is_code(copy, raw=raw)
    if not code and formats.is_code_name(name):
        raise ModelCorrupt(f"{name} is no compiled library", expected="native code", actual="data")
    if code and origin == "pinned" and name not in digests:
        raise ConfigurationError(
            f"{name} is native code: its digest has to be given",
            hint=f"pin={{{name!r}: SHA256}} (--pin {name}=SHA256), as whoever compiled it tells you",
        )
    digest = hash_file(copy)
    if digests.get(name, digest) != digest:
        raise ModelCorrupt(f"{name} is not the file that was pinned", expected=digests[name], actual=digest)
    return ModelFile(digest, copy.stat().st_size, name, origin if code else None)
