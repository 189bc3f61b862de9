"""Write a GGUF file anew with some of its tensors in other formats, by llama.cpp's quantisation. Runs in a worker."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ondevice_sdk.backends.llama_cpp import lattice
from ondevice_sdk.backends.llama_cpp.rewriting import rewrite
from ondevice_sdk.catalogue import gguf, layout
from ondevice_sdk.catalogue.gguf import GgufTensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FILE_TYPE: Final = 7  # what the header says, Q8_0; every matrix has a format of its own
_QUANTISED: Final = 0.7  # of the work; the rest is finding nearer values
_CHUNK: Final = 1 << 12  # blocks that are worked on at a time
_NUMBERS: Final = {name: number for number, name in layout.NUMBERS.items()}


def write(*, source: str, target: str, formats: Mapping[str, str], threads: int) -> Generator[float, None, None]:
    """Make `target` of `source`; yields the share that is done, in whole percents.

    Args:
        source: a GGUF file.
        target: a path where nothing is yet.
        formats: the new format of each tensor that gets one, by the tensor's name.
        threads: that work at it.

    Raises:
        LoadFailed: llama.cpp could not read or write a file. ModelCorrupt: the source is no GGUF file.
    """
    before = gguf.read_tensors(source)
    wanted = {tensor.name: _NUMBERS[formats.get(tensor.name, layout.NUMBERS.get(tensor.kind, ""))]
              for tensor in before if tensor.name in formats or tensor.kind in layout.NUMBERS}  # fmt: skip
    told = 0
    shares = rewrite(source, target, file_type=_FILE_TYPE, threads=threads, kinds=wanted)
    for share in shares:
        if int(100 * _QUANTISED * share) > told:
            told = int(100 * _QUANTISED * share)
            yield told / 100
    nearer = [each for each in before if formats.get(each.name) == "Q8_0" and _name(each) in lattice.formats()]
    after = {tensor.name: tensor for tensor in gguf.read_tensors(target)}
    done, total = 0, sum(tensor.values for tensor in nearer)
    for tensor in nearer:
        if after[tensor.name].kind == _NUMBERS["Q8_0"]:
            _refine(source, tensor, target, after[tensor.name])
        done += tensor.values
        percent = int(100 * (_QUANTISED + (1 - _QUANTISED) * done / total))
        if percent > told:
            told = percent
            yield told / 100
    if told < 100:
        yield 1.0


def _refine(source: str, old: GgufTensor, target: str, new: GgufTensor) -> None:
    """Put the nearest values of a tensor in place of those that were rounded twice."""
    kind = _name(old)
    values, size = layout.BLOCKS[kind]
    with Path(source).open("rb") as reader, Path(target).open("r+b") as writer:
        reader.seek(old.offset)
        writer.seek(new.offset)
        left = old.values // values
        while left:
            count = min(left, _CHUNK * lattice.BLOCK // values)
            place = writer.tell()
            rounded = _bytes(writer.read(count * values // lattice.BLOCK * lattice.BYTES))
            made = lattice.refine(kind, _bytes(reader.read(count * size)), rounded)
            writer.seek(place)
            writer.write(made.tobytes())
            left -= count


def _bytes(data: bytes) -> NDArray[np.uint8]:
    import numpy as np

    return np.frombuffer(data, np.uint8)


def _name(tensor: GgufTensor) -> str:
    return layout.NUMBERS.get(tensor.kind, "")
