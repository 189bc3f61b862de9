from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ondevice_sdk import catalogue
from ondevice_sdk.catalogue import ModelSpec, layout
from ondevice_sdk.errors import ConfigurationError

SPECS = [spec for spec in catalogue.load() if not spec.embeds]
EMBEDDERS = [spec for spec in catalogue.load() if spec.embeds]

VALID = """
[[model]]
name = "tiny"
title = "Tiny"
licence = "MIT"
licence_url = "https://example.org/licence"
must_accept = false
languages = ["en"]
quality = 0.5
[model.shape]
parameters = 1000
layers = 2
width = 8
heads = 4
kv_heads = 2
head_dim = 2
feed_forward = 16
vocabulary = 32
context_tokens = 128
[[model.variants]]
name = "int4"
format = "gguf"
quantisation = "Q4_0"
bits_per_weight = 4.5
[[model.variants.artifacts]]
source = "hf:owner/repo/file.gguf"
"""


def test_the_example_is_valid() -> None:
    (spec,) = catalogue.parse(VALID)
    assert spec.shape.kv_bytes_per_token() == 2 * 2 * 2 * 2 * 2
    assert spec.variant("int4").size(spec.shape) == 562


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('title = "Tiny"', 'title = "Tiny"\ncolour = "red"', "model[0]: unknown key 'colour'"),
        ("layers = 2", "layer = 2", "unknown key 'layer'"),
        ("layers = 2", "", "the key 'layers' is missing"),
        ("layers = 2", 'layers = "2"', "int is expected"),
        ("layers = 2", "layers = true", "int is expected"),
        ("layers = 2", "layers = 0", "positive"),
        ("kv_heads = 2", "kv_heads = 3", "multiple of kv_heads"),
        ("must_accept = false", 'must_accept = "no"', "bool is expected"),
        ('languages = ["en"]', 'languages = "en"', "a list is expected"),
        ('languages = ["en"]', "languages = [1]", "languages[0]: str is expected"),
        ("quality = 0.5", "quality = 1.5", "quality"),
        ('name = "int4"', 'name = "int5"', "one of int4, int8"),
        ('name = "int4"', 'name = "int4-mlc"', "one of int4, int8"),
        ('name = "tiny"', 'name = "Tiny One"', "small letters"),
        ("bits_per_weight = 4.5", "bits_per_weight = 0", "bits_per_weight"),
        ("hf:owner/repo/file.gguf", "hf:owner/file.gguf", "not a source"),
        ("hf:owner/repo/file.gguf", "http://example.org/file.gguf", "not a source"),
        ("hf:owner/repo/file.gguf", "pypi:package/file.gguf", "not a source"),
        ('source = "hf:owner/repo/file.gguf"', 'source = "hf:o/r/f.gguf"\nsha256 = "abc"', "64 small hexadecimal"),
        ('source = "hf:owner/repo/file.gguf"', 'source = "hf:o/r/f.gguf"\nsize = 0', "size is positive"),
        ("bits_per_weight = 4.5", "bits_per_weight = 4.5\nchecked = true", "size and the sha256"),
        ("hf:owner/repo/file.gguf", "hf:owner/repo@/file.gguf", "not a source"),
        ("quality = 0.5", 'evidence = ["shape"]', "FIELD FIELD: WHERE"),
        ("quality = 0.5", 'evidence = ["size: a list"]', "evidence for 'size'"),
        ('repo/file.gguf"', 'repo/file.gguf"\nevidence = ["shape: a list"]', "int4: evidence for 'shape'"),
        ("[[model.variants]]", "[[model.variants", "catalogue:"),
        ("[[model]]", "version = 1\n[[model]]", "unknown key 'version'"),
    ],
)
def test_what_is_wrong_is_an_error_that_says_where(old: str, new: str, problem: str) -> None:
    assert old in VALID
    with pytest.raises(ConfigurationError, match=re.escape(problem)):
        catalogue.parse(VALID.replace(old, new, 1))


