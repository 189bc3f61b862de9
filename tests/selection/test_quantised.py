"""Variants that were quantised here: of several of one source the nearer one is never worth less."""

from __future__ import annotations

import dataclasses
import json
from typing import get_args

import pytest

from ondevice_sdk.catalogue import Artifact, ModelSpec, Variant
from ondevice_sdk.catalogue.spec import Divergence
from ondevice_sdk.selection import Need, record, replay, select
from ondevice_sdk.selection.score import effective_quality
from ondevice_sdk.types import Prefer

from .support import MB, device, estimate, offer, spec

LISTED = spec("m", 500 * MB, 0.5)
SOURCE = "a" * 64


def made(how: str, kl: float, *, size: int = 310 * MB, source: str = "f16", sha256: str = SOURCE) -> Variant:
    return Variant(
        f"int4-{how}", "gguf", "Q4_0", 0.0, (Artifact("installed", size),), divergence=Divergence(kl, source, sha256)
    )


def model(*variants: Variant) -> ModelSpec:
    return dataclasses.replace(LISTED, variants=(*LISTED.variants, *variants))


PLAIN, NEARER = made("plain", 0.3), made("presinq-imatrix", 0.1, size=310 * MB + 2000)
BOTH = model(PLAIN, NEARER)


@pytest.mark.parametrize("prefer", get_args(Prefer))
@pytest.mark.parametrize("model", [BOTH, dataclasses.replace(BOTH, variants=(NEARER, PLAIN), quality=1.0)])
def test_the_nearer_one_comes_first(prefer: Prefer, model: ModelSpec) -> None:
    found = select(device(), [model], [offer()], frozenset(), Need(prefer=prefer, model="m"))
    order = [each.variant for each in found.candidates if each.variant.startswith("int4-")]
    if prefer != "memory":  # there 2,000 bytes may decide
        assert order == ["int4-presinq-imatrix", "int4-plain"]
    said = json.loads(json.dumps(record(device(), [model], [offer()], frozenset(), Need(prefer=prefer, model="m"))))
    assert replay(said, {offer().name: estimate}) == found


def test_the_farthest_loses_what_is_usual_and_others_in_proportion() -> None:
    usual = 0.5 * (1 - 0.06)  # of Q4_0
    assert effective_quality(BOTH, PLAIN) == pytest.approx(usual)
    assert effective_quality(BOTH, NEARER) == pytest.approx(0.5 * (1 - 0.06 / 3))
    assert effective_quality(model(NEARER), NEARER) == pytest.approx(usual)
    exact = made("same", 0.0)
    assert effective_quality(model(exact), exact) == pytest.approx(usual)


def test_what_was_made_of_other_files_is_not_compared() -> None:
    other = made("imatrix", 0.001, sha256="b" * 64)
    assert effective_quality(model(PLAIN, other), other) == effective_quality(model(PLAIN, other), PLAIN)


def test_what_was_quantised_twice_loses_twice() -> None:
    again = made("presinq-imatrix", 0.1, source="int4")
    farther = made("plain", 0.3, source="int4")
    family = model(again, farther)
    listed = family.variant("int4")
    assert effective_quality(family, farther) < effective_quality(family, again) < effective_quality(family, listed)
