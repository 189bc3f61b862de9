"""Which formats the weights of a model could be in, and how fast each is predicted to be here.

Pure but for `read_source`, which reads the head of a file.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ondevice_sdk.backends.calibration import Calibration
from ondevice_sdk.catalogue import gguf, layout
from ondevice_sdk.catalogue.gguf import GgufTensor
from ondevice_sdk.selection import calibrated
from ondevice_sdk.selection.calibrated import Work
from ondevice_sdk.types import ModelShape

# What counts how much when speeds are put into one figure: reading a document is most of the work of most tasks, the
# `_many` calls run eight sequences, and a person who watches one stream should not have to wait.
WEIGHTS: Final[Mapping[str, float]] = {"prompt": 0.40, "batched": 0.35, "decode": 0.25}
HOPELESS: Final = 0.9  # times as fast as the source: what is predicted to be slower is not tried
MOST_TRIED: Final = 4
_SLOW: Final = 1.15  # times the seconds of another format: then the kernels of that one are worth it
_MIXED_BITS: Final = 8  # formats of fewer are no refuge for single tensors
_VOCABULARY: Final = ("output.weight", "token_embd.weight")  # the first that is there gives the logits
_PROMPT: Final = 512
_POSITION: Final = 256
_SEQUENCES: Final = 8


@dataclass(frozen=True, slots=True)
class Source:
    """A model as it was installed."""

    tensors: tuple[GgufTensor, ...]
    shape: ModelShape
    size: int  # bytes of the file


@dataclass(frozen=True, slots=True)
class Layout:
    """Formats for the tensors of a model.

    `name` has the formats of its matrices, that with most weights first; `changed` those of the tensors that are not as
    in the source; `size` is the bytes of the file, nearly; `work` what it makes a processor do.
    """

    name: str
    changed: Mapping[str, str]
    size: int
    work: Work


def read_source(path: str | Path) -> Source | None:
    """The head of a model file; None where its metadata is unusual. Errors as `gguf.read_header`."""
    shape = gguf.read_header(path).shape
    return None if shape is None else Source(gguf.read_tensors(path), shape, Path(path).stat().st_size)


def unchanged(source: Source) -> Layout:
    """The layout that the source has."""
    return _layout(source, {})


def candidates(source: Source, formats: Sequence[str], calibration: Calibration | None) -> tuple[Layout, ...]:
    """The layouts that are worth a trial, the most promising first; without a calibration in the order of `formats`."""
    made = {tuple(sorted(changed.items())): changed for changed in _changes(source, formats, calibration) if changed}
    layouts = [_layout(source, changed) for changed in made.values()]
    if calibration is None:
        return tuple(layouts[:MOST_TRIED])
    now = predicted(calibration, unchanged(source).work)
    hopes = [(_hope(now, predicted(calibration, each.work)), each) for each in layouts]
    hopes.sort(key=lambda each: -each[0])
    return tuple(each for hope, each in hopes if hope >= HOPELESS)[:MOST_TRIED]


def predicted(calibration: Calibration, work: Work) -> Mapping[str, float] | None:
    """Seconds of a prompt, of a token, and of a token each for eight sequences; None if that cannot be told."""
    prompt = calibrated.prefill_s(calibration, work, _PROMPT)
    one = calibrated.decode_s(calibration, work, _POSITION)
    many = calibrated.decode_s(calibration, work, _POSITION, _SEQUENCES)
    if prompt is None or one is None or many is None:
        return None
    return {"prompt": prompt, "batched": many, "decode": one}


def score(ratios: Mapping[str, float]) -> float:
    """Speeds by those of the source, put into one figure: their geometric mean with `WEIGHTS`."""
    return math.exp(sum(weight * math.log(ratios[name]) for name, weight in WEIGHTS.items()))


def _hope(now: Mapping[str, float] | None, then: Mapping[str, float] | None) -> float:
    if now is None or then is None:
        return 1.0
    return score({name: now[name] / then[name] for name in WEIGHTS})


def _changes(source: Source, formats: Sequence[str], calibration: Calibration | None) -> Iterator[Mapping[str, str]]:
    """All matrices in one format; and only those in it whose own is slow here."""
    used = {_format(each) for each in _matrices(source)}
    for target in formats:
        yield _changed(source, target, used)
        if calibration is not None and _bits(target) >= _MIXED_BITS:
            yield _changed(source, target, {each for each in used if _is_slower(calibration, each, target)})


def _changed(source: Source, target: str, from_formats: set[str]) -> dict[str, str]:
    wanted = [each for each in _matrices(source) if _format(each) in from_formats]
    last = _logits(source)
    # The matrix of the vocabulary shapes every token: from 16 bits it goes to 8, and otherwise stays.
    if last is not None and _bits(_format(last)) >= 16 > _bits(target) >= _MIXED_BITS:
        wanted.append(last)
    fitting = [each for each in wanted if each.columns % layout.BLOCKS[target][0] == 0]
    return {each.name: target for each in fitting if _format(each) != target}


def _is_slower(calibration: Calibration, kind: str, target: str) -> bool:
    own, other = calibration.rate(kind), calibration.rate(target)
    return other is not None and (own is None or own.prompt_s > _SLOW * other.prompt_s)


def _layout(source: Source, changed: Mapping[str, str]) -> Layout:
    layers: Counter[str] = Counter()
    for each in _matrices(source):
        layers[changed.get(each.name, _format(each))] += each.values
    last = _logits(source)
    output = {} if last is None else {changed.get(last.name, _format(last)): last.values}
    names = [name for name, _ in layers.most_common()]
    more = sum(
        _bytes(changed[each.name], each.values) - _bytes(_format(each), each.values)
        for each in source.tensors
        if each.name in changed
    )
    return Layout("+".join(names), dict(changed), source.size + more, Work(source.shape, dict(layers), output))


def _matrices(source: Source) -> list[GgufTensor]:
    """Those of the layers; what is kept in 32 bits is small and meant to be exact."""
    return [
        each
        for each in source.tensors
        if each.name.startswith("blk.")
        and each.name.endswith(".weight")
        and each.rows > 1
        and _format(each) not in ("", "F32")
    ]


def _logits(source: Source) -> GgufTensor | None:
    by_name = {each.name: each for each in source.tensors}
    found = next((by_name[name] for name in _VOCABULARY if name in by_name), None)
    return found if found is not None and _format(found) else None


def _format(tensor: GgufTensor) -> str:
    return layout.NUMBERS.get(tensor.kind, "")


def _bits(kind: str) -> float:
    values, size = layout.BLOCKS[kind]
    return 8 * size / values


def _bytes(kind: str, values: int) -> int:
    block, size = layout.BLOCKS[kind]
    return values // block * size
