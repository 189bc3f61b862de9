"""Tries to get out of workers: every escape attempt once without a seal, as a control, and once in strict privacy.

An attempt counts as refused only where its control got through on this very machine; else it proves nothing and is "not
testable here".
"""

from __future__ import annotations

import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, cast

from ondevice_sdk.errors import ConfigurationError, WorkerCrashed
from ondevice_sdk.types import JsonValue, PrivacyLevel, Progress

if TYPE_CHECKING:
    from ondevice_sdk.privacy.attempts.attempt import Attempt
    from ondevice_sdk.privacy.attempts.range import Range
    from ondevice_sdk.runtime.probe_worker import Returned

Verdict = Literal["refused", "escaped", "residual", "not_testable"]
Run = Callable[..., "Returned"]  # as `run_in_worker`

TIMEOUT_S: Final = 15.0  # for one attempt; a busy machine
_LONGEST_NOTE: Final = 200
LANES: Final = 2  # attempts at a time, each with a range of its own


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one attempt.

    `verdict`: refused (and the control got through), escaped, residual (a gap that is known and documented), or
    not_testable (the control did not get through either). `control_note` and `note` say what the system answered.
    """

    id: str
    group: str
    about: str
    verdict: Verdict
    control: bool
    control_note: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Trials:
    """What became of all attempts.

    `tried` attempts were made; `control_succeeded` of them get through without a seal, and prove something. The ids in
    `escaped` got through strict privacy: it must be empty. Those in `left_out` need `full`.
    """

    tried: int
    control_succeeded: int
    refused: int
    escaped: tuple[str, ...]
    residual: tuple[str, ...]
    not_testable: tuple[str, ...]
    left_out: tuple[str, ...]
    seconds: float
    attempts: tuple[Trial, ...]

    @property
    def groups(self) -> dict[str, Trials]:
        """The same for each group."""
        names = dict.fromkeys(trial.group for trial in self.attempts)
        return {name: summarise(trial for trial in self.attempts if trial.group == name) for name in names}


def summarise(trials: Iterable[Trial], *, left_out: Iterable[str] = (), seconds: float = 0.0) -> Trials:
    """Count."""
    made = tuple(trials)

    def ids(verdict: Verdict) -> tuple[str, ...]:
        return tuple(trial.id for trial in made if trial.verdict == verdict)

    return Trials(
        tried=len(made),
        control_succeeded=sum(trial.control for trial in made),
        refused=len(ids("refused")),
        escaped=ids("escaped"),
        residual=ids("residual"),
        not_testable=ids("not_testable"),
        left_out=tuple(left_out),
        seconds=seconds,
        attempts=made,
    )


def run_trials(
    ids: Sequence[str] | None = None,
    *,
    full: bool = False,
    lanes: int = LANES,
    on_progress: Callable[[Progress], None] | None = None,
    worker_command: Sequence[str] | None = None,
    run: Run | None = None,
) -> Trials:
    """Make the attempts; nothing leaves the machine, and nothing is left behind.

    Args:
        ids: which; all by default.
        full: also those whose control may make the kernel load a module.
        lanes: how many at a time.
        on_progress: called from the threads that make them, one at a time.
        worker_command: the command that starts a Python.
        run: what runs a function in a worker, as `run_in_worker`.

    Raises:
        ConfigurationError: an id that is not known, or no Python to start.
        PrivacyUnavailable: strict privacy cannot be enforced here.
        WorkerCrashed: workers do not start at all.
        LoadFailed: the attempts themselves are broken.
    """
    from ondevice_sdk.privacy import policy

    policy.check_available("strict")  # also where the modules of the attempts cannot be imported
    from ondevice_sdk.privacy.attempts.catalogue import ATTEMPTS
    from ondevice_sdk.runtime.environment import python_command
    from ondevice_sdk.runtime.probe_worker import run_in_worker

    unknown = [name for name in ids or () if name not in ATTEMPTS]
    if unknown:
        raise ConfigurationError(f"there is no attempt named {unknown[0]!r}")
    chosen = [ATTEMPTS[name] for name in ids] if ids is not None else list(ATTEMPTS.values())
    now = [attempt for attempt in chosen if full or not attempt.full]
    left_out = [attempt.id for attempt in chosen if attempt not in now]
    start = time.monotonic()
    crew = _Crew(run or run_in_worker, python_command(worker_command), worker_command, on_progress)
    crew.check("strict")
    crew.check("off")
    controls, sealed = crew.work(_jobs(now), lanes)
    trials = (_trial(attempt, controls[attempt.id], sealed[attempt.id]) for attempt in now)
    return summarise(trials, left_out=left_out, seconds=round(time.monotonic() - start, 1))


@dataclass(frozen=True, slots=True)
class _Job:
    """Attempts to make in one worker."""

    level: PrivacyLevel
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class _Try:
    """What one attempt came to at one level: the kinds of proof that it got through, and the system's answer."""

    evidence: frozenset[str]
    note: str


