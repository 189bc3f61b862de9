"""How long quantising a model takes, step by step, and how much memory of their own app and worker need for it.

The quality report, whose length is a choice, is told apart from the rest. The model is made in a store of its own,
which is deleted afterwards. Memory is looked at from outside, ten times a second: pages that belong to no file, of this
process and all that it starts, together.

Run: `python scripts/bench_quantise_run.py random:qwen3-0.6b:BF16 [--method presinq+imatrix] [--to int4]`, or with a
path or the name of an installed model. Weights drawn at random say nothing about quality.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

import figures

from ondevice_sdk import models
from ondevice_sdk.bench import subjects
from ondevice_sdk.bench.goals import Goal, Row
from ondevice_sdk.bench.memory import anonymous_bytes, children
from ondevice_sdk.intervals import Interval
from ondevice_sdk.store import Store
from ondevice_sdk.store.files import private_dir, split_name
from ondevice_sdk.types import Progress

TIME: Final = Goal(180.0, at_least=False, unit="s")
MEMORY: Final = Goal(2.0, at_least=False)
PERIOD_S: Final = 0.1
REPORT: Final = "quality report"  # the stage of `models.quantise`


class Watch:
    """The most anonymous memory of this process and its children, in bytes."""

    def __init__(self) -> None:
        self.peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(PERIOD_S):
            self.peak = max(self.peak, sum(map(anonymous_bytes, [os.getpid(), *children(os.getpid())])))


class Stages:
    """When each step was first heard of."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self.began = time.monotonic()
        self.begun: list[tuple[str, float]] = []

    def hear(self, progress: Progress) -> None:
        """Note a step when it begins; what is heard first of it is its first percent."""
        if not self.begun or self.begun[-1][0] != progress.stage:
            self.begun.append((progress.stage, time.monotonic()))
            passed, peak = time.monotonic() - self.began, self._watch.peak
            figures.tell(f"{passed:6.1f} s  {peak / 1e9:5.2f} GB at most so far; {progress.stage}")


def exactly(value: float) -> Interval:
    """A figure of one run has no interval."""
    return Interval(value, value, value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="random:qwen3-0.6b:BF16", help="as `ondevice bench` takes them")
    parser.add_argument("--method", default="presinq+imatrix")
    parser.add_argument("--to", default="int4")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    options = parser.parse_args()
    (subject,) = subjects.find([options.model])
    own = Store.open()
    path = Path(subject.model) if Path(subject.model).is_file() else Path(own.resolve(*split_name(subject.model)).path)
    table = figures.Table(as_json=options.json)
    with tempfile.TemporaryDirectory(dir=private_dir(own.root)) as folder, Watch() as watch:
        stages = Stages(watch)
        made = models.quantise(
            path,
            to=options.to,
            method=options.method,
            name="measured",
            store=Store.open(Path(folder)),
            on_progress=stages.hear,
        )
        ended = time.monotonic()
    steps = [*stages.begun, ("", ended)]
    for (stage, at), (_, after) in itertools.pairwise(steps):
        table.add(Row(stage, subject.label, exactly(after - at), 1, unit="s"))
    report = next(at for stage, at in stages.begun if stage == REPORT)
    size = path.stat().st_size
    ours, theirs = (f"{count / 1e9:.2f} GB" for count in (watch.peak, size))
    table.add(
        Row("quantise, quality report apart", subject.label, exactly(report - stages.began), 1, TIME),
        Row("quantise, in all", subject.label, exactly(ended - stages.began), 1, unit="s"),
        Row("anonymous memory / file", subject.label, exactly(watch.peak / size), 1, MEMORY, ours, theirs),
        Row("size / source's", subject.label, exactly(made.size / size), 1),
    )
    table.close()


if __name__ == "__main__":
    figures.run(main)
