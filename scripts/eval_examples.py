"""What examples do for labels: zero-shot, fixed draws of examples, and naive prompts, on several sets pooled.

Of each set every fourth row is kept for examples and is not measured with them: a draw takes some of these at random
(seeds 0, 1, ...), and all draws are measured on the same other rows. Zero-shot and the naive prompts are measured on
all rows. Differences are paired row by row.

`--keep FILE` remembers what is done (labels and confidences, no texts), so that a stopped run goes on where it was.
Run: `python scripts/eval_examples.py --data DIR`, with `--sets topic_sib200_en` for others than those of sentiment.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ondevice_sdk import Client
from ondevice_sdk.evaluate import sets
from ondevice_sdk.evaluate.compare import About, Outcomes, compare
from ondevice_sdk.evaluate.data import read_records
from ondevice_sdk.evaluate.measures.labels import (
    ACCURACY,
    ANSWER_TOKENS,
    CALIBRATION,
    MACRO_F1,
    LabelMeasure,
    asked_of,
    listed,
    parse_label,
)
from ondevice_sdk.evaluate.metrics import Labelled, accuracy
from ondevice_sdk.evaluate.report import cells, columns, shown
from ondevice_sdk.evaluate.session import Session
from ondevice_sdk.intervals import Interval, mean

SENTIMENT: Final = ("sentiment_movie_sentences", "sentiment_product_sentences")
EVERY: Final = 4  # of so many rows one is kept for examples
PIECE: Final = 50  # rows that are measured between two writes to the file

Answer = tuple[str | None, float | None]


@dataclass(frozen=True, slots=True)
class Task:
    """A set: its texts with their labels, and what is asked of them."""

    name: str
    rows: Sequence[tuple[str, str]] = field(repr=False)
    shown: dict[str, str]
    form: Any
    prompts: Sequence[Any]

    @property
    def measured(self) -> list[tuple[str, str]]:
        """The rows that are never examples."""
        return [row for index, row in enumerate(self.rows) if index % EVERY]

    def draw(self, count: int, seed: int) -> list[tuple[str, str]]:
        """Examples."""
        return random.Random(seed).sample(list(self.rows[::EVERY]), count)


class Kept:
    """Answers by the name of what was asked, in a file if there is one."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._done: dict[str, list[Answer]] = {}
        if path is not None and path.exists():
            for line in path.read_text("utf-8").splitlines():
                entry = json.loads(line)
                self._done[entry["key"]] = [(label, confidence) for label, confidence in entry["answers"]]

    def answers(
        self, key: str, rows: Sequence[tuple[str, str]], make: Callable[[list[str]], list[Answer]]
    ) -> list[Labelled]:
        """The answers to all rows; what is missing is made piece by piece."""
        found: list[Answer] = []
        for start in range(0, len(rows), PIECE):
            piece = f"{key} {start}"
            if piece not in self._done:
                self._done[piece] = make([text for text, _ in rows[start : start + PIECE]])
                if self._path is not None:
                    with self._path.open("a", encoding="utf-8") as file:
                        file.write(json.dumps({"key": piece, "answers": self._done[piece]}) + "\n")
            found += self._done[piece]
        return [Labelled(gold, *answer) for (_, gold), answer in zip(rows, found, strict=True)]


def load(folder: Path, name: str, most: int | None) -> Task:
    """A set of labels, all rows or the first so many."""
    measure = next((each.measure for each in sets.chosen((name,)) if isinstance(each.measure, LabelMeasure)), None)
    if measure is None:
        raise SystemExit(f"{name} is no set of labels")
    whole = read_records(folder / f"{name}.jsonl")
    labels = measure.labels_of(whole)
    rows = [(record.string(measure.text), record.string(measure.label)) for record in whole[:most]]
    shown, form, prompts = asked_of(measure.family, labels)
    return Task(name, [row for row in rows if row[1] in labels], shown, form, prompts)


def analysed(client: Client, task: Task, examples: Sequence[tuple[str, str]]) -> Callable[[list[str]], list[Answer]]:
    """What the SDK says."""

    def make(texts: list[str]) -> list[Answer]:
        values = Session(client).analyse(texts, task.form, examples=examples).values
        return [(None, None) if value is None else (str(value.output), value.confidence) for value in values]

    return make


