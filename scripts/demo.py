"""What `make demo` shows: a real model summarises a document in a process that cannot reach the network."""

from __future__ import annotations

import sys
import textwrap
import time
from pathlib import Path

from rich.console import Console

from ondevice_sdk import Client, OnDeviceError, models
from ondevice_sdk.cli import output

MODEL = "smollm2-135m-instruct"
DOCUMENT = Path(__file__).parent.parent / "examples" / "data" / "harbour_bridge.txt"


def main() -> None:
    console = Console(width=110, highlight=False)
    times: list[tuple[str, float]] = []

    def stage(name: str, since: float) -> None:
        times.append((name, time.perf_counter() - since))

    start = time.perf_counter()
    console.print(f"[bold]1. pull[/] {MODEL} (the only step that may open a connection)")
    with output.progress("pull") as on_progress:
        model = models.pull(MODEL, on_progress=on_progress)
    console.print(f"   {model.name}:{model.variant}, {output.size(model.size)}, sha256 {model.sha256[:16]}...\n")
    stage("pull", start)

    with Client() as ai:
        start = time.perf_counter()
        console.print("[bold]2. choose[/] the best model for this device")
        selection = ai.explain("summarise")
        info = ai.model
        chosen = next(c for c in selection.candidates if (c.name, c.variant) == (info.name, info.variant))
        console.print(
            f"   uses {info.name} in {info.variant} on {info.backend}: the best that is installed; needs about "
            f"{output.size(chosen.memory_bytes)}"
        )
        console.print(f"   of all in the catalogue: {selection.reason}\n")
        stage("choose", start)

        start = time.perf_counter()
        console.print("[bold]3. load[/] it in a sealed worker")
        with output.progress("load"):
            report = ai.privacy_report()
        console.print(f"   {report.summary}\n", soft_wrap=True)
        stage("load", start)

        start = time.perf_counter()
        text = DOCUMENT.read_text(encoding="utf-8")
        console.print(f"[bold]4. summarise[/] {DOCUMENT.name} ({len(text.split())} words)\n")
        with output.progress("summarise") as on_progress:
            summary = ai.summarise(text, on_progress=on_progress)
        stage("summarise", start)

    for point in summary.points:
        console.print(textwrap.indent(textwrap.fill(point.text, 100), "   ").replace("   ", " * ", 1), markup=False)
        for span in point.sources:
            quote = textwrap.shorten(" ".join(span.text.split()), 84, placeholder=" ...")
            console.print(f"      {point.status}, characters {span.start}-{span.end}: “{quote}”", style="dim")
    usage = summary.usage
    console.print(
        f"\n   read {summary.coverage.fraction:.0%} of the document in {summary.coverage.calls} calls; "
        f"{usage.prompt_tokens} prompt tokens, {usage.completion_tokens} written"
    )
    console.print("\n[bold]times[/]  " + "   ".join(f"{name} {seconds:.1f} s" for name, seconds in times))


if __name__ == "__main__":
    try:
        main()
    except OnDeviceError as error:
        output.show_error(error, as_json=False)
        sys.exit(1)
