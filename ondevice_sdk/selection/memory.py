"""The memory plan: with which context, cache and number of sequences a model fits, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from ondevice_sdk.backends.api import PREFIX_CACHE_BYTES, Footprint, KvType, LoadOptions
from ondevice_sdk.catalogue.spec import ModelSpec, Variant
from ondevice_sdk.selection.need import BackendOffer, Need
from ondevice_sdk.types import DeviceProfile

LEAST_MARGIN: Final = 40_000_000  # bytes of the available memory that are never planned with,
MARGIN_SHARE: Final = 0.1  # or this share of it where that is more
CONTEXTS: Final = (8192, 4096)  # tokens; the first that fits is used where the app asks for no particular one
EMBED_CONTEXTS: Final = (2048, 512, 256)  # to embed: what is longer is read in parts, and memory grows with the square
SEQUENCES: Final = 16  # at a time: a tenth faster than 8 in sum, in parts of the cache of their own
PREFIX_CACHE_SHARE: Final = 0.25  # of what a model leaves free: most that it remembers of finished requests
LEAST_SHARE: Final = 256  # tokens of the context for each of them


@dataclass(frozen=True, slots=True)
class Plan:
    """How to load a model, and the memory that its worker then takes at its peak."""

    options: LoadOptions
    footprint: Footprint
    fits: bool

    @property
    def memory_bytes(self) -> int:
        """All of it."""
        return self.footprint.total


def plan(device: DeviceProfile, spec: ModelSpec, variant: Variant, offer: BackendOffer, need: Need) -> Plan:
    """How to load a model: with the context that the app asked for, else the largest of a few that fits.

    Where memory is preferred to be saved, the context is no larger than the task requires. Where only a KV cache of
    fewer bits makes the required context fit, it has those. The plan with the required context and the most exact cache
    is given, with `fits` false, where nothing fits.
    """
    usable = usable_memory(device)
    first: Plan | None = None
    for options in _ways(spec, offer, need):
        footprint = offer.estimate(spec.shape, variant.size(spec.shape), options)
        left = max(0, usable - footprint.total)
        options = replace(options, prefix_cache_bytes=min(PREFIX_CACHE_BYTES, int(PREFIX_CACHE_SHARE * left)))
        made = Plan(options, footprint, footprint.total <= usable)
        if made.fits:
            return made
        if options.kv_type == offer.kv_types[0]:
            first = made  # the last of these has the required context
    assert first is not None
    return first


def usable_memory(device: DeviceProfile) -> int:
    """Bytes that may be planned with: what is available now, less a margin for everybody else."""
    available = device.memory_available_bytes
    return max(0, available - max(LEAST_MARGIN, int(available * MARGIN_SHARE)))


def _ways(spec: ModelSpec, offer: BackendOffer, need: Need) -> Iterator[LoadOptions]:
    """Ways to load the model, the most comfortable first."""
    longest = spec.shape.context_tokens
    required = need.required_context
    if need.context is None and need.tokens is None:
        required = min(required, longest)
    if need.context is None and (need.prefer != "memory" or spec.embeds):
        for context in EMBED_CONTEXTS if spec.embeds else CONTEXTS:
            if required < context <= longest:
                yield _options(context, offer.kv_types[0])
    for kind in offer.kv_types:
        yield _options(required, kind)


def _options(context: int, kind: KvType) -> LoadOptions:
    return LoadOptions(context, max(1, min(SEQUENCES, context // LEAST_SHARE)), kv_type=kind)
