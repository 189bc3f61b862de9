"""Write a GGUF file anew with some of its tensors in other formats, by llama.cpp's quantisation. Runs in a worker."""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ondevice_sdk.backends.llama_cpp import lattice, log
from ondevice_sdk.catalogue import gguf, layout
from ondevice_sdk.catalogue.gguf import GgufTensor
from ondevice_sdk.errors import LoadFailed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_POLL_S: Final = 0.1
_QUANTISED: Final = 0.7  # of the work; the rest is finding nearer values
_CHUNK: Final = 1 << 12  # blocks that are worked on at a time
_TENSOR: Final = re.compile(r"\[ *(\d+)/ *(\d+)\]")
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
    for share in _quantise(source, target, wanted, threads):
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


def _quantise(source: str, target: str, wanted: Mapping[str, int], threads: int) -> Generator[float, None, None]:
    """Run llama.cpp's quantisation in a thread, and read from its log how far it is."""
    import llama_cpp

    log.silence()
    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread = threads
    params.allow_requantize = True
    params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0  # what the header says; every matrix has an override
    overrides = _overrides(llama_cpp, wanted)
    params.tt_overrides = overrides
    status: list[int] = []

    def work() -> None:
        status.append(llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)))

    with log.captured() as lines:
        thread = threading.Thread(target=work, name="ondevice-relayout", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(_POLL_S)
            yield _share(tuple(lines))
    if status != [0]:
        raise LoadFailed("llama.cpp could not write the model in another format")


def _overrides(library: Any, wanted: Mapping[str, int]) -> Any:
    made = (library.llama_model_tensor_override * (len(wanted) + 1))()  # the last one, empty, ends the list
    for place, (name, kind) in enumerate(wanted.items()):
        made[place].pattern = f"^{re.escape(name)}$".encode()
        made[place].type = kind
    return made


def _share(lines: Sequence[str]) -> float:
    for line in reversed(lines):
        if (match := _TENSOR.search(line)) is not None:
            return min(1.0, int(match[1]) / max(1, int(match[2])))
    return 0.0


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
