"""How models that were quantised here were made, and what it cost them.

A recipe lies in the store under its own SHA-256, which the manifest of what was made names; beside it lies what was
measured of that very file. Both go when no manifest names the recipe any more.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

from ondevice_sdk.catalogue.plain import build
from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.intervals import Interval
from ondevice_sdk.store.files import DIGEST
from ondevice_sdk.store.manifest import MAX_BYTES, Manifest
from ondevice_sdk.store.workspace import Workspace

SCHEMA: Final = 1
Method: TypeAlias = Literal["plain", "presinq", "imatrix", "presinq+imatrix"]
_WORDS: Final = {"presinq": "pre-SINQ", "imatrix": "importance matrix"}
_LONGEST: Final = 300  # characters of a word


@dataclass(frozen=True, slots=True)
class Origin:
    """What a model was made of. `quantisation` is that of its matrices, such as BF16 or Q4_1."""

    name: str
    variant: str
    sha256: str
    quantisation: str


@dataclass(frozen=True, slots=True)
class CalibrationText:
    """The text that told which weights matter most: most `tokens` of it were read, in windows of `window` tokens."""

    sha256: str
    tokens: int
    window: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides what is made, and what then was done.

    Attributes:
        source: what it was made of.
        requantised: the source had been rounded to fewer than 16 bits before: what is made cannot be better than it.
        method: what was asked for.
        used: what the file was made with: without pre-SINQ where that would have made it worse.
        quantisation: in the words of the library, such as Q4_0.
        to: the precision, `int4` or `int8`.
        order: steps of the Sinkhorn iteration; None without pre-SINQ.
        block: columns that it balances at a time; None without pre-SINQ.
        calibration: None without an importance matrix.
        library: that wrote the file, with its version.
        sdk: the version of this one.
    """

    source: Origin
    requantised: bool
    method: Method
    used: Method
    quantisation: str
    to: str
    order: int | None
    block: int | None
    calibration: CalibrationText | None
    library: str
    sdk: str

    def to_bytes(self) -> bytes:
        """The canonical JSON text: the same for the same recipe."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical text."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def words(self) -> str:
        """For people: "Q4_0, pre-SINQ and importance matrix, from qwen3-0.6b:bf16"."""
        means = " and ".join(_WORDS[word] for word in self.used.split("+") if word in _WORDS) or "plain"
        again = " (requantised)" if self.requantised else ""
        return f"{self.quantisation}, {means}, from {self.source.name}:{self.source.variant}{again}"

    @property
    def scaled(self) -> bool:
        """Whether pre-SINQ was asked for."""
        return "presinq" in self.method

    def asks_for_the_same(self, other: Recipe) -> bool:
        """Whether the two differ at most in what came of it."""
        return replace(self, used=other.used) == other


@dataclass(frozen=True, slots=True)
class Trial:
    """Why pre-SINQ was kept or left: KL(source || rounded) with it and without it, in nats, on the calibration text.

    Both were rounded plainly for this, in the same format.
    """

    with_presinq: Interval
    without: Interval
    tokens: int
    kept: bool


@dataclass(frozen=True, slots=True)
class Quality:
    """What quantising cost, on a text that was not used for it; intervals are drawn from windows, paired.

    Attributes:
        perplexity: of what was made.
        source_perplexity: of the source, on the same tokens.
        perplexity_ratio: the first by the second; 1 is no loss.
        kl: mean over the tokens of KL(source || made) over the whole vocabulary, in nats; 0 is no difference.
        top1_agreement: share of the tokens at which both find the same token most likely.
        tokens: how many were scored, over all windows.
        windows: how many windows of `window` tokens were read; the second half of each was scored.
        window: tokens of one.
        text_sha256: of the text.
        requantised: the source was quantised itself: its own loss comes on top, and is not in these figures.
        self_check: largest relative difference of the logits after pre-SINQ, before rounding; None without.
        trial: None without pre-SINQ.
    """

    perplexity: Interval
    source_perplexity: Interval
    perplexity_ratio: Interval
    kl: Interval
    top1_agreement: Interval
    tokens: int
    windows: int
    window: int
    text_sha256: str
    requantised: bool
    self_check: float | None = None
    trial: Trial | None = None


@dataclass(frozen=True, slots=True)
class Provenance:
    """How an installed model was made here, and what was measured of it; `digest` is the recipe's SHA-256."""

    digest: str
    recipe: Recipe
    quality: Quality | None


