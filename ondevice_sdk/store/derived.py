"""Copies of installed models in a form that suits this processor better: made here, never fetched, made again at will.

A record says of which file a copy was made, on which processor and with which library it was the fastest, and what it
costs in exactness. A record without a file says that nothing was faster. The file is a blob like any other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ondevice_sdk.catalogue.plain import build
from ondevice_sdk.errors import ConfigurationError, StoreError
from ondevice_sdk.intervals import Interval
from ondevice_sdk.store.files import DIGEST, check_name, is_file_name
from ondevice_sdk.store.manifest import MAX_BYTES, Manifest, ModelFile
from ondevice_sdk.store.workspace import Workspace
from ondevice_sdk.types import DeviceProfile

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class MeasuredOn:
    """Where a layout was found to be the fastest; anywhere else another one may be."""

    machine: str
    cpu_name: str
    instruction_sets: tuple[str, ...]
    backend: str
    library: str  # "llama.cpp 0.3.36"

    @classmethod
    def here(cls, device: DeviceProfile, backend: str, library: str) -> MeasuredOn:
        """This processor, with a backend and its library."""
        return cls(device.machine, device.cpu_name, device.instruction_sets, backend, library)


@dataclass(frozen=True, slots=True)
class SpeedUp:
    """How many times as fast as its source a copy is; the intervals are drawn from interleaved rounds.

    Attributes:
        prompt: processing a prompt of about 400 tokens.
        decode: writing one stream.
        batched: writing eight streams together.
        score: the three in one figure, by which copies are compared.
    """

    prompt: Interval
    decode: Interval
    batched: Interval
    score: Interval


@dataclass(frozen=True, slots=True)
class Derived:
    """A record. `made_from` is the SHA-256 of the model's file; without `file` nothing was faster than that.

    `kl` is the mean of KL(source || copy) over tokens, in nats.
    """

    name: str
    variant: str
    made_from: str
    measured_on: MeasuredOn
    layout: str  # formats of the matrices, that of most weights first
    made_at: str
    file: ModelFile | None = None
    kl: Interval | None = None
    speed_up: SpeedUp | None = None

    def is_of(self, found: Manifest) -> bool:
        """Whether it was made of this very model."""
        same = (self.name, self.variant) == (found.name, found.variant)
        return same and [file.digest for file in found.files] == [self.made_from]

    def to_bytes(self) -> bytes:
        """The JSON text."""
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=1, sort_keys=True).encode()


@dataclass(frozen=True, slots=True)
class OptimisedCopy:
    """A copy of an installed model that is faster on this processor. `size` is in bytes, `made_at` UTC.

    A client uses it by itself where `measured_on` is the processor and library that it runs with.
    """

    layout: str
    size: int
    sha256: str
    path: str
    kl: Interval
    speed_up: SpeedUp
    measured_on: MeasuredOn
    made_at: str


def describe(space: Workspace, found: Derived) -> OptimisedCopy | None:
    """The public description of a record; None where nothing was faster."""
    if found.file is None or found.kl is None or found.speed_up is None:
        return None
    file = found.file
    path = str(space.blob(file.digest))
    return OptimisedCopy(
        found.layout, file.size, file.digest, path, found.kl, found.speed_up, found.measured_on, found.made_at
    )


def read(space: Workspace, name: str, variant: str) -> Derived | None:
    """The record of a model; None if there is none, or it is damaged: a copy can be made again."""
    try:
        with place(space, name, variant).open("rb") as file:
            found = parse(file.read(MAX_BYTES))
    except (OSError, StoreError):
        return None
    return found if (found.name, found.variant) == (name, variant) else None


def parse(data: bytes) -> Derived:
    """Read a record back.

    Raises:
        StoreError: it is damaged, or of another version.
    """
    try:
        value = json.loads(data)
        if not isinstance(value, dict) or value.pop("schema", None) != SCHEMA:
            raise ConfigurationError("of another version")
        found = build(Derived, value, "record")
        check_name(found.name)
        check_name(found.variant, "variant")
    except (ValueError, RecursionError) as error:  # ConfigurationError is a ValueError
        raise StoreError("the record of an optimised copy is damaged") from error
    if not _is_plausible(found):
        raise StoreError("the record of an optimised copy is damaged")
    return found


def sweep(space: Workspace, installed: Sequence[Manifest]) -> set[str]:
    """Delete the records whose source is gone or another one, and those that are damaged; the digests of the rest."""
    needed: set[str] = set()
    for path in space.optimised.glob("*/*.json"):
        found = read(space, path.parent.name, path.stem)
        if found is None or not any(map(found.is_of, installed)):
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # other variants are in it
                path.parent.rmdir()
        elif found.file is not None:
            needed.add(found.file.digest)
    return needed


def _is_plausible(found: Derived) -> bool:
    texts = (found.layout, found.made_at, found.measured_on.library)
    if DIGEST.fullmatch(found.made_from) is None or not all(text.isprintable() and len(text) < 200 for text in texts):
        return False
    if found.file is None:
        return True
    if found.kl is None or found.speed_up is None or found.file.code is not None:
        return False
    speeds = (found.speed_up.prompt, found.speed_up.decode, found.speed_up.batched, found.speed_up.score)
    numbers = [number for each in (found.kl, *speeds) for number in (each.value, each.low, each.high)]
    return (
        DIGEST.fullmatch(found.file.digest) is not None
        and found.file.size >= 0
        and is_file_name(found.file.name)
        and all(math.isfinite(number) and number >= 0 for number in numbers)
        and all(each.value > 0 for each in speeds)
    )


def place(space: Workspace, name: str, variant: str) -> Path:
    """Where the record of a model lies."""
    return space.optimised / name / f"{variant}.json"
