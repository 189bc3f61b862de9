"""Models on this disk: content-addressed files, and manifests that say what they are."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ondevice_sdk.backends.api import LocalModel
from ondevice_sdk.catalogue import lora
from ondevice_sdk.errors import ConfigurationError, ModelCorrupt, ModelNotInstalled, StoreError
from ondevice_sdk.store import compiled, derived, elsewhere, formats, manifest, recipes
from ondevice_sdk.store.copies import Copies
from ondevice_sdk.store.files import (
    copy_file,
    hash_file,
    is_file_name,
    joint_digest,
    private_dir,
    require_room,
    settle,
    slug,
    split_name,
    store_errors,
    sync_dir,
    write_durably,
)
from ondevice_sdk.store.manifest import DigestOrigin, Manifest, ModelFile
from ondevice_sdk.store.recipes import Quality, Recipe
from ondevice_sdk.store.results import InstalledModel, NativeCode, VerifyResult
from ondevice_sdk.store.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Removal:
    """A plan: what would go, and how many bytes that would free. Files that other models share stay."""

    store: Store
    models: tuple[tuple[str, str], ...]
    freed: int

    def execute(self) -> None:
        """Do it; what is shared is looked at again."""
        self.store._forget(self.models)


class Store:
    """The models below one directory. Any number of processes may use it at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.space = Workspace(root)
        self.copies = Copies(self)

    @classmethod
    def open(cls, root: Path | None = None) -> Store:
        """The store at `root`, else at `ONDEVICE_HOME`, else in the user's data directory. Writes nothing yet.

        Raises:
            StoreError: there is no place for it.
        """
        if root is None and (home := os.environ.get("ONDEVICE_HOME")):
            root = Path(home)
        try:
            if root is None:
                from platformdirs import user_data_path  # on first use: it is not needed with a root

                root = user_data_path("ondevice-sdk")
            root = root.expanduser().absolute()
        except (RuntimeError, OSError) as error:
            hint = "set ONDEVICE_HOME to a directory that you may write to"
            raise StoreError("the home directory is not known", hint=hint) from error
        return cls(root)

    # --- reading --------------------------------------------------------------------------------------------------

    def installed(self, *, adapters: bool = False) -> tuple[InstalledModel, ...]:
        """The models that are here, by name, on demand with what changes them.

        Those whose manifest is damaged are found by `verify` only.
        """
        found = self._readable(self._entries())
        return tuple(self._describe(each) for each in found if adapters or each.format != lora.FORMAT)

    def whole(self, name: str, variant: str | None = None) -> InstalledModel | None:
        """The model, if it is here and not damaged; `variant` as in `resolve`."""
        try:
            found = self.resolve(name, variant)
        except (ModelNotInstalled, ModelCorrupt):
            return None
        return self._describe(self.manifest(found.name, found.variant))

    def pulling(self, name: str) -> bool:
        """Whether the model is being installed now, by this process or another."""
        return self.space.held(f"{name}--")

    def resolve(self, name: str, variant: str | None = None) -> LocalModel:
        """The files of a model, each known to be what it was when it was installed.

        Without `variant`: the one that is here; of several int4, else the first by name, those that were made for one
        backend ("int4-mlc") last. A file is hashed only if it changed since it was last hashed.

        Raises:
            ModelNotInstalled, ModelCorrupt (also for native code that was not built or pinned here), StoreError.
        """
        found = self.manifest(name, variant)
        for file, path in zip(found.files, self._paths(found), strict=True):
            self._check(_label(found, file), _repair(found.name, found.variant), file, path, full=file.code is not None)
            with store_errors("read", self.root):
                compiled.check(self.space, found, file, path)
        paths = tuple(str(path) for path in self._paths(found))
        return LocalModel(found.name, found.variant, found.format, paths[0], _digest(found), paths)

    def from_path(self, path: Path | str) -> LocalModel:
        """A model that lies anywhere, a file or a folder; told by its content. Its digests are remembered here.

        Raises:
            ModelNotInstalled: there is no such file. ModelCorrupt: it is no model, or there is native code in it.
        """
        return elsewhere.resolve(self.space, Path(path).absolute())

    def manifest(self, name: str, variant: str | None = None) -> Manifest:
        """What is written down of a model; the files are not looked at. Errors as `resolve`."""
        name, variant = split_name(name, variant)
        if variant is None:
            here = [entry[1] for entry in self._entries() if entry[0] == name]
            variant = min(here, key=_order, default="int4")
        with store_errors("read", self.root):
            try:
                data = self.space.manifest(name, variant).read_bytes()
            except (FileNotFoundError, NotADirectoryError) as error:
                raise ModelNotInstalled(
                    f"the model {name}:{variant} is not installed", model=name, hint=f"ondevice models pull {name}"
                ) from error
        try:
            found = manifest.parse(data)
        except StoreError as error:
            raise ModelCorrupt(f"{error.message} ({name}:{variant})", hint=_repair(name, variant)) from error
        if (found.name, found.variant) != (name, variant):
            raise ModelCorrupt(f"the manifest of {name}:{variant} is of another model", hint=_repair(name, variant))
        return found

    def verify(self, name: str | None = None, variant: str | None = None) -> tuple[VerifyResult, ...]:
        """Read and hash every byte of the models (all of them by default).

        Raises:
            ModelNotInstalled: `name` is not here.
        """
        if name is not None:
            name, variant = split_name(name, variant)
        chosen = [e for e in self._entries() if name in (None, e[0]) and variant in (None, e[1])]
        if name is not None and not chosen:
            raise ModelNotInstalled(f"the model {name} is not installed", model=name)
        return tuple(self._verify(*entry) for entry in chosen)

    # --- writing --------------------------------------------------------------------------------------------------

    def add(
        self,
        path: Path | str,
        *,
        name: str | None = None,
        variant: str | None = None,
        licence: str | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> InstalledModel:
        """Copy a model file (with its other splits), or an adapter, into the store.

        Without `name` it is named after the file, without `variant` after the precision that its header tells.

        Raises:
            ModelNotInstalled: there is no such file. ModelCorrupt: it is no model. ConfigurationError: a name that
                cannot be used, or an adapter that shall be a variant.
            StoreError: another model has this name, or there is no room.
        """
        originals = elsewhere.siblings(Path(path).absolute())
        kinds = [formats.inspect(each) for each in originals]
        stem = originals[0].stem if len(originals) == 1 else originals[0].stem.rsplit("-", 3)[0]
        name, suffix = split_name(slug(stem) if name is None else name, variant)
        variant = suffix or kinds[0].precision
        if kinds[0].format == lora.FORMAT and variant != lora.VARIANT:
            raise ConfigurationError("an adapter has a name and no variant")
        with self.space.lock(f"{name}--{variant}"), self.space.session() as work:
            require_room(work, sum(each.stat().st_size for each in originals))
            copies: dict[str, Path] = {}
            with store_errors("copy a model", self.root):
                for each in originals:
                    copy = work / str(len(copies))
                    copy_file(each, copy, on_bytes)
                    copies[_file_name(each.name)] = copy
            return self.install(
                copies, work, name=name, variant=variant, source=f"file:{originals[0]}", licence=licence or "unknown"
            )

    def install(
        self,
        files: Mapping[str, Path],
        work: Path,
        *,
        name: str,
        variant: str,
        source: str,
        licence: str,
        accepted_at: str | None = None,
        digest_origin: DigestOrigin = "first_use",
        replace: bool = False,
        quantised: tuple[Recipe, Quality] | None = None,
    ) -> InstalledModel:
        """Make finished files (original name -> place on the store's disk) a model; call with its lock held.

        Raises:
            ModelCorrupt: they are no model. StoreError: another model has this name, and not `replace`.
        """
        kinds = [formats.inspect(path) for path in files.values()]
        with store_errors("hash a file", self.root):
            described = tuple(ModelFile(hash_file(path), path.stat().st_size, n) for n, path in files.items())
        made = Manifest(
            name=name,
            variant=variant,
            format=kinds[0].format,
            files=described,
            source="".join(c if c.isprintable() else "?" for c in source)[:4096],
            licence=licence,
            accepted_at=accepted_at,
            installed_at=now(),
            digest_origin=digest_origin,
            recipe=None if quantised is None else quantised[0].digest,
        )
        manifest.parse(made.to_bytes())  # what could not be read back is not written
        self._refuse_kind(made)
        if not replace:
            self.refuse_other(made)
        records = {} if quantised is None else recipes.files(self.space, *quantised, described[0].digest)
        self.commit([made], dict(zip((f.digest for f in described), files.values(), strict=True)), work, records)
        return self._describe(made)

    def refuse_other(self, made: Manifest) -> None:
        """Raise StoreError if another model is installed under this name and variant, or an adapter under its name."""
        self._refuse_kind(made)
        with contextlib.suppress(ModelNotInstalled, ModelCorrupt):
            here = self.manifest(made.name, made.variant)
            if [f.digest for f in here.files] != [f.digest for f in made.files]:
                raise StoreError(
                    f"another model is installed as {made.name}:{made.variant}",
                    hint=f"choose another name, or first: ondevice models remove {made.name}:{made.variant}",
                )

    def commit(
        self,
        manifests: Sequence[Manifest],
        files: Mapping[str, Path],
        work: Path,
        records: Mapping[Path, bytes] | None = None,
    ) -> None:
        """Move checked files (by digest) to their places, then write the manifests: a crash leaves no half model.

        `records` are small files that belong to the manifests, by their places.
        """
        with store_errors("write", self.root):
            for path in files.values():
                settle(path)
            with self.space.lock("commit"):
                private_dir(self.space.blobs)
                for digest, path in files.items():
                    path.replace(self.space.blob(digest))
                sync_dir(self.space.blobs)
                for place, data in (records or {}).items():
                    private_dir(place.parent)
                    write_durably(place, data, work / place.name)
                for made in manifests:
                    if len(made.files) > 1:
                        self._link(made, work)
                    target = self.space.manifest(made.name, made.variant)
                    private_dir(target.parent)
                    write_durably(target, made.to_bytes(), work / f"{made.name}--{made.variant}.json")
                self._collect()
                for digest in files:  # after the links, which change the times of a file
                    self.space.stamp(digest, self.space.blob(digest), digest)

    def removal(self, name: str, variant: str | None = None) -> Removal:
        """Plan to remove a variant, or all variants of a model.

        Raises:
            ModelNotInstalled: there is nothing to remove.
        """
        name, variant = split_name(name, variant)
        gone = tuple(entry for entry in self._entries() if entry[0] == name and variant in (None, entry[1]))
        if not gone:
            raise ModelNotInstalled(f"the model {name} is not installed", model=name)
        others = self._readable([entry for entry in self._entries() if entry not in gone])
        kept = {file.digest for found in others for file in found.files}
        freed = {f.digest: f.size for found in self._readable(gone) for f in found.files if f.digest not in kept}
        copies = [copy.file for entry in gone if (copy := self.copies.find(*entry)) is not None]
        freed |= {file.digest: file.size for file in copies if file is not None and file.digest not in kept}
        return Removal(self, gone, sum(freed.values()))

    # --- inside ---------------------------------------------------------------------------------------------------

    def _entries(self) -> list[tuple[str, str]]:
        with store_errors("read", self.root):
            return sorted((path.parent.name, path.stem) for path in self.space.manifests.glob("*/*.json"))

    def _readable(self, entries: Sequence[tuple[str, str]]) -> list[Manifest]:
        found = []
        for entry in entries:
            with contextlib.suppress(ModelCorrupt, ModelNotInstalled):
                found.append(self.manifest(*entry))
        return found

    def _refuse_kind(self, made: Manifest) -> None:
        here = self._readable([entry for entry in self._entries() if entry[0] == made.name])
        if any((each.format == lora.FORMAT) != (made.format == lora.FORMAT) for each in here):
            raise StoreError(f"{made.name} is the name of both a model and an adapter", hint="choose another name")

    def _forget(self, entries: Sequence[tuple[str, str]]) -> None:
        with store_errors("remove", self.root), self.space.lock("commit"):
            for entry in entries:
                path = self.space.manifest(*entry)
                path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # other variants are in it
                    path.parent.rmdir()
            self._collect()

    def _collect(self) -> None:
        """Delete what no manifest names: of removed or replaced models, or of a crash. Call with the commit lock."""
        entries = self._entries()
        readable = self._readable(entries)
        if len(readable) != len(entries):  # what a damaged manifest needs is unknown
            return
        recipes.sweep(self.space, readable)
        needed = {file.digest for found in readable for file in found.files} | derived.sweep(self.space, readable)
        for blob in self.space.blobs.glob("*"):
            if blob.name not in needed:
                blob.unlink()
                self.space.unstamp(blob.name)
        sets = {_set_key(found) for found in readable}
        for directory in self.space.sets.glob("*"):
            if directory.name not in sets:
                shutil.rmtree(directory, ignore_errors=True)

    def _paths(self, found: Manifest) -> tuple[Path, ...]:
        if len(found.files) == 1:
            return (self.space.blob(found.files[0].digest),)
        directory = self.space.sets / _set_key(found)
        return tuple(directory / file.name for file in found.files)

    def _describe(self, found: Manifest) -> InstalledModel:
        copy = self.copies.find(found.name, found.variant)
        return InstalledModel(
            found.name,
            found.variant,
            found.format,
            found.size,
            _digest(found),
            str(self._paths(found)[0]),
            found.installed_at,
            found.licence,
            found.source,
            found.digest_origin,
            None if copy is None else derived.describe(self.space, copy),
            tuple(NativeCode(file.name, file.digest, file.code) for file in found.files if file.code is not None),
            recipes.describe(self.space, found),
        )

    def _check(self, label: str, hint: str | None, file: ModelFile, path: Path, *, full: bool = False) -> None:
        with store_errors("read", self.root):
            try:
                size = path.stat().st_size
            except FileNotFoundError as error:
                raise ModelCorrupt(f"{label} is missing", expected=file.digest, hint=hint) from error
            known = None if full or size != file.size else self.space.stamped(file.digest, path)
            actual = known or hash_file(path)
        if actual != file.digest:
            self.space.unstamp(file.digest)
            raise ModelCorrupt(f"{label} has changed on the disk", expected=file.digest, actual=actual, hint=hint)
        if known is None:
            self.space.stamp(file.digest, path, actual)

    def _verify(self, name: str, variant: str) -> VerifyResult:
        try:
            found = self.manifest(name, variant)
            for file, path in zip(found.files, self._paths(found), strict=True):
                self._check(_label(found, file), _repair(name, variant), file, path, full=True)
                with store_errors("read", self.root):
                    compiled.check(self.space, found, file, path)
            copy = self.copies.find(name, variant)
            if copy is not None and copy.file is not None:
                label, hint = f"the optimised copy of {name}:{variant}", f"ondevice models optimise {name}:{variant}"
                self._check(label, f"{hint} --again", copy.file, self.space.blob(copy.file.digest), full=True)
        except (ModelCorrupt, ModelNotInstalled) as error:
            expected, actual = getattr(error, "expected", None), getattr(error, "actual", None)
            return VerifyResult(name, variant, ok=False, reason=error.message, expected=expected, actual=actual)
        return VerifyResult(name, variant, ok=True)

    def _link(self, made: Manifest, work: Path) -> None:
        """Give the files of a split model the names by which a runtime finds the others."""
        fresh = private_dir(work / "set")
        for file in made.files:
            try:
                (fresh / file.name).hardlink_to(self.space.blob(file.digest))
            except OSError:  # a file system without hard links
                (fresh / file.name).symlink_to(self.space.blob(file.digest))
        target = self.space.sets / _set_key(made)
        shutil.rmtree(target, ignore_errors=True)
        private_dir(target.parent)
        fresh.replace(target)
        sync_dir(target.parent)


def now() -> str:
    """This moment, UTC, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _order(variant: str) -> tuple[bool, bool, str]:
    return "-" in variant, variant != "int4", variant


def _digest(found: Manifest) -> str:
    return joint_digest([file.digest for file in found.files])


def _repair(name: str, variant: str) -> str:
    return f"ondevice models pull {name}:{variant}"


def _label(found: Manifest, file: ModelFile) -> str:
    return f"{file.name} of {found.name}:{found.variant}"


def _set_key(found: Manifest) -> str:
    return hashlib.sha256("\n".join(f"{f.digest} {f.name}" for f in found.files).encode()).hexdigest()


def _file_name(name: str) -> str:
    return name if is_file_name(name) else f"{slug(name)}"
