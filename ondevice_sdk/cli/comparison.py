"""What `ondevice bench --compare` prints."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ondevice_sdk.cli import output

if TYPE_CHECKING:
    from ondevice_sdk.bench import Comparison


def show(comparison: Comparison) -> None:
    """The table, what was published beside it, and what a reader must know."""
    from ondevice_sdk.bench import kind, shown
    from ondevice_sdk.bench.comparison import COLUMNS
    from ondevice_sdk.bench.comparison_page import TITLES, about, ratio_cell, values

    def heads() -> list[str]:
        return [f">{TITLES[name]}{', tok/s' if kind(name).unit == 'tokens/s' else ''}" for name in COLUMNS]

    device, sizes, first = comparison.device, comparison.sizes, comparison.rows[0]
    versions = ", ".join(f"{name} {version}" for name, version in comparison.library_versions.items())
    print(f"{device.cpu_name}, {device.usable_cores} cores, {output.size(device.memory_bytes)}; {versions}")
    size = "" if comparison.parameters is None else f"{comparison.parameters / 1e9:.3g} billion parameters, "
    size += "random weights, " if first.random else ""
    run_by = f"{first.backend}, {first.threads} threads, context of {first.context_tokens} tokens"
    print(f"{comparison.model}: {size}{run_by}\n")
    made = output.table(f"against {first.precision}", *heads())
    for row in comparison.rows:
        cells = []
        for name in COLUMNS:
            figure = row.figures.get(name)
            value = "not measured" if figure is None else shown(figure.median.value, figure.unit)
            cells.append("\n".join(filter(None, (value, *ratio_cell(row, name)))))
        made.add_row(f"{row.precision} ({row.quantisation})", *cells)
    output.show(made)
    if comparison.published:
        print(f"{comparison.published[0].model}, {comparison.published[0].where}:\n")
        elsewhere = output.table("against BF16", *heads())
        for each in comparison.published:
            elsewhere.add_row(each.method, *("\n".join(filter(None, cell)) for cell in values(each)))
        output.show(elsewhere)
    for row in comparison.rows:
        if said := about(row):
            print(f"  {row.precision}: {said}")
    if comparison.filled:
        lengths = f"a prompt of {sizes.prompt_tokens} tokens, {sizes.decode_tokens} written after it"
    else:
        lengths = (
            f"prompt {sizes.prompt_tokens} tokens, first token after {sizes.first_token_prompt_tokens}, "
            f"decode {sizes.decode_tokens} after {sizes.decode_prompt_tokens}"
        )
    print(f"{lengths}; memory of app and worker from a cold start")
    print(f"{comparison.pairs} rounds in turns, {comparison.seconds:.0f} s; ratios round by round, with 95 % intervals")
    for out in comparison.left_out:
        print(f"warning: {out.precision} was left out: {out.reason}", file=sys.stderr)
    for warning in comparison.warnings:
        print(f"warning: {warning}", file=sys.stderr)