def test_a_name_is_used_once() -> None:
    with pytest.raises(ConfigurationError, match="'tiny' is used twice"):
        catalogue.parse(VALID + VALID)


@pytest.mark.parametrize("text", ["model = 3", "[model]\nname = 'x'"])
def test_models_are_an_array_of_tables(text: str) -> None:
    with pytest.raises(ConfigurationError, match="array of tables"):
        catalogue.parse(text)


def test_names_are_unique() -> None:
    names = [spec.name for spec in SPECS]
    assert len(set(names)) == len(names) >= 10


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_shape_agrees_with_its_parameter_count(spec: ModelSpec) -> None:
    shape = spec.shape
    attention = 2 * shape.width * shape.head_dim * (shape.heads + shape.kv_heads)
    matrices = shape.layers * (attention + 3 * shape.width * shape.feed_forward)
    embedding = shape.vocabulary * shape.width  # every model of the catalogue ties its output layer to it
    assert matrices + embedding == pytest.approx(shape.parameters, rel=0.01)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_an_entry_is_complete(spec: ModelSpec) -> None:
    sizes = {variant.name: variant.size(spec.shape) for variant in spec.variants}
    assert list(sizes) == ["int4", "int8"]
    assert sizes["int4"] < sizes["int8"]
    assert spec.quality_source
    assert 0 < spec.quality <= 1
    assert spec.base
    assert spec.licence_url.startswith("https://")
    assert "en" in spec.languages


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_terms_that_ask_for_a_yes_are_marked(spec: ModelSpec) -> None:
    assert spec.must_accept == spec.name.startswith(("llama-", "gemma-"))


@pytest.mark.parametrize("spec", EMBEDDERS, ids=lambda spec: spec.name)
def test_an_entry_of_an_embedder_is_complete(spec: ModelSpec) -> None:
    shape = spec.shape
    layers = shape.layers * (4 * shape.width * shape.width + 2 * shape.width * shape.feed_forward)
    tables = (shape.vocabulary + shape.context_tokens) * shape.width
    assert layers + tables == pytest.approx(shape.parameters, rel=0.01)
    assert not spec.chat
    assert not spec.must_accept
    assert "en" in spec.languages
    (variant,) = spec.variants
    assert variant.name == "f16"
    assert 16 * shape.parameters <= 8 * variant.size(shape) < 17 * shape.parameters  # the words come on top


def test_the_embedder_that_is_offered_was_run() -> None:
    assert EMBEDDERS[0].name == catalogue.EMBEDDER
    assert EMBEDDERS[0].variants[0].checked


def test_only_what_was_run_is_called_checked() -> None:
    checked = [
        f"{spec.name}:{variant.name}" for spec in catalogue.load() for variant in spec.variants if variant.checked
    ]
    assert checked == ["smollm2-135m-instruct:int4", "all-minilm-l6-v2:f16"]


@pytest.mark.parametrize("spec", SPECS + EMBEDDERS, ids=lambda spec: spec.name)
def test_every_field_that_could_be_wrong_has_its_evidence(spec: ModelSpec) -> None:
    assert catalogue.confirmed(spec.evidence) == {"shape", "licence", "languages"}
    for artifact in (artifact for variant in spec.variants for artifact in variant.artifacts):
        stated = {
            "source": True,
            "commit": "@" in artifact.source,
            "size": artifact.size is not None,
            "sha256": artifact.sha256 is not None,
        }
        assert catalogue.confirmed(artifact.evidence) == {field for field, is_stated in stated.items() if is_stated}
        assert stated["commit"] or stated["sha256"], "nothing says which file is meant"


