"""One model in several precisions: those that are here, and those that have to be made of them for a comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from ondevice_sdk import catalogue
from ondevice_sdk.backends import registry
from ondevice_sdk.backends.api import Backend, Compressor, LocalModel
from ondevice_sdk.bench.conditions import Conditions
from ondevice_sdk.bench.stations import quantisation
from ondevice_sdk.bench.subjects import RANDOM, OnProgress, Subject, find, random_plan
from ondevice_sdk.catalogue import ModelSpec, gguf, layout
from ondevice_sdk.chooser import Chooser, Settings
from ondevice_sdk.errors import ConfigurationError, ModelNotInstalled, Unsupported
from ondevice_sdk.inventory import is_path
from ondevice_sdk.quantise import workers
from ondevice_sdk.quantise.runtimes import usable
from ondevice_sdk.store import Store, formats
from ondevice_sdk.types import DeviceProfile

PrecisionName = Literal["f32", "f16", "bf16", "int8", "int4"]
Origin = Literal["installed", "file", "random", "made"]

PRECISIONS: Final[tuple[PrecisionName, ...]] = get_args(PrecisionName)
FORMAT: Final = "gguf"
_EXACT: Final = ("f32", "f16", "bf16")  # what trained weights come in
_BITS: Final = {"f32": 32.0, "f16": 16.0, "bf16": 16.0, "int8": 8.5, "int4": 4.5}  # of a weight, at least
_MORE: Final = 1.5  # times that: matrices that are kept finer, and the vocabulary
_RANDOM: Final = {"f32": "F32", "f16": "F16", "bf16": "BF16", "int8": "Q8_0", "int4": "Q4_0"}


@dataclass(frozen=True, slots=True)
class Contender:
    """A model file in one precision.

    `made_from` is the quantisation of the file that it was made of for this run, `requantised` whether that had lost
    precision already, so that this one is no better.
    """

    precision: PrecisionName
    subject: Subject
    origin: Origin
    made_from: str | None = None
    requantised: bool = False


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A precision that was not measured, and why."""

    precision: PrecisionName
    reason: str


def check_precisions(words: Sequence[str]) -> tuple[PrecisionName, ...]:
    """The precisions of these words, in their order.

    Raises:
        ConfigurationError: fewer than two, one that is not known, or one twice.
    """
    known: dict[str, PrecisionName] = {name: name for name in PRECISIONS}
    hint = f"two or more of {', '.join(PRECISIONS)}, as in bf16,int8,int4"
    if isinstance(words, str):
        raise ConfigurationError("precisions are a list of words", hint=hint)
    for word in words:
        if word not in known:
            raise ConfigurationError(f"there is no precision {word!r}", hint=hint)
    if len(set(words)) < len(words):
        raise ConfigurationError("a precision is named twice", hint=hint)
    if len(words) < 2:
        raise ConfigurationError("a comparison needs at least two precisions", hint=hint)
    return tuple(known[word] for word in words)


@dataclass(frozen=True, slots=True)
class Family:
    """One model in the precisions that are here.

    `source` is the file that others are made of; `shape` is set, and nothing else, where random weights are written.
    """

    label: str
    here: dict[str, LocalModel]
    source: LocalModel | None
    origin: Origin
    shape: ModelSpec | None = None

    def bytes_at_least(self, precision: PrecisionName) -> int:
        """What the weights take in this precision."""
        if self.shape is not None:
            return sum(tensor.size for tensor in layout.tensors(self.shape.shape, _RANDOM[precision]))
        if precision in self.here:
            return self.here[precision].size()
        assert self.source is not None
        headers = [gguf.read_header(path) for path in self.source.files or (self.source.path,)]
        return int(sum(sum(each.tensor_types.values()) for each in headers) * _BITS[precision] / 8)


def family(
    model: str | None,
    *,
    store: Store,
    device: DeviceProfile,
    conditions: Conditions,
    specs: Sequence[ModelSpec] | None = None,
) -> Family:
    """What there is of a model.

    Args:
        model: a name, whose installed variants all count; `name:variant`, which others are made of; the path of a file;
            `random:SHAPE`; None: the one that a client takes.
        store: where models are.
        device: this machine.
        conditions: of the client that chooses.
        specs: another catalogue.

    Raises:
        ConfigurationError, ModelNotInstalled, ModelCorrupt, NoModelFits.
        Unsupported: it is in a format of which no precisions are known.
    """
    if model is not None and model.startswith(RANDOM):
        return _random(model, specs or catalogue.load())
    if model is not None and is_path(model):
        file = store.from_path(model)
        return _of_files(Path(model).name, [file], file, "file")
    if model is None:
        settings = Settings(privacy=conditions.privacy, backends=conditions.backends, context=conditions.context_tokens)
        name, variant = Chooser(settings, store, device).resolve().model.name, None
    else:
        name, variant = catalogue.split_name(model)
    files = [
        store.resolve(each.name, each.variant)
        for each in store.installed()
        if each.name == name and variant in (None, each.variant)
    ]
    if not files:
        if name not in {each.name for each in store.installed()}:
            catalogue.get(name)  # raises, with the nearest names
        raise ModelNotInstalled(
            f"the model {model} is not installed", model=model, hint=f"ondevice models pull {model}"
        )
    return _of_files(name if variant is None else f"{name}:{variant}", files, None, "installed")


