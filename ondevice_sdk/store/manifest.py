"""What the store writes down of an installed model, as JSON that is checked when it is read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from ondevice_sdk.errors import ConfigurationError, StoreError
from ondevice_sdk.store.files import DIGEST, check_name, is_file_name
from ondevice_sdk.store.formats import is_code_name

SCHEMA = 1
MAX_BYTES = 1 << 20
DigestOrigin = Literal["catalogue", "first_use"]
CodeOrigin = Literal["built", "pinned"]


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file of a model: its SHA-256, its size in bytes, the name that it had where it came from.

    `code` is None for data. For native code it says why it may be loaded: this installation `built` it, or the app
    `pinned` its digest; `mark` proves that this installation wrote that.
    """

    digest: str
    size: int
    name: str
    code: CodeOrigin | None = None
    mark: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """An installed variant. Times are UTC in ISO 8601.

    `digest_origin` says who vouches for the digests: the catalogue, or nobody but the first download. `recipe` is the
    SHA-256 of all that went into a model that was built here; the same recipe needs no second build.
    """

    name: str
    variant: str
    format: str
    files: tuple[ModelFile, ...]
    source: str
    licence: str
    accepted_at: str | None
    installed_at: str
    digest_origin: DigestOrigin
    recipe: str | None = None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def to_mapping(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return {"schema": SCHEMA, **asdict(self)}

    def to_bytes(self) -> bytes:
        """The JSON text, the same for the same manifest."""
        return json.dumps(self.to_mapping(), indent=1, sort_keys=True).encode()


def parse(data: bytes) -> Manifest:
    """Read a manifest back.

    Raises:
        StoreError: it is damaged, or of a newer version of the SDK.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise StoreError("a manifest of the store is damaged") from error
    return from_value(value)


def from_value(value: object) -> Manifest:
    """Check parsed JSON; the same errors as `parse`."""
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise StoreError("a manifest of the store is damaged, or of a newer version")
    files = value.get("files")
    if not isinstance(files, list) or not 0 < len(files) <= 1000:
        raise StoreError("a manifest of the store names no files")
    origin = _text(value, "digest_origin")
    if origin not in ("catalogue", "first_use"):
        raise StoreError("a manifest of the store is damaged: digest_origin")
    accepted, recipe = value.get("accepted_at"), value.get("recipe")
    if recipe is not None and (not isinstance(recipe, str) or DIGEST.fullmatch(recipe) is None):
        raise StoreError("a manifest of the store is damaged: recipe")
    manifest = Manifest(
        name=_word(value, "name"),
        variant=_word(value, "variant"),
        format=_word(value, "format"),
        files=tuple(_file(item) for item in files),
        source=_text(value, "source"),
        licence=_text(value, "licence"),
        accepted_at=None if accepted is None else _text(value, "accepted_at"),
        installed_at=_text(value, "installed_at"),
        digest_origin="catalogue" if origin == "catalogue" else "first_use",
        recipe=recipe,
    )
    if len({file.name.lower() for file in manifest.files}) != len(manifest.files):
        raise StoreError("a manifest of the store names a file twice")
    return manifest


def _text(value: Mapping[str, object], key: str) -> str:
    text = value.get(key)
    if not isinstance(text, str) or len(text) > 4096 or not text.isprintable():
        raise StoreError(f"a manifest of the store is damaged: {key}")
    return text


def _word(value: Mapping[str, object], key: str) -> str:
    try:
        return check_name(_text(value, key), key)
    except ConfigurationError as error:
        raise StoreError(f"a manifest of the store is damaged: {key}") from error


def _file(value: object) -> ModelFile:
    if not isinstance(value, dict):
        raise StoreError("a manifest of the store is damaged: files")
    digest, size, name = value.get("digest"), value.get("size"), value.get("name")
    if not isinstance(digest, str) or DIGEST.fullmatch(digest) is None:
        raise StoreError("a manifest of the store is damaged: digest")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 50:
        raise StoreError("a manifest of the store is damaged: size")
    if not isinstance(name, str) or not is_file_name(name):
        raise StoreError("a manifest of the store is damaged: file name")
    code, mark = value.get("code"), value.get("mark")
    if code not in (None, "built", "pinned") or (code is None) != (mark is None):
        raise StoreError("a manifest of the store is damaged: code")
    if mark is not None and (not isinstance(mark, str) or DIGEST.fullmatch(mark) is None):
        raise StoreError("a manifest of the store is damaged: mark")
    if code is None and is_code_name(name):
        raise StoreError("a manifest of the store names native code that nobody vouches for")
    return ModelFile(digest, size, name, code, mark)
