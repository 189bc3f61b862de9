"""One number for a candidate, so that what an app prefers becomes an order.

Four figures between 0 and 1, each absolute (none depends on the other candidates, so that leaving one out never turns
the order of two others round), and a weight for each by preference:

    quality  the catalogue's figure, less what the quantisation loses
    speed    the time to a whole typical answer: 1 at 2 s or less, 0 at 60 s or more, logarithmic between
    memory   bytes of the loaded model: 1 at 300 MB, 0 at 8 GB, logarithmic between
    thrift   bytes moved per token, which is most of the energy: 1 at 100 MB, 0 at 4 GB, logarithmic between
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ondevice_sdk.catalogue.spec import ModelSpec, Variant
from ondevice_sdk.types import Prefer

TYPICAL_ANSWER = 200  # tokens

# Share of the quality that a quantisation costs. The order follows the perplexities that llama.cpp's quantisation
# tool prints (7B: Q8_0 +0.0004, Q4_K_M +0.0532, Q4_1 +0.1585, Q4_0 +0.2166); the sizes are judged, not measured: larger
# than the perplexity's share, as small models lose more.
_LOSS = {"Q8_0": 0.002, "Q4_K_M": 0.03, "Q4_1": 0.05, "Q4_0": 0.06}
_OTHER_LOSS = {"int4": 0.05, "int8": 0.005, "f16": 0.0}
# Of what was made on a device for another backend, mostly out of a file that is quantised already, in groups with a
# scale and nothing else. SmolLM2 made out of Q4_1: KL 0.26 nats a token in 4 bits, where requantising to Q4_0 costs as
# much and 23 percent of perplexity; 0.005 in 8 bits.
_MADE_LOSS = {"int4": 0.15, "int8": 0.01}


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each figure counts; they sum to 1."""

    quality: float
    speed: float
    memory: float
    thrift: float


WEIGHTS: dict[Prefer, Weights] = {
    "quality": Weights(quality=0.96, speed=0.02, memory=0.01, thrift=0.01),
    "balanced": Weights(quality=0.50, speed=0.40, memory=0.10, thrift=0.0),
    "speed": Weights(quality=0.20, speed=0.70, memory=0.0, thrift=0.10),
    "memory": Weights(quality=0.20, speed=0.10, memory=0.70, thrift=0.0),
    "battery": Weights(quality=0.25, speed=0.10, memory=0.05, thrift=0.60),
}

ON_BATTERY = Weights(quality=0.40, speed=0.25, memory=0.10, thrift=0.25)


def score(
    prefer: Prefer,
    *,
    quality: float,
    answer_seconds: float,
    memory_bytes: float,
    bytes_per_token: float,
    on_battery: bool = False,
) -> float:
    """The weighted sum, 0 to 1; rounded, so that rounding errors decide nothing.

    On its battery, a device that is to balance everything saves some energy too.
    """
    weights = ON_BATTERY if on_battery and prefer == "balanced" else WEIGHTS[prefer]
    figures = (
        (weights.quality, quality),
        (weights.speed, _falling(answer_seconds, best=2.0, worst=60.0)),
        (weights.memory, _falling(memory_bytes, best=3e8, worst=8e9)),
        (weights.thrift, _falling(bytes_per_token, best=1e8, worst=4e9)),
    )
    return round(math.fsum(weight * figure for weight, figure in figures), 9)


def effective_quality(spec: ModelSpec, variant: Variant) -> float:
    """The model's quality after quantisation; of what was made here the loss that this costs."""
    return spec.quality * (1.0 - min(1.0, _measured_loss(spec, variant)))


def _measured_loss(spec: ModelSpec, variant: Variant) -> float:
    """Of what was quantised here out of the same file, what strays farthest loses what is usual, others in proportion.

    That comes on top of what the source has lost.
    """
    own = variant.divergence
    if own is None:
        return _loss(spec, variant)
    family = [
        (each, each.divergence.kl)
        for each in spec.variants
        if each.divergence is not None and (each.divergence.sha256, each.precision) == (own.sha256, variant.precision)
    ]
    farthest, most = max(family, key=lambda each: each[1])
    source = next((each for each in spec.variants if each.name == own.source and each.divergence is None), None)
    before = 0.0 if source is None else _loss(spec, source)
    return before + _loss(spec, farthest) * (own.kl / most if most > 0 else 1.0)


def _loss(spec: ModelSpec, variant: Variant) -> float:
    loss = _LOSS.get(variant.quantisation)
    if loss is None and variant.name != variant.precision:
        loss = _MADE_LOSS.get(variant.precision)
    if loss is None:
        listed = (each for each in spec.variants if each.name == variant.precision)
        loss = next((_LOSS[each.quantisation] for each in listed if each.quantisation in _LOSS), None)
    if loss is None:
        loss = _OTHER_LOSS.get(variant.precision, _OTHER_LOSS["int4"])
    return loss


def _falling(value: float, *, best: float, worst: float) -> float:
    """1 at `best` or below, 0 at `worst` or above, linear in the logarithm between."""
    position = math.log(max(value, 1e-12) / best) / math.log(worst / best)
    return min(1.0, max(0.0, 1.0 - position))
