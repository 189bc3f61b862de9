"""What the store tells of its models."""

from __future__ import annotations

from dataclasses import dataclass

from ondevice_sdk.store.derived import OptimisedCopy
from ondevice_sdk.store.manifest import CodeOrigin, DigestOrigin
from ondevice_sdk.store.recipes import Provenance


@dataclass(frozen=True, slots=True)
class NativeCode:
    """A compiled library of a model, and why it may be loaded: it was `built` here, or `pinned` by its digest."""

    name: str
    sha256: str
    origin: CodeOrigin


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model in the store. `size` is in bytes, `sha256` that of its file or `joint_digest`, `installed_at` UTC.

    `optimised` is its copy in a layout that is faster on a processor, if one was made; `code` is what of it is native;
    `quantised` says how it was made, if that was done here.
    """

    name: str
    variant: str
    format: str
    size: int
    sha256: str
    path: str
    installed_at: str
    licence: str
    source: str
    digest_origin: DigestOrigin
    optimised: OptimisedCopy | None = None
    code: tuple[NativeCode, ...] = ()
    quantised: Provenance | None = None


@dataclass(frozen=True, slots=True)
class InstalledAdapter:
    """A LoRA adapter in the store. `size` is in bytes, `installed_at` UTC.

    It changes `matrices` matrices of models of an architecture, by products of the `rank`, of the largest. Without an
    architecture its file is damaged.
    """

    name: str
    format: str
    size: int
    sha256: str
    path: str
    installed_at: str
    licence: str
    source: str
    architecture: str
    rank: int
    matrices: int


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What a full look at a model found. The digests are those of the first file that is not right."""

    name: str
    variant: str
    ok: bool
    reason: str = ""
    expected: str | None = None
    actual: str | None = None
