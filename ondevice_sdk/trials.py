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
from typing import TYPE_CHECKING, Final, Literal, cast

from ondevice_sdk.errors import ConfigurationError, LoadFailed, WorkerCrashed
from ondevice_sdk.types import JsonValue, PrivacyLevel, Progress

if TYPE_CHECKING:
    from ondevice_sdk.privacy.attempts.attempt import Attempt
    from ondevice_sdk.privacy.attempts.range import Range
    from ondevice_sdk.runtime.probe_worker import Returned

Verdict = Literal["refused", "escaped", "residual", "not_testable"]
Run = Callable[..., "Returned"]  # as `run_in_worker`

TIMEOUT_S: Final = 15.0  # for one attempt; a busy machine
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
    crew = _Crew(run or run_in_worker, python_command(worker_command), worker_command, now, on_progress)
    crew.check("strict")
    crew.check("off")
    made = crew.work(lanes)
    return summarise(
        (made[attempt.id] for attempt in now), left_out=left_out, seconds=round(time.monotonic() - start, 1)
    )


class _Crew:
    """Threads that take attempts from one list."""

    def __init__(
        self,
        run: Run,
        python: Sequence[str],
        worker_command: Sequence[str] | None,
        attempts: Sequence[Attempt],
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._run = run
        self._python = python
        self._worker_command = worker_command
        self._total = len(attempts)
        self._on_progress = on_progress
        self._todo: queue.SimpleQueue[Attempt] = queue.SimpleQueue()
        for attempt in attempts:
            self._todo.put(attempt)
        self._made: dict[str, Trial] = {}
        self._errors: list[BaseException] = []
        self._lock = threading.Lock()

    def check(self, level: PrivacyLevel) -> None:
        """See that a worker starts and runs a function at all, for else nothing would be proved by a failure.

        Raises:
            PrivacyUnavailable, WorkerCrashed.
        """
        answer = self._run(
            "ondevice_sdk.privacy.attempts.inside:answer", privacy=level, worker_command=self._worker_command
        )
        if answer.value != "here":
            raise WorkerCrashed("the worker did not run a harmless function")

    def work(self, lanes: int) -> dict[str, Trial]:
        """Make all attempts."""
        threads = [threading.Thread(target=self._lane, name="ondevice-trials", daemon=True) for _ in range(lanes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]
        return self._made

    def _lane(self) -> None:
        from ondevice_sdk.privacy.attempts.range import Range

        try:
            with Range(self._python) as place:
                while not self._errors:
                    try:
                        attempt = self._todo.get_nowait()
                    except queue.Empty:
                        return
                    trial = self._try(place, attempt)
                    with self._lock:
                        self._made[trial.id] = trial
                        if self._on_progress is not None:
                            self._on_progress(Progress("attempts", len(self._made), self._total, "attempts"))
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            self._errors.append(error)

    def _try(self, place: Range, attempt: Attempt) -> Trial:
        evidence, control_note = self._once(place, attempt, "off")
        control = attempt.proof in evidence
        out, note = self._once(place, attempt, "strict")  # sealed, every kind of proof counts
        verdict: Verdict = "refused" if control else "not_testable"
        if out:
            verdict = "residual" if attempt.layer == "none" else "escaped"
        return Trial(attempt.id, attempt.group, attempt.about, verdict, control, control_note, note)

    def _once(self, place: Range, attempt: Attempt, level: PrivacyLevel) -> tuple[frozenset[str], str]:
        """Try it: the evidence that it got through, and what the system answered."""
        from ondevice_sdk.privacy.attempts import inside

        claim, text, note = False, "", ""
        with place.shot(control=level != "strict") as shot:
            try:
                answer = self._run(
                    inside.ENTRY,
                    privacy=level,
                    arguments={
                        "attempt": attempt.id,
                        "group": attempt.group,
                        "reach": cast("JsonValue", dataclasses.asdict(shot.reach)),
                    },
                    read=(shot.reach.model,),
                    timeout_s=TIMEOUT_S,
                    worker_command=self._worker_command,
                ).value
            except (WorkerCrashed, LoadFailed) as error:
                note = error.message  # it was killed for it, or became another program: the evidence decides
                if level == "strict":
                    self.check(level)
            else:
                claim, text, note = _told(answer)
            return shot.evidence(text, claim=claim), note


def _told(answer: JsonValue) -> tuple[bool, str, str]:
    """Claim, text and note; of a worker that is not trusted."""
    fields = answer if isinstance(answer, dict) else {}
    return fields.get("claim") is True, str(fields.get("text", "")), str(fields.get("note", ""))[:200]
