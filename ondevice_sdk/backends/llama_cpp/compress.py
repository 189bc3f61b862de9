"""Write a GGUF file in fewer bits, by llama.cpp's quantisation. Runs in a worker."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from ondevice_sdk.backends.llama_cpp import compensate, matrix
from ondevice_sdk.backends.llama_cpp.rewriting import rewrite
from ondevice_sdk.catalogue import gguf
from ondevice_sdk.catalogue.gguf import GgufTensor
from ondevice_sdk.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# llama.cpp's numbers of the quantisations it still writes
FILE_TYPES: Final[Mapping[str, int]] = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_S": 11, "Q3_K_M": 12,
    "Q3_K_L": 13, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16, "Q5_K_M": 17, "Q6_K": 18, "IQ2_XXS": 19, "IQ2_XS": 20,
    "Q2_K_S": 21, "IQ3_XS": 22, "IQ3_XXS": 23, "IQ1_S": 24, "IQ4_NL": 25, "IQ3_S": 26, "IQ3_M": 27, "IQ2_S": 28,
    "IQ2_M": 29, "IQ4_XS": 30, "IQ1_M": 31, "BF16": 32,
}  # fmt: skip
# So few bits that llama.cpp refuses them without an importance matrix
_BLIND: Final = frozenset({"Q2_K_S", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS"})
# With an importance matrix llama.cpp stores `ffn_down` of the first layers in another format than without. These are
# those without, of the first layers and of the others, so that both files have the same size and can be compared.
_DOWN: Final[Mapping[str, tuple[int, int]]] = {"Q4_0": (2, 2), "Q5_0": (6, 6), "IQ4_NL": (13, 20), "IQ4_XS": (13, 23)}
_DOWN_NAME: Final = re.compile(r"blk\.(\d+)\.ffn_down\.weight")
_REWRITTEN: Final = 0.5  # of the work; the rest is compensation
_FIRST: Final = 8  # one in so many layers is one of the first


def write(
    *, source: str, target: str, quantisation: str, importance: str | None, threads: int
) -> Generator[float, None, None]:
    """Make `target` of `source`; yields the share that is done, in whole percents.

    Args:
        source: a GGUF file.
        target: a path where nothing is yet.
        quantisation: as llama.cpp's tool names it, such as Q4_K_M. The matrix of the vocabulary gets the format that
            llama.cpp chooses for it.
        importance: a file that `importance.write` or llama.cpp's own tool made with the same model; with one of the
            former, errors of rounding are also made up for (see `compensate`). None: every weight matters the same.
        threads: that work at it.

    Raises:
        ConfigurationError: there is no such quantisation, it needs an importance matrix, or the file is none, or that
            of another model. ModelCorrupt: the source is no GGUF file. LoadFailed: llama.cpp could not read or write a
            file.
    """
    if quantisation not in FILE_TYPES:
        known = ", ".join(FILE_TYPES)
        raise ConfigurationError(f"llama.cpp writes no {quantisation!r}", hint=f"one of {known}")
    if importance is None and quantisation in _BLIND:
        raise ConfigurationError(
            f"{quantisation} needs an importance matrix",
            hint="use a method with imatrix, or a quantisation of more bits",
        )
    tensors = gguf.read_tensors(source)  # refuses what native code should not see
    told = 0
    for share in _shares(source, tensors, target, quantisation, importance, threads):
        if int(100 * share) > told:
            told = int(100 * share)
            yield told / 100
    if told < 100:
        yield 1.0


def _shares(
    source: str,
    tensors: Sequence[GgufTensor],
    target: str,
    quantisation: str,
    importance: str | None,
    threads: int,
) -> Generator[float, None, None]:
    file_type = FILE_TYPES[quantisation]
    if importance is None:
        yield from rewrite(source, target, file_type=file_type, threads=threads)
        return
    weighed = matrix.read(importance)
    _check(weighed, tensors)
    kinds = _as_without(tensors, quantisation)
    for share in rewrite(source, target, file_type=file_type, threads=threads, kinds=kinds, importance=weighed):
        yield _REWRITTEN * share
    for share in compensate.improve(source, target, importance):
        yield _REWRITTEN + (1 - _REWRITTEN) * share


def _check(weighed: Mapping[str, NDArray[np.float32]], tensors: Sequence[GgufTensor]) -> None:
    columns = {tensor.name: tensor.columns for tensor in tensors}
    if not weighed or any(name not in columns or values.size % columns[name] for name, values in weighed.items()):
        raise ConfigurationError(
            "the importance matrix is that of another model", hint="collect it with the model that is quantised"
        )


def _as_without(tensors: Sequence[GgufTensor], quantisation: str) -> Mapping[str, int]:
    """Formats of the tensors that an importance matrix would change the format of."""
    if quantisation not in _DOWN:
        return {}
    layers = {name: int(match[1]) for name in (each.name for each in tensors) if (match := _DOWN_NAME.fullmatch(name))}
    first = len(layers) // _FIRST
    # All of them: llama.cpp counts only those that it chooses a format for.
    return {name: _DOWN[quantisation][layer >= first] for name, layer in layers.items()}
