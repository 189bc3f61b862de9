"""The `calibrate` command: how fast this device computes, and what installed models do on it, measured."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ondevice_sdk import Client, errors
from ondevice_sdk.cli import output

if TYPE_CHECKING:
    from ondevice_sdk.backends.calibration import Calibration
    from ondevice_sdk.types import Progress


def calibrate(
    again: Annotated[bool, typer.Option("--again", help="Measure also what was measured before.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure this device, some seconds for each backend, so that speeds are known before a model is downloaded.

    Installed models that several backends can run are measured with each of them, in turns.
    """
    with Client(privacy="off") as ai:  # no text is at hand; what is measured runs sealed where that is possible
        made = measure_device(ai, again=again)
        selection = ai.explain()
    if as_json:
        output.show_json(made)
        return
    if not made and not any(each.measured for each in selection.candidates):
        raise errors.BackendUnavailable("no backend that can be measured is usable here", hint="ondevice backends")
    for each in made:
        _show(each)
    output.show_measured(selection)


def measure_device(ai: Client, *, again: bool) -> tuple[Calibration, ...]:
    """Calibrate with a bar on a terminal, else with a line, both on standard error."""
    with output.progress("device") as bar:
        told: set[str] = set()

        def line(event: Progress) -> None:
            if event.stage not in told:
                print(f"{event.stage}, once (some 10 s) ...", file=sys.stderr, flush=True)
            told.add(event.stage)

        return ai.calibrate(again=again, on_progress=bar or line)


def _show(calibration: Calibration) -> None:
    from ondevice_sdk.catalogue.layout import BLOCKS

    print(f"{calibration.library}, {calibration.threads} threads; measured in {calibration.took_s:.0f} s")
    made = output.table("weights", ">threads", ">read, GB/s", ">prompt, GFLOP/s")
    for rate in calibration.rates:
        values, size = BLOCKS.get(rate.format, (1, 0))
        read = f"{size / values / rate.decode_s / 1e9:.1f}" if size else ""
        made.add_row(rate.format, str(rate.threads), read, f"{2 / rate.prompt_s / 1e9:.0f}")
    output.show(made)
    if calibration.disturbance > output.NOISY:
        print("other programs ran meanwhile: `ondevice calibrate --again` on a quiet machine gives better figures")
    print(f"besides: {1e6 * calibration.layer_s:.0f} us a layer, {1e6 * calibration.pass_s:.0f} us a token")