def _random(word: str, specs: Sequence[ModelSpec]) -> Family:
    if word.count(":") > 1:
        raise ConfigurationError(
            f"{word!r} names a quantisation, and --compare takes its own",
            hint="random:SHAPE, as in random:llama-3.2-1b",
        )
    spec, _ = random_plan(f"{word}:BF16", specs)
    return Family(word, {}, None, "random", spec)


def _of_files(label: str, files: Sequence[LocalModel], source: LocalModel | None, origin: Origin) -> Family:
    readable = [each for each in files if each.format == FORMAT]
    if not readable:
        raise Unsupported(f"{label} is no GGUF file, and has no other precisions", capability="precisions")
    here: dict[str, LocalModel] = {}
    for each in sorted(readable, key=lambda file: (file.variant not in PRECISIONS, file.variant)):
        if (precision := _precision(each)) is not None:
            here.setdefault(precision, each)
    return Family(label, here, source or max(readable, key=LocalModel.size), origin)


def _precision(model: LocalModel) -> PrecisionName | None:
    """Told by the format of most weights; None where it is none of those that are compared."""
    kind = quantisation(gguf.read_header(model.path))
    exact: dict[str, PrecisionName] = {"F32": "f32", "F16": "f16", "BF16": "bf16", "Q8_0": "int8"}
    return exact.get(kind) or ("int4" if kind.startswith(("Q4_", "IQ4_")) else None)


def contender(
    family: Family,
    precision: PrecisionName,
    *,
    store: Store,
    device: DeviceProfile,
    work: Callable[[], Path],
    specs: Sequence[ModelSpec] | None = None,
    on_progress: OnProgress | None = None,
) -> Contender:
    """The model in this precision: a file that is here, or one that is made now.

    Args:
        family: the model.
        precision: which.
        store: where random models are kept.
        device: this machine.
        work: gives the directory for what is made and not kept.
        specs: another catalogue.
        on_progress: told how far the making is.

    Raises:
        Unsupported: no usable backend can make it. StoreError: no room. LoadFailed, WorkerCrashed, ModelCorrupt.
    """
    if family.shape is not None:
        word = f"{RANDOM}{family.shape.name}:{_RANDOM[precision]}"
        (found,) = find([word], store=store, specs=specs, on_progress=on_progress)
        return Contender(precision, Subject(precision, found.model, random=True), "random")
    if precision in family.here:
        return Contender(precision, Subject(precision, family.here[precision].path), family.origin)
    assert family.source is not None
    source, kind = family.source, quantisation(gguf.read_header(family.source.path))
    room = int(_MORE * family.bytes_at_least(precision))
    most = int(_MORE * family.bytes_at_least("f32"))  # a small model is mostly vocabulary, which is kept finer
    writer = writing_backend(device)
    if writer is None:
        raise Unsupported(
            f"no usable backend writes {FORMAT} models in other precisions",
            capability="quantise",
            hint="pip install 'ondevice-sdk[llama-cpp]'",
        )
    path = _make(source, precision, work() / precision, room, most, writer[1], device, on_progress)
    requantised = _precision(source) not in _EXACT
    return Contender(precision, Subject(precision, str(path)), "made", kind, requantised)


def writing_backend(device: DeviceProfile) -> tuple[str, Compressor] | None:
    """The first usable backend that writes such models in other precisions."""

    def writer(backend: Backend) -> Compressor | None:
        found = backend.compressor()
        return found if found is not None and found.model_format == FORMAT else None

    return next(((backend.name, tool) for backend, _, tool in usable(registry.installed(), device, writer)), None)


def _make(
    source: LocalModel,
    precision: PrecisionName,
    folder: Path,
    room: int,
    most: int,
    compressor: Compressor,
    device: DeviceProfile,
    on_progress: OnProgress | None,
) -> Path:
    wanted = compressor.quantisations.get(precision, precision.upper())
    path = folder / f"model.{source.format}"
    workers.write(
        compressor.writer,
        path,
        {"source": source.path, "quantisation": wanted, "importance": None, "threads": device.threads},
        read=source.files or (source.path,),
        room=room,
        most=most,
        on_progress=workers.percent(f"write {precision} ({wanted})", on_progress),
    )
    formats.inspect(path)
    return path
