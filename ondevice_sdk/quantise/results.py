"""What `models.optimise` and `models.quantise` give back."""

from __future__ import annotations

from dataclasses import dataclass

from ondevice_sdk.intervals import Interval
from ondevice_sdk.store.derived import SpeedUp
from ondevice_sdk.store.recipes import Method, Quality


@dataclass(frozen=True, slots=True)
class Tried:
    """A layout that was tried, and what was found: the figures as far as they were needed."""

    layout: str
    verdict: str
    size: int
    kl: Interval | None = None
    speed_up: SpeedUp | None = None


@dataclass(frozen=True, slots=True)
class Optimised:
    """What `models.optimise` found: the file that clients use from now on, on this processor.

    Attributes:
        name: of the model.
        variant: of the model; a copy belongs to it and is none of its own.
        layout: formats of the matrices, that with most weights first.
        path: the copy, or the model's own file where nothing is faster.
        sha256: of that file.
        size: of that file, in bytes.
        source_sha256: of the model's own file.
        made: this call made the copy; False where one was there, or nothing is faster.
        reason: in words.
        kl: mean KL(source || copy) over tokens, in nats; None without a copy.
        speed_up: how many times as fast as the source; None without a copy.
        tried: what this call tried, in order.
    """

    name: str
    variant: str
    layout: str
    path: str
    sha256: str
    size: int
    source_sha256: str
    made: bool
    reason: str
    kl: Interval | None = None
    speed_up: SpeedUp | None = None
    tried: tuple[Tried, ...] = ()


@dataclass(frozen=True, slots=True)
class Quantised:
    """What `models.quantise` made: an installed model of its own, beside the one that it was made of.

    Attributes:
        name: of the model.
        variant: of the model: the precision and the method, such as `int4-presinq-imatrix`.
        path: the file.
        sha256: of that file.
        size: of that file, in bytes.
        source: what it was made of, as `name:variant`.
        method: what was asked for.
        used: what it was made with: without pre-SINQ where that would have made it worse.
        quantisation: such as Q4_0.
        requantised: the source had been quantised before: what is made cannot be better than it.
        recipe: SHA-256 of the recipe, which lies in the store.
        quality: what it cost, with intervals; None where the record was damaged.
        made: this call made it; False where it was there.
    """

    name: str
    variant: str
    path: str
    sha256: str
    size: int
    source: str
    method: Method
    used: Method
    quantisation: str
    requantised: bool
    recipe: str
    quality: Quality | None
    made: bool