@dataclass(frozen=True, slots=True)
class _Measured:
    schema: int
    made: str  # SHA-256 of the file
    quality: Quality


def files(space: Workspace, recipe: Recipe, quality: Quality, made: str) -> dict[Path, bytes]:
    """What is to be written for a file of the SHA-256 `made`, by where."""
    measured = json.dumps(asdict(_Measured(SCHEMA, made, quality)), indent=1, sort_keys=True).encode()
    parse(recipe.to_bytes(), recipe.digest)  # what could not be read back is not written
    return {_place(space, recipe.digest): recipe.to_bytes(), _place(space, recipe.digest, ".quality"): measured}


def read(space: Workspace, digest: str) -> Recipe | None:
    """The recipe of that digest; None if it is not here, or damaged."""
    try:
        return parse(_bytes(_place(space, digest)), digest)
    except (OSError, ConfigurationError):
        return None


def parse(data: bytes, digest: str) -> Recipe:
    """Read a recipe back.

    Raises:
        ConfigurationError: it is damaged, or another one.
    """
    if hashlib.sha256(data).hexdigest() != digest:
        raise ConfigurationError("the recipe is not the one that the manifest names")
    recipe = build(Recipe, _json(data), "recipe")
    source, text = recipe.source, recipe.calibration
    words = (source.name, source.variant, source.quantisation, recipe.quantisation, recipe.to, recipe.library)
    digests = [source.sha256, *([] if text is None else [text.sha256])]
    if not all(word.isprintable() and len(word) < _LONGEST for word in (*words, recipe.sdk)):
        raise ConfigurationError("the recipe is damaged")
    if not all(map(DIGEST.fullmatch, digests)):
        raise ConfigurationError("the recipe is damaged")
    return recipe


def describe(space: Workspace, found: Manifest) -> Provenance | None:
    """How a model was made, if it was quantised here and the record is whole."""
    if found.recipe is None or (recipe := read(space, found.recipe)) is None:
        return None
    return Provenance(found.recipe, recipe, _quality(space, found))


def sweep(space: Workspace, installed: Sequence[Manifest]) -> None:
    """Delete the records of recipes by which nothing is here any more."""
    needed = {found.recipe for found in installed}
    for path in space.recipes.glob("*.json"):
        if path.name.partition(".")[0] not in needed:
            path.unlink(missing_ok=True)


def _quality(space: Workspace, found: Manifest) -> Quality | None:
    assert found.recipe is not None
    try:
        measured = build(_Measured, _json(_bytes(_place(space, found.recipe, ".quality"))), "quality")
    except (OSError, ConfigurationError):
        return None
    quality, trial = measured.quality, measured.quality.trial
    intervals = [quality.perplexity, quality.source_perplexity, quality.perplexity_ratio, quality.kl]
    intervals += [quality.top1_agreement, *([] if trial is None else [trial.with_presinq, trial.without])]
    numbers = [number for each in intervals for number in (each.value, each.low, each.high)]
    whole = measured.schema == SCHEMA and [file.digest for file in found.files] == [measured.made]
    return quality if whole and all(number >= 0 and not math.isnan(number) for number in numbers) else None


def _place(space: Workspace, digest: str, what: str = "") -> Path:
    return space.recipes / f"{digest}{what}.json"


def _bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES)


def _json(data: bytes) -> object:
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError("a record of the store is damaged") from error
    return value
