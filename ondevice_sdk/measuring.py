"""The measurement of installed models: each backend that can run one in a sealed worker of its own, all in turns.

The workers are those that serve requests, and the clock is the app's, so that a figure has in it all that a request
pays, whatever a backend says of itself. Figures are kept for one model file, backend, library, processor and number of
threads; with another of these they are not believed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ondevice_sdk import calibration, errors
from ondevice_sdk.backends.api import (
    GREEDY,
    Capability,
    Done,
    Failed,
    Generate,
    Generated,
    LoadOptions,
    LocalModel,
    Raw,
    Segment,
    Usage,
)
from ondevice_sdk.backends.measured import ModelSpeed, Round
from ondevice_sdk.catalogue.plain import build
from ondevice_sdk.errors import ConfigurationError, GenerationFailed, LoadFailed, OnDeviceError, WorkerCrashed
from ondevice_sdk.runtime import Executor, open_executor
from ondevice_sdk.types import DeviceProfile

FORMAT: Final = 1  # of the kept files, and of what is measured
CONTEXT: Final = 2048  # tokens, of all sequences
SEQUENCES: Final = 8
SECONDS: Final = 4.0  # of turns for each that takes part, without loading
LEAST_ROUNDS: Final = 6  # with fewer the range of the rounds is no 95 % interval
MOST_ROUNDS: Final = 12
_PROMPTS: Final = (512, 256, 128, 64)  # tokens of the long prompt: the most that take about a second
_PROMPT_S: Final = 1.0
_ANSWERS: Final = (32, 16, 8, 4)  # tokens of the answer, likewise
_ANSWER_S: Final = 0.7
_SHORT: Final = 24  # tokens of the prompt before an answer
_PATIENCE_S: Final = 120.0  # for one request
_FAULTS: Final = (errors.BackendUnavailable, ConfigurationError, LoadFailed, errors.ModelCorrupt,
                  errors.ModelUnsupported, errors.Unsupported, errors.InputTooLong, GenerationFailed,
                  WorkerCrashed)  # fmt: skip
_TEXT: Final = (
    "The ferry leaves the small harbour at seven in the morning and comes back when the lamps are lit. It carries "
    "letters, bread, two bicycles and whoever has business on the other side: a teacher, a carpenter, now and then a "
    "doctor with 14 parcels. In winter, when the wind is from the north, the journey takes 50 minutes instead of 35. "
)


@dataclass(frozen=True, slots=True)
class Rival:
    """An installed model with a usable backend that reads its format.

    `digest` is of all files of the model; `memory_bytes` what a worker with it needs while it is measured; `predicted`
    says that the backend can be calibrated, so that its speeds are known without this.
    """

    name: str
    variant: str
    digest: str
    backend: str
    entry: str = field(repr=False)
    library: str
    memory_bytes: int
    predicted: bool


def contests(rivals: Sequence[Rival]) -> list[tuple[Rival, ...]]:
    """Those that are to be measured, by model: where backends compete for it, or one cannot be calibrated."""
    models: dict[str, list[Rival]] = {}
    for rival in rivals:
        models.setdefault(rival.name, []).append(rival)
    return [
        tuple(group)
        for group in models.values()
        if len({rival.backend for rival in group}) > 1 or not all(rival.predicted for rival in group)
    ]


def kept(folder: Path, rival: Rival, device: DeviceProfile) -> ModelSpeed | None:
    """What was measured before; None if nothing was, it is of another library, or damaged."""
    try:
        data = json.loads(_file(folder, rival, device).read_text(encoding="utf-8"))
        found = _checked(data)
    except (OSError, ValueError, RecursionError, OnDeviceError):
        return None
    same = (found.backend, found.library, found.threads) == (rival.backend, rival.library, device.threads)
    # One file may be installed under two names.
    return dataclasses.replace(found, name=rival.name, variant=rival.variant) if same else None


def is_settled(folder: Path, contest: Sequence[Rival], device: DeviceProfile, *, room: int) -> bool:
    """Whether all of them were measured, together where there is room for that, or could not be run."""
    found = [kept(folder, rival, device) for rival in contest]
    sessions = {each.session for each in found if each is not None and not each.failed}
    return all(found) and (len(sessions) <= 1 or not _together(contest, room))


def measure(
    folder: Path,
    contest: Mapping[Rival, LocalModel],
    device: DeviceProfile,
    *,
    room: int,
    seconds: float = SECONDS,
    on_progress: Callable[[float], None] | None = None,
) -> tuple[ModelSpeed, ...]:
    """Let the rivals run in turns, and keep the figures in `folder`. What cannot be run is kept as that.

    Args:
        folder: where figures are kept; made when needed.
        contest: who takes part, with the checked files.
        device: this device.
        room: bytes that may be used: where they are not enough for all, one is run after the other.
        seconds: of turns for each.
        on_progress: called with the share of the work that is done.

    Raises:
        StoreError: the figures cannot be kept.
    """
    calibration.make_folder(folder)  # before the seconds are spent
    rivals = [*contest]
    groups = [rivals] if _together(rivals, room) else [[rival] for rival in rivals]
    made: list[ModelSpeed] = []
    for number, group in enumerate(groups):

        def tell(share: float, number: int = number) -> None:
            if on_progress is not None:
                on_progress((number + share) / len(groups))

        with ExitStack() as stack:
            models = [contest[rival] for rival in group]
            made += _Session(group, device, stack).run(models, seconds * len(group), tell)
    for rival, speed in zip(rivals, made, strict=True):
        keep(folder, rival, device, speed)
    return tuple(made)


def keep(folder: Path, rival: Rival, device: DeviceProfile, speed: ModelSpeed) -> None:
    """Write down what was measured.

    Raises:
        StoreError.
    """
    calibration.keep(_file(folder, rival, device), {"format": FORMAT, "speed": dataclasses.asdict(speed)})


def _together(contest: Sequence[Rival], room: int) -> bool:
    return sum(rival.memory_bytes for rival in contest) <= room


class _Session:
    """Rivals that take turns."""

    def __init__(self, rivals: Sequence[Rival], device: DeviceProfile, stack: ExitStack) -> None:
        self._rivals = rivals
        self._device = device
        self._stack = stack
        self._name = os.urandom(8).hex()
        self._failed: dict[Rival, str] = {}
        self._rounds: dict[Rival, list[Round]] = {rival: [] for rival in rivals}

    def run(self, models: Sequence[LocalModel], seconds: float, tell: Callable[[float], None]) -> list[ModelSpeed]:
        """Load all, warm them up, then as many rounds as there is time for."""
        tracks: dict[Rival, _Track] = {}
        for number, (rival, model) in enumerate(zip(self._rivals, models, strict=True), 1):
            with self._noting(rival):
                tracks[rival] = self._load(rival, model)
                tracks[rival].warm()
            tell(0.3 * number / len(models))
        running = [rival for rival in tracks if rival not in self._failed]
        prompt = _most(_PROMPTS, _PROMPT_S, max((tracks[rival].row_s for rival in running), default=0.0))
        prompt = min([prompt, *(tracks[rival].context_tokens // 2 for rival in running)])
        answer = _most(_ANSWERS, _ANSWER_S, max((tracks[rival].token_s for rival in running), default=0.0))
        for rival in running:
            with self._noting(rival):
                tracks[rival].turn(prompt, answer)  # with these lengths, what is only slow the first time
        began = time.monotonic()
        while running := [rival for rival in running if rival not in self._failed]:
            count = len(self._rounds[running[0]])
            passed = time.monotonic() - began
            if count == MOST_ROUNDS or (count >= LEAST_ROUNDS and passed * (1 + 1 / count) > seconds):
                break
            tell(0.4 + 0.6 * min(1.0, max(count / MOST_ROUNDS, passed / seconds)))
            for rival in running if count % 2 == 0 else running[::-1]:  # what drifts meanwhile favours none
                with self._noting(rival):
                    self._rounds[rival].append(tracks[rival].turn(prompt, answer))
        tell(1.0)
        return [self._speed(rival, tracks.get(rival), answer) for rival in self._rivals]

    def _load(self, rival: Rival, model: LocalModel) -> _Track:
        executor = open_executor(
            rival.entry,
            model,
            LoadOptions(CONTEXT, SEQUENCES, threads=self._device.threads),
            isolation="process",
            privacy=calibration.best_privacy(),
        )
        self._stack.callback(executor.close)
        return _Track(executor)

    @contextmanager
    def _noting(self, rival: Rival) -> Iterator[None]:
        """A block in which a rival may fail: the others go on without it."""
        try:
            yield
        except _FAULTS as error:
            self._failed[rival] = "".join(c if c.isprintable() else "?" for c in error.message)[:200]

    def _speed(self, rival: Rival, track: _Track | None, answer: int) -> ModelSpeed:
        made = ModelSpeed(rival.name, rival.variant, rival.backend, rival.library, self._device.threads, self._name)
        if rival in self._failed or track is None:
            return dataclasses.replace(made, failed=self._failed.get(rival, "it was not loaded"))
        return dataclasses.replace(
            made,
            prompt_tokens=track.prompt_tokens,
            position=track.answer_after + answer // 2,
            rounds=tuple(self._rounds[rival]),
        )


class _Track:
    """One model in its worker, and how it runs."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        # Drafts would make an answer faster by what its text happens to repeat; this way nothing is drafted.
        self._stepwise = Capability.DETERMINISTIC in executor.loaded.capabilities
        self.context_tokens = executor.loaded.context_tokens
        self._asked = 0
        self._characters = 4.0  # of a token
        self.row_s = self.token_s = 0.0  # about
        self.prompt_tokens = self.answer_after = 0  # as the model counts them

    def warm(self) -> None:
        """Find out what a token is, and about how long it takes."""
        first = self._ask(_SHORT, 1)[1]
        self._characters *= _SHORT / max(1, first.prompt_tokens)
        self._ask(_SHORT, 4)
        wait_s, usage = self._ask(2 * _SHORT, 1)
        self.row_s = wait_s / usage.prompt_tokens
        self.token_s = max(0.0, self._ask(2 * _SHORT, 5)[0] - wait_s) / 4

    def turn(self, prompt: int, answer: int) -> Round:
        """A long prompt with one token after it; then what more tokens take after a short one."""
        first_s, long = self._ask(prompt, 1)
        one_s, short = self._ask(_SHORT, 1, stepwise=self._stepwise)
        all_s, _ = self._ask(_SHORT, 1 + answer, stepwise=self._stepwise)
        self.prompt_tokens, self.answer_after = long.prompt_tokens, short.prompt_tokens
        return Round(first_s, max(all_s - one_s, 1e-6) / answer)

    def _ask(self, prompt: int, tokens: int, *, stepwise: bool = False) -> tuple[float, Usage]:
        """Seconds by this clock, and what was counted."""
        request = Generate(
            Raw((Segment(self._prompt(prompt)),)), tokens, GREEDY, ignore_eos=True, deterministic=stepwise
        )
        ended = threading.Event()
        began = time.perf_counter()
        ticket = self._executor.submit(request)
        ticket.set_wakeup(ended.set)
        try:
            while True:
                if not ended.wait(_PATIENCE_S):
                    raise GenerationFailed(f"no token came in {_PATIENCE_S:.0f} s")
                ended.clear()
                took = time.perf_counter() - began
                for event in ticket.take():
                    if isinstance(event, Failed):
                        raise GenerationFailed(event.error.message)
                    if isinstance(event, Done) and isinstance(event.result, Generated):
                        usage = event.result.usage
                        if usage.completion_tokens != tokens or not 0 < usage.prompt_tokens <= CONTEXT:
                            raise GenerationFailed("another number of tokens came than was asked for")
                        return took, usage
        except BaseException:  # Ctrl-C too: nothing goes on behind it
            ticket.cancel()
            raise

    def _prompt(self, tokens: int) -> str:
        """A text that shares no beginning with the ones before, so that nothing of it is known already."""
        self._asked += 1
        length = int(tokens * self._characters)
        start = self._asked * 37 % len(_TEXT)
        text = _TEXT * (2 + length // len(_TEXT))
        return f"{self._asked} {text[start : start + length]}"


def _most(choices: Sequence[int], limit_s: float, each_s: float) -> int:
    return next((count for count in choices if count * each_s <= limit_s), choices[-1])


def _file(folder: Path, rival: Rival, device: DeviceProfile) -> Path:
    """One for each model, backend and processor; what was measured with a former library is overwritten."""
    what = (FORMAT, rival.digest, rival.backend, *calibration.hardware(device))
    return folder / f"model-{hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]}.json"


def _checked(data: object) -> ModelSpeed:
    """Make figures of JSON values.

    Raises:
        ConfigurationError: they are none, or impossible.
    """
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ConfigurationError("measured speed: of another format")
    made = build(ModelSpeed, data.get("speed"), "measured speed")
    seconds = [each for turn in made.rounds for each in (turn.first_s, turn.token_s)]
    words = (made.name, made.variant, made.backend, made.library, made.session, made.failed)
    if not all(word.isprintable() and len(word) <= 1000 for word in words) or made.threads < 1:
        raise ConfigurationError("measured speed: impossible words")
    if made.failed:
        return dataclasses.replace(made, rounds=())
    if not all(math.isfinite(each) and each > 0 for each in seconds) or not 0 < len(made.rounds) <= MOST_ROUNDS:
        raise ConfigurationError("measured speed: impossible figures")
    if not (0 < made.prompt_tokens <= CONTEXT and 0 < made.position <= CONTEXT):
        raise ConfigurationError("measured speed: impossible lengths")
    return made