def naive(client: Client, task: Task, number: int) -> Callable[[list[str]], list[Answer]]:
    """What the model says to one of the plain prompts."""

    def make(texts: list[str]) -> list[Answer]:
        fills = [{"text": text, "labels": listed(list(task.shown.values()))} for text in texts]
        asked = Session(client).ask([task.prompts[number]], fills, ANSWER_TOKENS)
        return [(parse_label(said, task.shown), None) for said in asked.answers[task.prompts[number].id]]

    return make


def difference(ours: Sequence[Sequence[Labelled]], base: Sequence[Labelled]) -> Interval:
    """How much more is right on average over several runs than in one, row by row."""
    pairs = [statistics.fmean(run[index].right for run in ours) - row.right for index, row in enumerate(base)]
    return mean(pairs)


def main() -> None:
    """Measure and print a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=list(SENTIMENT))
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--rows", type=int, help="the first so many of each set; else all")
    parser.add_argument("--examples", type=int, default=16)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--no-naive", action="store_true")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    tasks = [load(options.data, name, options.rows) for name in options.sets]
    kept = Kept(options.keep)
    with Client(options.model) as client:
        zero = [kept.answers(f"zero {task.name}", task.rows, analysed(client, task, ())) for task in tasks]
        drawn = [
            [
                kept.answers(
                    f"draw {seed} of {options.examples} {task.name}",
                    task.measured,
                    analysed(client, task, task.draw(options.examples, seed)),
                )
                for task in tasks
            ]
            for seed in range(options.draws)
        ]
        plain = {
            prompt.id: [
                kept.answers(f"naive {prompt.id} {task.name}", task.rows, naive(client, task, number)) for task in tasks
            ]
            for number, prompt in enumerate(tasks[0].prompts)
            if not options.no_naive
        }
    report(options.sets, zero, drawn, plain)


def report(
    names: Sequence[str],
    zero: Sequence[Sequence[Labelled]],
    drawn: Sequence[Sequence[Sequence[Labelled]]],
    plain: dict[str, list[list[Labelled]]],
) -> None:
    """Print the figures."""

    def flat(parts: Sequence[Sequence[Labelled]]) -> list[Labelled]:
        return [row for part in parts for row in part]

    def rest(parts: Sequence[Sequence[Labelled]]) -> list[Labelled]:
        return [row for part in parts for index, row in enumerate(part) if index % EVERY]

    print("| " + " | ".join(columns()) + " |\n|---|--:|---|--:|--:|--:|--:|--:|--:|")
    groups = [([index], name) for index, name in enumerate(names)]
    for held, name in [*groups, (list(range(len(names))), "pooled")] if len(names) > 1 else groups:
        about = About(name, "labels")
        outcomes = Outcomes(
            flat([zero[i] for i in held]), {prompt: flat([said[i] for i in held]) for prompt, said in plain.items()}
        )
        for row in (compare(about, ACCURACY, outcomes), compare(about, MACRO_F1, outcomes)):
            print("| " + " | ".join(cells(row)) + " |")
        print("| " + " | ".join(cells(compare(about, CALIBRATION, Outcomes(outcomes.sdk)))) + " |")
    if not drawn:
        return
    base = rest(zero)
    runs = [flat(parts) for parts in drawn]
    figures = [accuracy(run) for run in runs]
    errors = [CALIBRATION.figure(run) for run in runs]
    print(f"\nExamples, {len(runs)} draws, {len(base)} rows that are never examples:")
    print(f"* zero-shot {accuracy(base):.3f}, with examples {statistics.fmean(figures):.3f} on average")
    print(f"  ({', '.join(f'{figure:.3f}' for figure in figures)}), worst {min(figures):.3f}")
    print(f"* difference to zero-shot {shown(difference(runs, base), signed=True)}")
    if plain:
        best = max(plain, key=lambda name: accuracy(rest(plain[name])))
        print(f"* best naive prompt on these rows: {best}, {accuracy(rest(plain[best])):.3f}")
    print(f"* calibration error {statistics.fmean(errors):.3f} on average, {max(errors):.3f} at worst")


if __name__ == "__main__":
    main()
