"""One sequence through the sealed worker beside the bare library: `ondevice bench`, with the goals beside the figures.

Prompt, decode, a stream of a `Client` (greedy, default sampling, held to a schema), and which share of the read
bandwidth decoding uses. `--memory` takes two models instead, such as random:llama-3.2-1b:Q4_0 and
random:llama-3.2-1b:BF16, and compares the most memory that app and worker have had resident.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final

import figures

from ondevice_sdk import bench
from ondevice_sdk.bench import Conditions, MeasureName, Sizes, SubjectResult
from ondevice_sdk.bench.goals import Goal, Row, compared
from ondevice_sdk.types import Progress

MEASURES: Final[tuple[MeasureName, ...]] = ("prompt", "decode", "streamed", "sampled", "schema")
GOALS: Final = {
    "prompt_tokens_per_s": Goal(0.97),
    "decode_tokens_per_s": Goal(0.97),
    "streamed_tokens_per_s": Goal(0.97),
    "sampled_tokens_per_s": Goal(0.97),
    "schema_tokens_per_s": Goal(0.90),
}
LARGE_BYTES: Final = 500_000_000  # the processor caches no noticeable part of such weights
BANDWIDTH_GOALS: Final = {"BF16": 0.8, "Q4_0": 0.6, "Q4_1": 0.6, "Q4_K_M": 0.6}
MEMORY_GOAL: Final = Goal(0.45, at_least=False)


def engine_rows(result: SubjectResult) -> list[Row]:
    """What was measured beside the bare library, and the share of the bandwidth."""
    rows = []
    for name, goal in GOALS.items():
        figure = result.figures.get(name)
        if figure is None or figure.ratio is None or figure.library is None:
            continue
        ours, theirs = (f"{side.value:.4g} {figure.unit}" for side in (figure.median, figure.library))
        said = f"bare library {theirs}"
        rows.append(Row(bench.kind(name).title, result.label, figure.ratio, len(figure.samples), goal, ours, said))
    share = result.figures.get("read_bandwidth_share")
    if share is not None:
        bound = BANDWIDTH_GOALS.get(result.quantisation) if result.file_bytes >= LARGE_BYTES else None
        goal_or_none = None if bound is None else Goal(bound, unit="share")
        library = "" if share.library is None else f"bare library {share.library.value:.2f}"
        rows.append(
            Row(
                f"Decode, share of the read bandwidth of {result.threads} threads ({result.quantisation})",
                result.label,
                share.median,
                len(share.samples),
                goal_or_none,
                f"{share.median.value:.2f}",
                library,
                "share",
            )
        )
    return rows


def memory_row(small: SubjectResult, large: SubjectResult) -> Row:
    """Peak memory of app and worker of the first, over that of the second."""
    one, two = (each.figures["peak_memory_bytes"].samples for each in (small, large))
    megabytes = [[value / 1e6 for value in side] for side in (one, two)]
    name = f"peak memory of app and worker, {small.quantisation} against {large.quantisation}"
    return compared(name, small.label, *megabytes, unit="MB", goal=MEMORY_GOAL, whom=large.quantisation)


def start_rows(result: SubjectResult) -> list[Row]:
    """What a cold start consists of, as `ondevice bench --measure cold` sees it from the app."""
    names: Sequence[str] = (
        "first_token_cold_s",
        "app_import_s",
        "choose_s",
        "worker_start_s",
        "load_s",
        "first_prompt_s",
    )
    return [
        Row(
            bench.kind(name).title,
            result.label,
            result.figures[name].median,
            len(result.figures[name].samples),
            ours=f"p90 {statistics.quantiles(samples, n=10)[-1]:.3f} s" if len(samples) > 1 else "",
            unit="s",
        )
        for name in names
        if (samples := result.figures[name].samples)
    ]


def main() -> None:
    parser = figures.parser(__doc__, pairs=24)
    parser.add_argument("--memory", action="store_true", help="peak memory of the first model against the second's")
    options = parser.parse_args()
    if options.memory and len(options.models) != 2:
        parser.error("--memory compares two models")
    table = figures.Table(as_json=options.json)
    report = bench.run(
        options.models,
        measures=("cold",) if options.memory else MEASURES,
        pairs=min(options.pairs, 2) if options.quick else options.pairs,
        sizes=bench.QUICK if options.quick else Sizes(),
        conditions=Conditions(against_library=not options.memory, backend="llama_cpp"),
        on_progress=tell,
    )
    for result in report.subjects:
        table.add(*(start_rows(result) if options.memory else engine_rows(result)))
        for note in result.notes:
            figures.tell(f"note: {result.label}: {note}")
    if options.memory:
        table.add(memory_row(*report.subjects))
    for warning in report.warnings:
        figures.tell(f"warning: {warning}")
    table.close()


def tell(event: Progress) -> None:
    """A line for each sample."""
    figures.tell(f"{event.stage} {event.done + 1}/{event.total}")


if __name__ == "__main__":
    figures.run(main)
