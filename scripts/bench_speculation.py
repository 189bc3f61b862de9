"""Drafts from what the text said before: tokens per second with them and without, in turns.

Two sealed workers have the same model and get the same prompts; one of them never drafts. `rewrite` asks for a text
again with a word replaced, `extract` for the sentences of a document one after another: both copy long runs. `free`
asks for stories, greedily and with the default sampling. Greedy answers must be the same on both sides; how many are
not is told. The prompts are laid out plainly and begin the answer, so that a small model does what it is asked for.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

import figures

from ondevice_sdk.backends.api import GREEDY, Done, Failed, Generate, Generated, PromptProgress, Raw, Sampling, Segment
from ondevice_sdk.bench import Subject, find
from ondevice_sdk.bench.goals import Goal, compared
from ondevice_sdk.errors import GenerationFailed, rebuild
from ondevice_sdk.runtime import open_executor
from ondevice_sdk.runtime.executor import Executor

PATIENCE_S: Final = 3600.0
PARAGRAPH: Final = 6  # sentences of a text that is copied
LONG: Final = 16  # of a document that sentences are taken from
SUBJECTS: Final = (
    ("a lighthouse keeper", "her dog"), ("two sisters", "a broken clock"), ("a young baker", "the last train"),
    ("an old teacher", "a letter from abroad"), ("a river pilot", "the winter flood"), ("a tailor", "a silver button"),
    ("three children", "an empty house"), ("a gardener", "the mayor's garden"), ("a violinist", "a lost bow"),
    ("a beekeeper", "a storm in June"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Task:
    """A kind of prompt, how its answer is chosen, and what drafts are to bring."""

    name: str
    prompt: Callable[[random.Random, Sequence[str]], str]
    sampled: bool
    goal: float


def rewrite(chance: random.Random, sentences: Sequence[str]) -> str:
    """A text that is to be written again."""
    text = _passage(chance, sentences, PARAGRAPH)
    return f"The text:\n{text}\n\nThe same text again, with every spelling mistake corrected:\n{text.split('. ')[0]}."


def extract(chance: random.Random, sentences: Sequence[str]) -> str:
    """A document of which a part is to be quoted."""
    text = _passage(chance, sentences, LONG)
    parts = text.split(". ")
    return f"The document:\n{text}\n\nThe second half of the document, word for word:\n{parts[len(parts) // 2]}."


def free(chance: random.Random, _: Sequence[str]) -> str:
    """A story that nobody has told yet."""
    who, what = chance.choice(SUBJECTS)
    return f"A story about {who} and {what}, number {chance.randrange(10_000)}.\n\nIt was"


def _passage(chance: random.Random, sentences: Sequence[str], number: int) -> str:
    start = chance.randrange(max(1, len(sentences) - number))
    return " ".join(sentences[start : start + number])


TASKS: Final = (
    Task("rewrite", rewrite, False, 1.3),
    Task("extract", extract, False, 1.3),
    Task("free text, greedy", free, False, 0.97),
    Task("free text, default sampling", free, True, 0.97),
)


def sentences_of() -> list[str]:
    """Sentences of the text that the package carries."""
    text = (files("ondevice_sdk.quantise") / "text.txt").read_text(encoding="utf-8")
    return re.split(r"(?<=[.!?])\s+", text.strip())


def answer(executor: Executor, prompt: str, tokens: int, sampling: Sampling) -> tuple[float, str, int]:
    """Tokens per second after the first, the answer, and how many tokens it has."""
    arrived, told = threading.Event(), [0.0]
    ticket = executor.submit(Generate(Raw((Segment(prompt),)), tokens, sampling, ignore_eos=True, stream=True))
    ticket.set_wakeup(arrived.set)
    try:
        while arrived.wait(PATIENCE_S):
            arrived.clear()
            now = time.perf_counter()
            for event in ticket.take():
                if isinstance(event, PromptProgress) and event.done == event.total:
                    told[0] = now
                elif isinstance(event, Failed):
                    raise rebuild(event.error.code, event.error.message, event.error.hint, event.error.data)
                elif isinstance(event, Done):
                    assert isinstance(event.result, Generated)
                    written = event.result.usage.completion_tokens
                    return (written - 1) / max(now - told[0], 1e-6), event.result.text, written
    except BaseException:  # Ctrl-C too
        ticket.cancel()
        raise
    raise GenerationFailed("the worker does not answer")


def measure(subject: Subject, options: argparse.Namespace, table: figures.Table) -> None:
    """All tasks of one model."""
    target = figures.target(subject)
    sentences = sentences_of()
    if str(Path(__file__).parent) not in sys.path:
        sys.path.append(str(Path(__file__).parent))  # where the worker finds the other backend
    with ExitStack() as stack:
        sides: list[Executor] = []
        for entry in (target.chosen.entry, "plain_backend:PlainBackend"):
            executor = open_executor(
                entry, target.chosen.model, target.chosen.options, isolation="process", privacy="strict"
            )
            stack.callback(executor.close)
            sides.append(executor)
        for task in TASKS:
            chance = random.Random(task.name)
            speeds: tuple[list[float], list[float]] = ([], [])
            different = 0
            for turn in range(-1, options.pairs):
                prompt = task.prompt(chance, sentences)
                sampling = Sampling(seed=turn + 1) if task.sampled else GREEDY
                texts = ["", ""]
                for side in (0, 1) if turn % 2 else (1, 0):
                    speed, texts[side], _ = answer(sides[side], prompt, options.tokens, sampling)
                    if turn >= 0:
                        speeds[side].append(speed)
                if turn >= 0:
                    different += texts[0] != texts[1]
                    figures.tell(
                        f"{subject.label} {task.name} {turn + 1}/{options.pairs}: {speeds[0][-1]:.1f} with, "
                        f"{speeds[1][-1]:.1f} tokens/s without"
                    )
            if different:
                figures.tell(f"  {different} of {options.pairs} answers differ")
            typical = statistics.median(with_ / without for with_, without in zip(*speeds, strict=True))
            figures.tell(f"  {task.name}: {typical:.2f}")
            same = f"{options.pairs - different} of {options.pairs} texts the same"
            name = f"look-up speculation, {task.name} ({same})"
            table.add(
                compared(name, subject.label, *speeds, unit="tokens/s", goal=Goal(task.goal), whom="without drafts")
            )


def main() -> None:
    parser = figures.parser(__doc__, pairs=24)
    parser.add_argument("--tokens", type=figures.at_least(8), default=128, help="of each answer (128)")
    options = parser.parse_args()
    if options.quick:
        options.pairs, options.tokens = min(options.pairs, 2), min(options.tokens, 32)
    table = figures.Table(as_json=options.json)
    for subject in find(options.models):
        measure(subject, options, table)
    table.close()


if __name__ == "__main__":
    figures.run(main)
