"""What is to be made of a model, checked before any work: words, bits, and whether it would become smaller at all."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Final, get_args

from ondevice_sdk._version import __version__
from ondevice_sdk.backends.api import Compressor
from ondevice_sdk.catalogue import gguf, layout
from ondevice_sdk.catalogue.gguf import GgufTensor
from ondevice_sdk.errors import ConfigurationError, ModelUnsupported, Unsupported
from ondevice_sdk.quantise import architectures, preserving
from ondevice_sdk.store.files import check_name, joint_digest, slug
from ondevice_sdk.store.originals import Original
from ondevice_sdk.store.recipes import CalibrationText, Method, Origin, Recipe

# Most of the calibration text that are read: nearly all of the packaged one, for most models. On two cores a model
# of 0.6B reads them in 50 s, so that all is done in three minutes.
TOKENS: Final = 5120
WINDOW: Final = 512  # tokens that are read with one context
CHARACTERS_PER_TOKEN: Final = 8  # no more are sent for each token that is wanted; English has between 4 and 5
EXACT: Final = "F32"  # what a quantised source is written in before its weights are scaled
# Bits of a weight in each quantisation's own format; matrices that llama.cpp finds more important have more.
BITS: Final = {
    "IQ1_S": 1.56, "IQ1_M": 1.75, "IQ2_XXS": 2.06, "IQ2_XS": 2.31, "IQ2_S": 2.5, "IQ2_M": 2.5, "Q2_K_S": 2.63,
    "Q2_K": 2.63, "IQ3_XXS": 3.06, "IQ3_XS": 3.3, "IQ3_S": 3.44, "IQ3_M": 3.44, "Q3_K_S": 3.44, "Q3_K_M": 3.44,
    "Q3_K_L": 3.44, "IQ4_XS": 4.25, "IQ4_NL": 4.5, "Q4_0": 4.5, "Q4_K_S": 4.5, "Q4_K_M": 4.5, "Q4_1": 5.0,
    "Q5_0": 5.5, "Q5_K_S": 5.5, "Q5_K_M": 5.5, "Q5_1": 6.0, "Q6_K": 6.56, "Q8_0": 8.5,
}  # fmt: skip
_PRECISIONS: Final = {"int4": (0.0, 6.5), "int8": (6.5, 9.0)}  # bits from, and below: what is filed under each word
_FULL: Final = 16.0  # bits from which on weights were not rounded to a few steps
_VOCABULARY_BITS: Final = 8.5  # of the matrices outside of layers, at most
_MORE: Final = 1.25  # times its own bits: what a mixture takes for its finer matrices, at most


@dataclass(frozen=True, slots=True)
class Plan:
    """What is made, for a model under that name, and what is to be read for it."""

    name: str
    variant: str
    recipe: Recipe
    text: str  # of the calibration; the file of it goes nowhere
    exact: int  # bytes of the model in 32 bits
    size: int  # most bytes of what is made


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an app asks for, checked by itself; `name` None: that of the source, or of its file.

    Raises:
        ConfigurationError: an unknown word, or words that contradict each other.
    """

    to: str
    method: Method
    quantisation: str
    usual: bool  # that is what the precision means where nobody says otherwise
    text: str
    name: str | None

    @classmethod
    def of(
        cls,
        compressor: Compressor,
        *,
        to: str,
        method: str,
        quantisation: str | None,
        text: str | None,
        name: str | None,
    ) -> Wanted:
        """Check the words; None: the usual quantisation of the precision, and the text of the package."""
        asked = next((each for each in get_args(Method) if each == method), None)
        if asked is None:
            raise ConfigurationError(f"not a method: {method[:80]!r}", hint=f"one of {', '.join(get_args(Method))}")
        target = _target(compressor, to, quantisation)
        usual = target == compressor.quantisations[to]
        read = _read_text(text)
        if asked != "plain" and (size := len(read.encode())) < WINDOW:  # and a token has at least a byte
            raise ConfigurationError(
                f"the text has {size} bytes; at least a window of {WINDOW} tokens is needed",
                hint="give a longer text, best a few pages",
            )
        return cls(to, asked, target, usual, read, None if name is None else check_name(name))

    @property
    def variant(self) -> str:
        """`int4-presinq-imatrix`; what is not the usual quantisation is named: `int4-q3_k_s-imatrix`."""
        return "-".join([self.to, *([] if self.usual else [self.quantisation.lower()]), *self.method.split("+")])


