"""The catalogue: which models the SDK knows, how big they are, where their files come from and under which terms."""

from __future__ import annotations

import functools
import re
from collections import Counter
from typing import get_args

from ondevice_sdk.catalogue.plain import build
from ondevice_sdk.catalogue.spec import ARTIFACT_FIELDS, MODEL_FIELDS, Artifact, ModelSpec, Precision, Variant
from ondevice_sdk.errors import ConfigurationError

__all__ = [
    "DEFAULT",
    "EMBEDDER",
    "Artifact",
    "ModelSpec",
    "Precision",
    "Variant",
    "confirmed",
    "get",
    "is_variant",
    "load",
    "parse",
    "split_name",
]

DEFAULT = "smollm2-135m-instruct"  # the smallest, and the one whose file was checked
EMBEDDER = "all-minilm-l6-v2"

_NAME = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*")
_FORM = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
_SOURCE = re.compile(
    r"pypi:[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+/[^\s]+"
    r"|hf:[A-Za-z0-9._-]+/[A-Za-z0-9._-]+(?:@[A-Za-z0-9._-]+)?/[^\s]+"
    r"|https://[^\s/]+/[^\s]+"
    r"|file:[^\n]+"
)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_EVIDENCE = re.compile(r"[a-z0-9]+(?: [a-z0-9]+)*: \S.*")


@functools.cache
def load() -> tuple[ModelSpec, ...]:
    """The models of the catalogue that ships with the package, in its order (small to large within a family)."""
    import importlib.resources  # slow, as tomllib is, and workers need the other modules of this package only

    text = (importlib.resources.files(__package__) / "models.toml").read_text(encoding="utf-8")
    return parse(text, where="models.toml")


def parse(text: str, where: str = "catalogue") -> tuple[ModelSpec, ...]:
    """Read a catalogue in TOML: an array of tables `model`, with the fields of `ModelSpec`.

    Raises:
        ConfigurationError: it is not TOML, has unknown or missing keys, wrong types, or contradicts itself.
    """
    import tomllib

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{where}: {error}") from error
    if unknown := sorted(set(document) - {"model"}):
        raise ConfigurationError(f"{where}: unknown key {unknown[0]!r}")
    tables = document.get("model", [])
    if not isinstance(tables, list):
        raise ConfigurationError(f"{where}: 'model' is an array of tables")
    specs = tuple(build(ModelSpec, table, f"{where}: model[{index}]") for index, table in enumerate(tables))
    for spec in specs:
        _check(spec, where)
    if twice := [name for name, count in Counter(spec.name for spec in specs).items() if count > 1]:
        raise ConfigurationError(f"{where}: the name {twice[0]!r} is used twice")
    return specs


def get(name: str) -> ModelSpec:
    """The model of that name (without a variant).

    Raises:
        ConfigurationError: there is none; the message names the nearest ones.
    """
    specs = {spec.name: spec for spec in load()}
    if name in specs:
        return specs[name]
    import difflib

    near = difflib.get_close_matches(name, specs, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"the catalogue has: {', '.join(specs)}"
    raise ConfigurationError(f"there is no model {name!r} in the catalogue", hint=hint)


def split_name(name: str) -> tuple[str, str | None]:
    """Take a name with an optional variant apart: `"llama-3.2-1b-instruct:int4"`.

    A variant is a precision, or one in the form of a backend: `"int4-mlc"`. Does not say whether the model exists.

    Raises:
        ConfigurationError: the part after the colon is not a variant, or there is no name.
    """
    base, colon, variant = name.partition(":")
    if not base:
        raise ConfigurationError(f"{name!r} is not the name of a model")
    if not colon:
        return base, None
    if is_variant(variant):
        return base, variant
    raise ConfigurationError(
        f"{variant!r} is not a variant", hint=f"write {base}:{' or '.join(str(known) for known in get_args(Precision))}"
    )


def is_variant(word: str) -> bool:
    """Whether a word can be the name of a variant: a precision, also with a form after a dash."""
    precision, dash, form = word.partition("-")
    return precision in get_args(Precision) and (not dash or _FORM.fullmatch(form) is not None)


def confirmed(evidence: tuple[str, ...]) -> frozenset[str]:
    """The fields that lines of evidence are about: `{"size", "sha256"}` of `("size sha256: WHERE",)`."""
    return frozenset(field for line in evidence for field in line.partition(": ")[0].split())


def _check(spec: ModelSpec, where: str) -> None:
    """What types cannot say."""

    def fail(problem: str) -> None:
        raise ConfigurationError(f"{where}: {spec.name}: {problem}")

    if not _NAME.fullmatch(spec.name):
        fail("a name has small letters, digits, dots and dashes")
    shape = spec.shape
    numbers = (shape.parameters, shape.layers, shape.width, shape.heads, shape.kv_heads, shape.head_dim)
    if min(*numbers, shape.feed_forward, shape.vocabulary, shape.context_tokens) <= 0:
        fail("every dimension of the shape is positive")
    if shape.heads % shape.kv_heads:
        fail("heads is a multiple of kv_heads")
    if not 0.0 <= spec.quality <= 1.0:
        fail("quality lies between 0 and 1")
    if not spec.variants:
        fail("a model has at least one variant")
    if problem := _doubtful(spec.evidence, MODEL_FIELDS):
        fail(problem)
    names = [variant.name for variant in spec.variants]
    if len(set(names)) != len(names):
        fail("a variant is listed twice")
    for variant in spec.variants:
        if variant.name not in get_args(Precision):
            fail(f"{variant.name!r} is not one of {', '.join(get_args(Precision))}")
        if not 1.0 <= variant.bits_per_weight <= 32.0:
            fail(f"{variant.name}: bits_per_weight lies between 1 and 32")
        if not variant.artifacts:
            fail(f"{variant.name}: a variant has at least one artifact")
        for artifact in variant.artifacts:
            if not _SOURCE.fullmatch(artifact.source):
                fail(f"{variant.name}: not a source: {artifact.source!r}")
            if artifact.size is not None and artifact.size <= 0:
                fail(f"{variant.name}: a size is positive")
            if artifact.sha256 is not None and not _DIGEST.fullmatch(artifact.sha256):
                fail(f"{variant.name}: a sha256 has 64 small hexadecimal digits")
            if problem := _doubtful(artifact.evidence, ARTIFACT_FIELDS):
                fail(f"{variant.name}: {problem}")
            if variant.checked and (artifact.size is None or artifact.sha256 is None):
                fail(f"{variant.name}: a checked variant has the size and the sha256 of each artifact")


def _doubtful(evidence: tuple[str, ...], fields: frozenset[str]) -> str | None:
    """What is wrong with the form of lines of evidence."""
    for line in evidence:
        if _EVIDENCE.fullmatch(line) is None:
            return f"evidence is written FIELD FIELD: WHERE, not {line!r}"
    unknown = sorted(confirmed(evidence) - fields)
    return f"evidence for {unknown[0]!r}: one of {', '.join(sorted(fields))} is expected" if unknown else None
