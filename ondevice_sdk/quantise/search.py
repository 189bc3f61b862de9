"""Try layouts of a model one after the other: write, compare with the source for exactness and speed, keep the best."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Final

from ondevice_sdk import calibration
from ondevice_sdk.backends.api import Backend, LoadOptions, LocalModel, Relayer
from ondevice_sdk.call import ProgressCallback
from ondevice_sdk.errors import (
    GenerationFailed,
    LoadFailed,
    ModelCorrupt,
    ModelUnsupported,
    OnDeviceError,
    WorkerCrashed,
)
from ondevice_sdk.intervals import Interval, bootstrap
from ondevice_sdk.quantise import layouts, logits, speed, workers
from ondevice_sdk.quantise.divergence import divergence_of, read_windows, reported, to_load
from ondevice_sdk.quantise.layouts import Layout, Source
from ondevice_sdk.quantise.results import Tried
from ondevice_sdk.quantise.speed import Round, Speeds
from ondevice_sdk.quantise.workers import percent
from ondevice_sdk.runtime.probe_worker import run_in_worker
from ondevice_sdk.selection import usable_memory
from ondevice_sdk.store import formats
from ondevice_sdk.store.derived import MeasuredOn, SpeedUp
from ondevice_sdk.store.files import readable
from ondevice_sdk.types import DeviceProfile

MOST_KL: Final = 0.005  # nats a token, at the upper end of the interval
LEAST_GAIN: Final = 1.1  # times as fast: for less, another file is not worth its space
LEAST_DECODE: Final = 0.9  # of the source's speed, for one stream: nobody should have to wait notably longer
SECONDS: Final = 15.0  # for comparing the speed of one copy
WINDOW: Final = 256  # tokens that are read with one context
QUICK_TOKENS: Final = 4 * WINDOW  # enough to see that a copy is out of the question
TOKENS: Final = 28 * WINDOW
_SHIFT: Final = 520  # characters: half a window, so that a second reading scores the tokens between
_FAULTS: Final = (LoadFailed, GenerationFailed, ModelUnsupported, ModelCorrupt, WorkerCrashed)


@dataclass(frozen=True, slots=True)
class Runtime:
    """A backend that can write models in other formats."""

    backend: Backend
    entry: str
    relayer: Relayer

    def measured_on(self, device: DeviceProfile) -> MeasuredOn:
        """Where its figures hold."""
        return MeasuredOn.here(device, self.backend.name, self.relayer.library)


@dataclass(frozen=True, slots=True)
class Copy:
    """A layout that was found to be better, as it lies on the disk."""

    layout: Layout
    path: Path
    kl: Interval
    speed_up: SpeedUp


class _Rejected(Exception):
    def __init__(self, verdict: str, kl: Interval | None = None, speed_up: SpeedUp | None = None) -> None:
        super().__init__(verdict)
        self.verdict, self.kl, self.speed_up = verdict, kl, speed_up


@dataclass(slots=True)
class Search:
    """Tries layouts, and knows the best so far; no more than two copies are on the disk at a time."""

    model: LocalModel
    source: Source
    runtime: Runtime
    device: DeviceProfile
    work: Path
    on_progress: ProgressCallback | None
    tried: list[Tried] = field(default_factory=list)
    crowded: bool = False  # a layout was left out for want of memory
    _best: Copy | None = None
    _stage: str = ""

    def run(self, candidates: Sequence[Layout]) -> Copy | None:
        """The best of them; None if none is better than the source.

        Raises:
            StoreError, PrivacyUnavailable, Unsupported; the error of the first layout if no layout could be run.
        """
        faults: list[OnDeviceError] = []
        for number, layout in enumerate(candidates, 1):
            self._stage = f"{layout.name} ({number} of {len(candidates)})"
            folder = self.work / str(number)
            try:
                copy = self._try(layout, folder)
            except _Rejected as rejected:
                self._note(layout, rejected.verdict, rejected.kl, rejected.speed_up)
                shutil.rmtree(folder, ignore_errors=True)
            except _FAULTS as fault:
                faults.append(fault)
                self._note(layout, f"cannot be run: {fault.message}")
                shutil.rmtree(folder, ignore_errors=True)
            else:
                self._note(layout, f"{copy.speed_up.score.value:.2f} times as fast", copy.kl, copy.speed_up)
                if self._best is not None:
                    shutil.rmtree(self._best.path.parent, ignore_errors=True)
                self._best = copy
        if faults and len(faults) == len(candidates):
            raise faults[0]
        return self._best

    def why_nothing(self) -> str:
        """The reason for leaving the model as it is."""
        if not self.tried:
            return "no other layout is predicted to be faster here"
        verdicts = "; ".join(f"{each.layout}: {each.verdict}" for each in self.tried)
        return f"it is already the fastest of what was tried ({verdicts})"

    def _note(self, layout: Layout, verdict: str, kl: Interval | None = None, speed_up: SpeedUp | None = None) -> None:
        self.tried.append(Tried(layout.name, verdict, layout.size, kl, speed_up))

    def _try(self, layout: Layout, folder: Path) -> Copy:
        self._check_memory(layout)
        copy = self._write(layout, folder)
        kl = self._divergence(copy, "exactness, a first look", QUICK_TOKENS)
        if kl.low > MOST_KL:
            raise _Rejected(f"strays too far from its source: KL {kl}", kl)
        gain = self._compare(copy)
        if gain.score.value < LEAST_GAIN or gain.score.low <= 1:
            raise _Rejected(f"not faster: {gain.score}", kl, gain)
        if gain.decode.high < LEAST_DECODE:
            raise _Rejected(f"one stream is slower: {gain.decode}", kl, gain)
        if self._best is not None and gain.score.value <= self._best.speed_up.score.value:
            raise _Rejected(f"faster ({gain.score}), but less so than {self._best.layout.name}", kl, gain)
        kl = self._divergence(copy, "exactness", TOKENS)
        if kl.high > MOST_KL:
            raise _Rejected(f"strays too far from its source: KL {kl}", kl, gain)
        return Copy(layout, Path(copy.path), kl, gain)

    def _check_memory(self, layout: Layout) -> None:
        """Source and copy are loaded side by side."""
        options = LoadOptions(speed.CONTEXT, speed.SEQUENCES)
        shape = self.source.shape
        both = [self.runtime.backend.estimate(shape, size, options) for size in (self.source.size, layout.size)]
        needed = both[0].total + both[1].total - both[1].process + logits.working_bytes(shape.vocabulary)
        room = usable_memory(self.device)
        if needed > room:
            self.crowded = True
            raise _Rejected(f"not tried: beside its source it needs {readable(needed)}, {readable(room)} can be used")

    def _write(self, layout: Layout, folder: Path) -> LocalModel:
        path = folder / f"copy.{self.model.format}"
        workers.write(
            self.runtime.relayer.writer,
            path,
            {"source": self.model.path, "formats": dict(layout.changed), "threads": self.device.threads},
            read=(self.model.path,),
            room=layout.size,
            on_progress=self._telling("writing"),
        )
        formats.inspect(path)
        return replace(self.model, path=str(path), sha256="", files=(str(path),))

    def _divergence(self, copy: LocalModel, doing: str, tokens: int) -> Interval:
        return divergence_of(
            read_windows(
                [(self.runtime.entry, copy), (self.runtime.entry, self.model)],
                reading(),
                tokens=tokens,
                window=WINDOW,
                threads=self.device.threads,
                privacy=calibration.best_privacy(),
                on_progress=self._telling(doing),
            )
        )

    def _compare(self, copy: LocalModel) -> SpeedUp:
        returned = run_in_worker(
            speed.ENTRY,
            privacy=calibration.best_privacy(),
            arguments={
                "copy": to_load(self.runtime.entry, copy),
                "source": to_load(self.runtime.entry, self.model),
                "text": reading(),
                "threads": self.device.threads,
                "seconds": SECONDS,
            },
            read=(copy.path, self.model.path),
            timeout_s=workers.SILENCE_S,
            on_progress=self._telling("speed"),
        )
        answer = returned.value if isinstance(returned.value, dict) else {}
        if "error" in answer:
            raise reported(answer["error"])
        rounds = speed.read_rounds(answer)
        if rounds is None:
            raise WorkerCrashed("the worker gave an answer that is none")
        return speed_up(rounds)

    def _telling(self, doing: str) -> Callable[[float], None] | None:
        return percent(f"{self._stage}: {doing}", self.on_progress)


def speed_up(rounds: Sequence[Round]) -> SpeedUp:
    """The medians over rounds of the copy's speeds by its source's, drawn from pairs."""

    def figure(ratio: Callable[[Round], float]) -> Interval:
        return bootstrap(rounds, lambda drawn: statistics.median(map(ratio, drawn)))

    def all_of(pair: Round) -> float:
        return layouts.score({name: getattr(pair.copy, name) / getattr(pair.source, name) for name in layouts.WEIGHTS})

    def one_of(pick: Callable[[Speeds], float]) -> Callable[[Round], float]:
        return lambda pair: pick(pair.copy) / pick(pair.source)

    return SpeedUp(
        prompt=figure(one_of(lambda speeds: speeds.prompt)),
        decode=figure(one_of(lambda speeds: speeds.decode)),
        batched=figure(one_of(lambda speeds: speeds.batched)),
        score=figure(all_of),
    )


def reading() -> str:
    """The text that copies are compared on: prose, lists, code, tables and talk, some of it not in English.

    It comes twice, the second time without its beginning: in windows half of the tokens are context, and now others.
    """
    text = (resources.files("ondevice_sdk.quantise") / "text.txt").read_text(encoding="utf-8")
    return f"{text}\n\n{text[_SHIFT:]}"