def _jobs(attempts: Sequence[Attempt]) -> list[_Job]:
    """Every control in a worker of its own; sealed, a group together, to be told apart only if something gets out."""
    gaps = [attempt for attempt in attempts if attempt.layer == "none"]
    groups: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        if attempt not in gaps:
            groups.setdefault(attempt.group, []).append(attempt)
    together = [_Job("strict", tuple(members)) for members in groups.values()]
    return [*together, *(_Job("strict", (gap,)) for gap in gaps), *(_Job("off", (attempt,)) for attempt in attempts)]


def _trial(attempt: Attempt, control: _Try, sealed: _Try) -> Trial:
    proved = attempt.proof in control.evidence
    verdict: Verdict = "refused" if proved else "not_testable"
    if sealed.evidence:  # sealed, any kind of proof counts
        verdict = "residual" if attempt.layer == "none" else "escaped"
    return Trial(attempt.id, attempt.group, attempt.about, verdict, proved, control.note, sealed.note)


class _Crew:
    """Threads that take jobs from one list."""

    def __init__(
        self,
        run: Run,
        python: Sequence[str],
        worker_command: Sequence[str] | None,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._run = run
        self._python = python
        self._worker_command = worker_command
        self._on_progress = on_progress
        self._todo: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._total = 0
        self._done: dict[bool, dict[str, _Try]] = {True: {}, False: {}}  # by whether it was sealed
        self._errors: list[BaseException] = []
        self._lock = threading.Lock()

    def check(self, level: PrivacyLevel) -> None:
        """See that a worker starts and runs a function at all, for else nothing would be proved by a failure.

        Raises:
            PrivacyUnavailable, WorkerCrashed.
        """
        entry = "ondevice_sdk.privacy.attempts.inside:answer"
        if self._run(entry, privacy=level, worker_command=self._worker_command).value != "here":
            raise WorkerCrashed("the worker did not run a harmless function")

    def work(self, jobs: Sequence[_Job], lanes: int) -> tuple[dict[str, _Try], dict[str, _Try]]:
        """Do all jobs; the controls by id, and the sealed tries."""
        for job in jobs:
            self._total += len(job.attempts)
            self._todo.put(job)
        threads = [threading.Thread(target=self._lane, name="ondevice-trials", daemon=True) for _ in range(lanes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]
        return self._done[False], self._done[True]

    def _lane(self) -> None:
        from ondevice_sdk.privacy.attempts.range import Range

        try:
            with Range(self._python) as place:
                while not self._errors:
                    try:
                        job = self._todo.get_nowait()
                    except queue.Empty:
                        return
                    for name, outcome in self._do(place, job).items():
                        self._note(job, name, outcome)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            self._errors.append(error)

    def _note(self, job: _Job, name: str, outcome: _Try) -> None:
        with self._lock:
            self._done[job.level == "strict"][name] = outcome
            if self._on_progress is not None:
                done = sum(map(len, self._done.values()))
                self._on_progress(Progress("attempts", done, self._total, "tries"))

    def _do(self, place: Range, job: _Job) -> dict[str, _Try]:
        from ondevice_sdk.privacy.attempts import inside

        answer: JsonValue = None
        killed = ""
        with place.shot(control=job.level != "strict") as shot:
            try:
                answer = self._run(
                    inside.ENTRY,
                    privacy=job.level,
                    arguments={
                        "attempts": [[attempt.group, attempt.id] for attempt in job.attempts],
                        "reach": cast("JsonValue", dataclasses.asdict(shot.reach)),
                    },
                    read=(shot.reach.model,),
                    timeout_s=TIMEOUT_S * len(job.attempts),
                    worker_command=self._worker_command,
                ).value
            except WorkerCrashed as error:  # killed for it, or it became another program: the evidence decides
                killed = error.message
            told = [] if killed else _told(answer, len(job.attempts))
            evidence = shot.evidence("\n".join(row.text for row in told), claim=any(row.claim for row in told))
        if killed and job.level == "strict":
            self.check(job.level)
        if len(job.attempts) == 1:
            return {job.attempts[0].id: _Try(evidence, killed or told[0].note)}
        if told and not evidence:
            return {attempt.id: _Try(evidence, row.note) for attempt, row in zip(job.attempts, told, strict=True)}
        alone = [_Job(job.level, (attempt,)) for attempt in job.attempts]
        return {name: outcome for each in alone for name, outcome in self._do(place, each).items()}


class _Told(NamedTuple):
    """What an attempt says of itself."""

    claim: bool
    text: str
    note: str


def _told(answer: JsonValue, expected: int) -> list[_Told]:
    """Read the answer of a worker that is not trusted.

    Raises:
        WorkerCrashed: it did not answer what it was asked.
    """
    rows = [row for row in answer if isinstance(row, dict)] if isinstance(answer, list) else []
    if len(rows) != expected:
        raise WorkerCrashed("the worker gave another answer than the attempts give")
    return [
        _Told(row.get("claim") is True, str(row.get("text", "")), str(row.get("note", ""))[:_LONGEST_NOTE])
        for row in rows
    ]