def plan(original: Original, compressor: Compressor, wanted: Wanted) -> Plan:
    """What is made of a model.

    Raises:
        ConfigurationError: the source is as small already. ModelUnsupported: pre-SINQ cannot be proved for it.
        Unsupported: it writes no text. ModelCorrupt.
    """
    asked, target = wanted.method, wanted.quantisation
    path = original.model.path
    file = gguf.read_file(path)
    tensors, header = file.tensors, file.header
    if header.embeds:
        raise Unsupported(f"{original.label} gives embeddings and writes no text", capability="quantise")
    matrices = [each for each in tensors if each.rows > 1]
    if not matrices:
        raise ModelUnsupported(f"{original.label} has no matrices", architecture=header.architecture[:80])
    inner = [each for each in matrices if each.name.startswith("blk.")] or matrices
    bits = 8 * sum(each.size for each in inner) / sum(each.values for each in inner)
    held = layout.FILE_TYPES.get(-1 if header.file_type is None else header.file_type) or _format(inner)
    if bits <= BITS[target]:
        raise ConfigurationError(
            f"{original.label} is as small already ({held}, {bits:.3g} bits a weight; {target} has {BITS[target]:.3g})",
            hint="quantise a more exact variant of it, or to fewer bits with quantisation= (--quantisation Q3_K_S)",
        )
    requantised = any(8 * each.size / each.values < _FULL for each in matrices)
    if "presinq" in asked:
        _require_proof(path, requantised=requantised, architecture=header.architecture)
    values, rest = sum(each.values for each in inner), sum(each.values for each in tensors)
    recipe = Recipe(
        source=Origin(slug(original.model.name), original.model.variant, joint_digest(original.digests), held),
        requantised=requantised,
        method=asked,
        used=asked,
        quantisation=target,
        to=wanted.to,
        order=preserving.ORDER if "presinq" in asked else None,
        block=preserving.BLOCK if "presinq" in asked else None,
        calibration=_calibration(wanted.text) if "imatrix" in asked else None,
        library=compressor.library,
        sdk=__version__,
    )
    return Plan(
        name=wanted.name or slug(original.model.name),
        variant=wanted.variant,
        recipe=recipe,
        text=wanted.text,
        exact=4 * rest + _head(tensors),
        size=int((values * min(BITS[target] * _MORE, 16.0) + (rest - values) * _VOCABULARY_BITS) / 8) + _head(tensors),
    )


def _read_text(given: str | None) -> str:
    """The begin of the text, no more than is read of it."""
    if given is None:
        given = (resources.files("ondevice_sdk.quantise") / "calibration.txt").read_text(encoding="utf-8")
    if not isinstance(given, str) or not given.strip():
        raise ConfigurationError("the calibration text must be a text that is not empty")
    if any("\ud800" <= each <= "\udfff" for each in given):
        raise ConfigurationError("the calibration text is not well-formed: it has half a character")
    return given[: CHARACTERS_PER_TOKEN * TOKENS]


def trial_quantisation(wanted: str) -> str:
    """What pre-SINQ is tried in: the one that is wanted, or the nearest that needs no importance matrix."""
    return "Q2_K" if wanted == "Q2_K_S" or wanted.startswith(("IQ1", "IQ2", "IQ3")) else wanted


def without(method: Method) -> Method:
    """The method that is left where pre-SINQ is not used."""
    return "imatrix" if "imatrix" in method else "plain"


def _target(compressor: Compressor, to: str, quantisation: str | None) -> str:
    if to not in compressor.quantisations or to not in _PRECISIONS:
        known = [each for each in _PRECISIONS if each in compressor.quantisations]
        raise ConfigurationError(f"not a precision: {to[:80]!r}", hint=f"one of {', '.join(known)}")
    target = compressor.quantisations[to] if quantisation is None else quantisation.upper()
    if target not in BITS:
        raise ConfigurationError(f"not a quantisation: {target[:80]!r}", hint=f"one of {', '.join(BITS)}")
    low, high = _PRECISIONS[to]
    if not low <= BITS[target] < high:
        other = next(word for word, (least, most) in _PRECISIONS.items() if least <= BITS[target] < most)
        raise ConfigurationError(f"{target} is no {to}", hint=f"say to={other!r} (--to {other}) with it")
    return target


def _calibration(text: str) -> CalibrationText:
    return CalibrationText(hashlib.sha256(text.encode()).hexdigest(), TOKENS, WINDOW)


def _require_proof(path: str, *, requantised: bool, architecture: str) -> None:
    hint = 'quantise it without: method="imatrix" (--method imatrix)'
    if architecture not in architectures.ARCHITECTURES:
        words = architecture[:80]
        raise ModelUnsupported(f"pre-SINQ is not proved for {words!r} models", architecture=words, hint=hint)
    if requantised:  # the rest is looked at when it is written in 32 bits
        return
    try:
        architectures.prove(path)
    except ModelUnsupported as error:
        raise ModelUnsupported(error.message, architecture=error.architecture, hint=hint) from error


def _format(matrices: Sequence[GgufTensor]) -> str:
    """That of most weights."""
    counted: Counter[int] = Counter()
    for each in matrices:
        counted[each.kind] += each.values
    kind = counted.most_common(1)[0][0]
    return layout.NUMBERS.get(kind, f"format {kind}")


def _head(tensors: Sequence[GgufTensor]) -> int:
    """Bytes before the weights, nearly: the vocabulary, most of all."""
    return min((each.offset for each in tensors), default=0) + 64 * len(tensors)
