"""Recipes in the store: under their own digest, with what was measured, gone with the model, not trusted if damaged."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from ondevice_sdk import models
from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.intervals import Interval
from ondevice_sdk.store import InstalledModel, Store, recipes
from ondevice_sdk.store.recipes import CalibrationText, Origin, Quality, Recipe, Trial

from .helpers import gguf, writable

ONE = Interval(1.5, 1.4, 1.6)
RECIPE = Recipe(
    source=Origin("tiny", "bf16", "0" * 64, "BF16"),
    requantised=False,
    method="presinq+imatrix",
    used="imatrix",
    quantisation="Q4_0",
    to="int4",
    order=16,
    block=64,
    calibration=CalibrationText("1" * 64, 8192, 512),
    library="llama.cpp 1",
    sdk="0.1",
)
QUALITY = Quality(ONE, ONE, ONE, ONE, ONE, 100, 4, 50, "2" * 64, requantised=False, self_check=1e-6,
                  trial=Trial(ONE, ONE, 50, kept=False))  # fmt: skip


def install(store: Store, folder: Path, recipe: Recipe = RECIPE, variant: str = "int4-imatrix") -> InstalledModel:
    with store.space.session() as work:
        path = work / "made"
        path.write_bytes(gguf(seed=variant.encode()))
        return store.install(
            {"tiny.gguf": path},
            work,
            name="tiny",
            variant=variant,
            source="quantised",
            licence="MIT",
            replace=True,
            quantised=(recipe, QUALITY),
        )


def records(store: Store) -> list[str]:
    return sorted(path.name for path in store.space.recipes.glob("*"))


def test_a_recipe_is_found_by_its_digest(store: Store, tmp_path: Path) -> None:
    made = install(store, tmp_path)
    known = made.quantised
    assert known is not None
    assert (known.recipe, known.quality, known.digest) == (RECIPE, QUALITY, RECIPE.digest)
    assert store.manifest("tiny", "int4-imatrix").recipe == RECIPE.digest
    data = (store.space.recipes / f"{RECIPE.digest}.json").read_bytes()
    assert hashlib.sha256(data).hexdigest() == RECIPE.digest
    assert json.loads(data)["source"]["quantisation"] == "BF16"
    assert recipes.read(store.space, RECIPE.digest) == RECIPE
    assert models.list(store=store) == (made,)
    assert [each.ok for each in models.verify(store=store)] == [True]


def test_its_text_is_the_same_whatever_order_it_was_made_in() -> None:
    assert RECIPE.to_bytes() == dataclasses.replace(RECIPE).to_bytes()
    assert b" " not in RECIPE.to_bytes().replace(b"llama.cpp 1", b"")
    assert RECIPE.digest != dataclasses.replace(RECIPE, block=32).digest


def test_what_came_of_it_does_not_make_another_recipe_of_it() -> None:
    assert RECIPE.asks_for_the_same(dataclasses.replace(RECIPE, used="presinq+imatrix"))
    assert not RECIPE.asks_for_the_same(dataclasses.replace(RECIPE, method="imatrix"))


def test_words_for_people() -> None:
    assert RECIPE.words == "Q4_0, importance matrix, from tiny:bf16"
    both = dataclasses.replace(RECIPE, used="presinq+imatrix", requantised=True)
    assert both.words == "Q4_0, pre-SINQ and importance matrix, from tiny:bf16 (requantised)"
    assert dataclasses.replace(RECIPE, used="plain").words == "Q4_0, plain, from tiny:bf16"


def test_it_goes_with_the_last_model_that_was_made_by_it(store: Store, tmp_path: Path) -> None:
    install(store, tmp_path)
    install(store, tmp_path, dataclasses.replace(RECIPE, block=32), "int4-plain")
    assert len(records(store)) == 4
    models.remove("tiny:int4-plain", store=store)
    assert records(store) == [f"{RECIPE.digest}.json", f"{RECIPE.digest}.quality.json"]
    models.remove("tiny", store=store)
    assert records(store) == []


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", RECIPE.to_bytes().replace(b"Q4_0", b"Q8_0")])
def test_a_damaged_recipe_is_none(store: Store, tmp_path: Path, data: bytes) -> None:
    install(store, tmp_path)
    path = store.space.recipes / f"{RECIPE.digest}.json"
    writable(path).write_bytes(data)
    assert models.list(store=store)[0].quantised is None
    assert recipes.read(store.space, RECIPE.digest) is None


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"made": "3" * 64},  # of another file
        {"quality": None},
        {"quality": {**dataclasses.asdict(QUALITY), "kl": {"value": -1, "low": 0, "high": 1}}},
    ],
)
def test_figures_that_are_damaged_or_of_another_file_are_none(
    store: Store, tmp_path: Path, change: dict[str, object]
) -> None:
    install(store, tmp_path)
    path = store.space.recipes / f"{RECIPE.digest}.quality.json"
    writable(path).write_text(json.dumps({**json.loads(path.read_bytes()), **change}))
    known = models.list(store=store)[0].quantised
    assert known is not None
    assert (known.recipe, known.quality) == (RECIPE, None)


@pytest.mark.parametrize(
    "recipe",
    [
        dataclasses.replace(RECIPE, library="x" * 300),
        dataclasses.replace(RECIPE, quantisation="Q4\x1b"),
        dataclasses.replace(RECIPE, source=Origin("a", "b", "no digest", "BF16")),
    ],
)
def test_what_could_not_be_read_back_is_not_written(store: Store, tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(ConfigurationError):
        install(store, tmp_path, recipe)
    assert (models.list(store=store), records(store)) == ((), [])