def test_the_sizes_of_files_fit_their_shapes() -> None:
    beyond: dict[str, dict[str, int]] = {}  # of a model by repository: bytes of a file that are not tensors
    for spec in SPECS:
        for variant in spec.variants:
            tensors = sum(tensor.size for tensor in layout.tensors(spec.shape, variant.quantisation))
            rest = variant.size(spec.shape) - tensors
            repository = variant.artifacts[0].source.rpartition("/")[0]
            if (spec.name, variant.name) == ("phi-4-mini-instruct", "int4"):
                assert 0 < rest < 0.03 * tensors  # fused matrices, in a finer format than their parts would have
                continue
            found = beyond.setdefault(spec.name, {})
            assert found.setdefault(repository, rest) == rest
            assert variant.bits_per_weight == pytest.approx(
                variant.size(spec.shape) * 8 / spec.shape.parameters, abs=0.006
            )
    for name, rests in beyond.items():
        assert max(rests.values()) - min(rests.values()) < 2000, name  # the same words, a few other keys
        assert 1_500_000 < min(rests.values()) < 9_000_000, name


def test_one_file_has_one_digest() -> None:
    artifacts = [artifact for spec in catalogue.load() for variant in spec.variants for artifact in variant.artifacts]
    assert len({artifact.source for artifact in artifacts}) == len(artifacts)
    digests = [artifact.sha256 for artifact in artifacts if artifact.sha256 is not None]
    assert len(set(digests)) == len(digests)


def test_the_table_in_the_documents_is_the_catalogue() -> None:
    def size(count: int) -> str:
        return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"

    def row(spec: ModelSpec) -> str:
        sizes = " | ".join(size(variant.size(spec.shape)) for variant in spec.variants)
        known = spec.languages
        languages = ", ".join(known) if len(known) < 4 else f"{len(known)}, with {', '.join(known[:3])}"
        return f"| `{spec.name}` | {sizes} | {languages} | {spec.licence} |"

    page = (Path(__file__).parents[2] / "docs" / "how-to" / "choose-a-model.md").read_text(encoding="utf-8")
    listed = [line for line in page.splitlines() if line.startswith("| `") and line.count("|") in (5, 6)]
    assert listed == [row(spec) for spec in catalogue.load()]


def test_the_default_is_the_smallest_and_checked() -> None:
    default = catalogue.get(catalogue.DEFAULT)
    assert default.shape.parameters == min(spec.shape.parameters for spec in SPECS)
    assert default.variant("int4").checked
    assert default.variant("int4").size(default.shape) == 98_362_432


@pytest.mark.model
def test_the_default_is_the_real_file(model_path: Path) -> None:
    import hashlib

    (artifact,) = catalogue.get(catalogue.DEFAULT).variant("int4").artifacts
    content = model_path.read_bytes()
    assert len(content) == artifact.size
    assert hashlib.sha256(content).hexdigest() == artifact.sha256


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(ConfigurationError) as caught:
        catalogue.get("smollm2-135m-instuct")
    assert "smollm2-135m-instruct" in (caught.value.hint or "")


def test_a_name_near_nothing_lists_all() -> None:
    with pytest.raises(ConfigurationError) as caught:
        catalogue.get("zzz")
    assert all(spec.name in (caught.value.hint or "") for spec in SPECS)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("llama-3.2-1b-instruct:int4", ("llama-3.2-1b-instruct", "int4")),
        ("llama-3.2-1b-instruct:int8", ("llama-3.2-1b-instruct", "int8")),
        ("llama-3.2-1b-instruct", ("llama-3.2-1b-instruct", None)),
        ("llama-3.2-1b-instruct:int4-mlc", ("llama-3.2-1b-instruct", "int4-mlc")),
    ],
)
def test_split_name(text: str, parts: tuple[str, str | None]) -> None:
    assert catalogue.split_name(text) == parts


@pytest.mark.parametrize(
    "text", ["", ":int4", "llama:", "llama:int5", "llama:int4:int8", "llama:INT4", "llama:int4-", "llama:mlc"]
)
def test_split_name_refuses(text: str) -> None:
    with pytest.raises(ConfigurationError):
        catalogue.split_name(text)


def test_the_catalogue_loads_without_heavy_modules() -> None:
    code = (
        "import sys; from ondevice_sdk import catalogue; catalogue.load();"
        "print([name for name in ('pydantic', 'numpy', 'psutil') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
