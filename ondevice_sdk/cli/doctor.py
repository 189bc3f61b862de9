"""The `doctor` command."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from ondevice_sdk.cli import output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ondevice_sdk.doctor import Diagnosis
    from ondevice_sdk.types import Progress

_STEP = 20  # attempts between two lines of progress where there is no terminal


def doctor(
    full: Annotated[bool, typer.Option("--full", help="Also attempts that may make the kernel load modules.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")] = False,
) -> None:
    """Prove the privacy of workers on this machine by trying to break it; look at hardware, backends and store."""
    from ondevice_sdk.doctor import examine

    with _progress() as on_progress:
        diagnosis = examine(full=full, on_progress=on_progress)
    if as_json:
        output.show_json(diagnosis)
    else:
        _show(diagnosis)
    if not diagnosis.ok:
        raise typer.Exit(1)


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal, else a line now and then; both on standard error."""
    with output.progress("privacy") as bar:

        def line(event: Progress) -> None:
            if event.done % _STEP == 0 or event.done == event.total:
                print(f"privacy: {event.done} of {event.total} attempts", file=sys.stderr, flush=True)

        yield bar or line


def _show(diagnosis: Diagnosis) -> None:
    privacy, hardware, store = diagnosis.privacy, diagnosis.hardware, diagnosis.store
    for reason in privacy.reasons:
        print(f"strict privacy cannot be enforced here: {reason}")
    if privacy.tried:
        _show_attempts(diagnosis)
    memory = f"{output.size(hardware.memory_available_bytes)} of {output.size(hardware.memory_bytes)} memory free"
    print(f"\nhardware: {hardware.cpu_name}, {hardware.usable_cores} cores, {memory}")
    for limit in hardware.limits:
        print(f"  {limit}")
    for backend in diagnosis.backends:
        state = "usable" if backend.usable else f"not usable: {backend.reason} {backend.hint}".rstrip()
        print(f"backend {backend.name}: {state}")
    print(f"store: {store.root}{'' if store.writable else ' (cannot be written)'}")
    for model in store.models:
        print(f"  {model.name}:{model.variant} {model.state}")
    for warning in diagnosis.warnings:
        print(f"warning: {warning}")


def _show_attempts(diagnosis: Diagnosis) -> None:
    privacy = diagnosis.privacy
    made = output.table(
        "attempts to escape", ">tried", ">control succeeded", ">refused", ">escaped", ">known gaps", ">not testable"
    )
    for name, part in [*privacy.groups.items(), ("total", privacy)]:
        counts = (part.tried, part.control_succeeded, part.refused)
        made.add_row(
            name, *map(str, counts), *(str(len(ids)) for ids in (part.escaped, part.residual, part.not_testable))
        )
    output.show(made)
    for trial in privacy.attempts:
        if trial.verdict in ("escaped", "residual"):
            label = "ESCAPED" if trial.verdict == "escaped" else "known gap"
            print(f"{label}: {trial.id}: {trial.about}")
    if privacy.not_testable:
        print(f"not testable here (without a seal they fail too): {', '.join(privacy.not_testable)}")
    if privacy.left_out:
        print(f"left to --full: {', '.join(privacy.left_out)}")
    verdict = "nothing escaped" if privacy.enforced else f"{len(privacy.escaped)} ESCAPED"
    print(
        f"{privacy.tried} tried, {privacy.control_succeeded} get out of a worker without a seal, "
        f"{privacy.refused} of them refused by strict privacy: {verdict} ({privacy.seconds:.0f} s)"
    )
