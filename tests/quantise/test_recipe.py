"""What is to be made, checked before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ondevice_sdk.backends.api import Compressor
from ondevice_sdk.backends.llama_cpp import synthetic
from ondevice_sdk.backends.llama_cpp.compress import FILE_TYPES
from ondevice_sdk.errors import ConfigurationError, ModelUnsupported, Unsupported
from ondevice_sdk.quantise.recipe import BITS, TOKENS, Wanted, plan
from ondevice_sdk.store import Store, originals
from ondevice_sdk.store.originals import Original

from .support import SHAPE

TEXT = "some words " * 100
COMPRESSOR = Compressor("gguf", "llama.cpp 1", {"int4": "Q4_0", "int8": "Q8_0"}, "m:write", "m:read")


def wanted(**more: Any) -> Wanted:
    words: dict[str, Any] = {"to": "int4", "method": "plain", "quantisation": None, "text": TEXT, "name": None}
    return Wanted.of(COMPRESSOR, **{**words, **more})


def original(folder: Path, kind: str) -> Original:
    path = folder / f"Small Model {kind}.gguf"
    synthetic.write(path, SHAPE, kind)
    return originals.find(Store.open(folder / "store"), str(path), ["gguf"], capability="quantise")


@pytest.mark.parametrize(
    ("more", "variant"),
    [
        ({}, "int4-plain"),
        ({"method": "presinq+imatrix"}, "int4-presinq-imatrix"),
        ({"to": "int8", "method": "imatrix"}, "int8-imatrix"),
        ({"quantisation": "q4_0"}, "int4-plain"),
        ({"quantisation": "Q3_K_S", "method": "imatrix"}, "int4-q3_k_s-imatrix"),
        ({"quantisation": "Q6_K", "to": "int8"}, "int8-q6_k-plain"),
    ],
)
def test_the_name_says_what_it_is(more: dict[str, Any], variant: str) -> None:
    assert wanted(**more).variant == variant


@pytest.mark.parametrize(
    ("more", "message", "hint"),
    [
        ({"to": "int3"}, "not a precision: 'int3'", "int4, int8"),
        ({"method": "sinq"}, "not a method: 'sinq'", "presinq+imatrix"),
        ({"quantisation": "Q9"}, "not a quantisation: 'Q9'", "Q3_K_S"),
        ({"quantisation": "Q8_0"}, "Q8_0 is no int4", "--to int8"),
        ({"quantisation": "Q4_K_M", "to": "int8"}, "Q4_K_M is no int8", "--to int4"),
        ({"text": " \n"}, "not empty", None),
        ({"text": "half a \ud83d"}, "half a character", None),
        ({"text": "Not much.", "method": "imatrix"}, "the text has 9 bytes", "longer text"),
        ({"name": "No Name"}, "not a model name", "small letters"),
    ],
)
def test_words_that_are_none(more: dict[str, Any], message: str, hint: str | None) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        wanted(**more)
    assert hint is None or hint in (caught.value.hint or "")


def test_every_quantisation_that_can_be_asked_for_can_be_written() -> None:
    assert {*BITS, "F32", "F16", "BF16"} == set(FILE_TYPES)


def test_a_plan(tmp_path: Path) -> None:
    found = original(tmp_path, "BF16")
    made = plan(found, COMPRESSOR, wanted(method="presinq+imatrix", text="x" * 100_000))
    recipe = made.recipe
    assert (made.name, made.variant) == ("small-model-bf16", "int4-presinq-imatrix")
    assert (recipe.source.name, recipe.source.variant, recipe.source.quantisation) == (
        "small-model-bf16",
        "bf16",
        "BF16",
    )
    assert recipe.source.sha256 == found.digests[0]
    assert (recipe.requantised, recipe.order, recipe.block, recipe.to) == (False, 16, 64, "int4")
    assert recipe.calibration is not None
    assert len(made.text) < 100_000  # no more than can be read
    assert recipe.calibration.tokens == TOKENS
    size = Path(found.model.path).stat().st_size
    assert 0.25 * size < made.size < 0.6 * size < 1.9 * size < made.exact < 2.1 * size


def test_what_does_not_decide_anything_is_not_in_the_recipe(tmp_path: Path) -> None:
    found = original(tmp_path, "BF16")
    one, other = (plan(found, COMPRESSOR, wanted(text=text)).recipe for text in ("some words", "others"))
    assert one == other
    assert (one.order, one.block, one.calibration) == (None, None, None)
    texts = (TEXT, TEXT.upper())
    one, other = (plan(found, COMPRESSOR, wanted(method="imatrix", text=text)).recipe for text in texts)
    assert not one.asks_for_the_same(other)


def test_the_text_of_the_package_is_used_where_none_is_given() -> None:
    assert len(wanted(text=None).text) > 10_000


@pytest.mark.parametrize(("kind", "requantised"), [("Q4_1", True), ("Q8_0", True), ("F16", False), ("F32", False)])
def test_a_source_that_was_quantised_is_told(tmp_path: Path, kind: str, requantised: bool) -> None:
    assert plan(original(tmp_path, kind), COMPRESSOR, wanted(method="presinq")).recipe.requantised is requantised


@pytest.mark.parametrize(("kind", "to"), [("Q4_0", "int4"), ("Q8_0", "int8"), ("Q4_1", "int8")])
def test_what_is_as_small_already_is_refused(tmp_path: Path, kind: str, to: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"is as small already \({kind}, ") as caught:
        plan(original(tmp_path, kind), COMPRESSOR, wanted(to=to))
    assert "more exact variant" in (caught.value.hint or "")


@pytest.mark.parametrize("kind", ["BF16", "Q4_1"])
def test_presinq_is_refused_where_nothing_proves_it_and_nothing_else_is_done(tmp_path: Path, kind: str) -> None:
    found = original(tmp_path, kind)
    path = Path(found.model.path)
    path.write_bytes(path.read_bytes().replace(b"llama", b"falco"))
    with pytest.raises(ModelUnsupported) as caught:
        plan(found, COMPRESSOR, wanted(method="presinq+imatrix"))
    assert caught.value.architecture == "falco"
    assert 'method="imatrix"' in (caught.value.hint or "")
    assert plan(found, COMPRESSOR, wanted(method="imatrix")).recipe.method == "imatrix"


def test_a_model_of_another_format_is_refused(store: Store, echo_path: Path) -> None:
    with pytest.raises(Unsupported, match="models are made of gguf") as caught:
        originals.find(store, str(echo_path), ["gguf"], capability="quantise")
    assert caught.value.capability == "quantise"


def test_of_several_variants_the_most_exact_is_taken(store: Store, tmp_path: Path) -> None:
    for kind, variant in (("Q4_0", "int4"), ("BF16", "bf16"), ("Q8_0", "int8")):
        path = tmp_path / f"{kind}.gguf"
        synthetic.write(path, SHAPE, kind)
        store.add(path, name="small", variant=variant, licence="MIT")
    found = originals.find(store, "small", ["gguf"], capability="quantise")
    assert (found.label, found.licence, found.digests) == ("small:bf16", "MIT", (found.model.sha256,))
    assert originals.find(store, "small:int8", ["gguf"], capability="quantise").label == "small:int8"
