"""A second question on a long document: time to the first token, beside the first reading.

Each pair takes a new document of 4,000 tokens, which stands first in the prompt, and questions of at most 20 tokens:
the first reading, another question at once, and another one after other requests have taken the places in the cache.
Beside it the bare library reads as many tokens, and then other ones in the place of the last as many as ours had left
to read. With `--disk` the app ends in between: a new process finds the document in the encrypted cache on the disk,
and is compared with a new process that has none; both times run from the start of the process.
"""

from __future__ import annotations

import argparse
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import figures

from ondevice_sdk import Client, ConfigurationError, Message, TextDelta
from ondevice_sdk.bench import Subject, find, prompts
from ondevice_sdk.bench.goals import Goal, compared
from ondevice_sdk.bench.library import BareLibrary
from ondevice_sdk.bench.process import Child

APP: Final = str(Path(__file__).with_name("small_app.py"))
QUESTIONS: Final = (
    "What is this text about?",
    "Which places does it name?",
    "Who is in it, and why?",
    "How does it end?",
)
OTHERS: Final = 12  # more than there are sequences
OTHER_TOKENS: Final = 100
MOST_NEW: Final = 48  # tokens that a question may cost: itself, and what the template puts after it


@dataclass(slots=True)
class Samples:
    """Seconds to the first token, and tokens that were left to read."""

    first: list[float] = field(default_factory=list)
    at_once: list[float] = field(default_factory=list)
    later: list[float] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    bare_first: list[float] = field(default_factory=list)
    bare_again: list[float] = field(default_factory=list)


def ask(ai: Client, document: str, question: str) -> tuple[float, int, int]:
    """Seconds to the first text of the answer, tokens of the prompt, and how many of them were there already."""
    first = None
    start = time.perf_counter()
    with ai.stream(f"{document}\n\n{question}", max_tokens=2, temperature=0, ignore_eos=True) as stream:
        for event in stream.events():
            if isinstance(event, TextDelta) and first is None:
                first = time.perf_counter()
        usage = stream.result().usage
    return (first or time.perf_counter()) - start, usage.prompt_tokens, usage.cached_tokens


def new_document(ai: Client, tokens: int, seed: int) -> str:
    """A text that begins like no other."""
    return prompts.exact(lambda texts: [ai.count_tokens(text) for text in texts], tokens, seed, fan=1)


def others(ai: Client, seed: int) -> None:
    """Other requests, so many that the document loses its place."""
    texts = [prompts.words(OTHER_TOKENS, 1_000_000 + OTHERS * seed + number) for number in range(OTHERS)]
    for _ in ai.generate_many(texts, max_tokens=2, temperature=0, ignore_eos=True):
        pass


def in_memory(subject: Subject, options: argparse.Namespace, table: figures.Table) -> None:
    """While the client lives."""
    target = figures.target(subject)
    samples = Samples()
    with ExitStack() as stack:
        ai = stack.enter_context(Client(subject.model, backends=figures.backends_for(subject.model)))
        room = max(ai.context_length, options.document + 256)
        bare = stack.enter_context(
            BareLibrary(target.chosen.model.path, threads=target.device.threads, context_tokens=room, sequences=1)
        )
        ask(ai, prompts.words(60, 0), QUESTIONS[0])  # to warm up
        bare.ask_again(prompts.words(60, 0), 60, 20)
        for turn in range(options.pairs):
            document = new_document(ai, options.document, turn + 1)
            length = ai.count_tokens([Message("user", f"{document}\n\n{QUESTIONS[0]}")])
            for side in (0, 1) if turn % 2 else (1, 0):
                if side:
                    one_document(ai, document, turn, samples)
                else:
                    left = samples.left[-1] if samples.left else 20
                    first, again = bare.ask_again(document, length, min(left, 20))
                    samples.bare_first.append(first)
                    samples.bare_again.append(again)
            figures.tell(
                f"{subject.label} {turn + 1}/{options.pairs}: first {samples.first[-1]:.2f} s, at once "
                f"{samples.at_once[-1]:.3f} s, later {samples.later[-1]:.3f} s, {samples.left[-1]} tokens left to read"
            )
    left_to_read = f"{statistics.median(samples.left):.0f} tokens left to read"
    what = f"question on a read document of {options.document} tokens"
    for name, questions in (
        (f"{what}, {left_to_read}", samples.at_once),
        (f"{what}, after {OTHERS} other requests", samples.later),
    ):
        table.add(
            compared(
                name,
                subject.label,
                questions,
                samples.first,
                unit="s",
                goal=Goal(40),
                whom="first reading",
                less_is_better=True,
            )
        )
    table.add(
        compared(
            "the bare library doing the same",
            subject.label,
            samples.bare_again,
            samples.bare_first,
            unit="s",
            whom="its first reading",
            less_is_better=True,
        )
    )


def one_document(ai: Client, document: str, turn: int, samples: Samples) -> None:
    """The three questions."""
    one, two, three = (QUESTIONS[(turn + number) % len(QUESTIONS)] for number in range(3))
    seconds, _, cached = ask(ai, document, one)
    if cached > MOST_NEW:
        raise ConfigurationError("the document was not new")
    samples.first.append(seconds)
    seconds, length, cached = ask(ai, document, two)
    samples.at_once.append(seconds)
    samples.left.append(length - cached)
    others(ai, turn)
    seconds, length, cached = ask(ai, document, three)
    samples.later.append(seconds)
    if length - cached > MOST_NEW:
        figures.tell(f"  after other requests {length - cached} of {length} tokens were read again")


@contextmanager
def app(subject: Subject, prompt: str, directory: Path | None, key: str) -> Iterator[tuple[float, int]]:
    """A new app; seconds from the start of its process to the first token, and the tokens that were there already."""
    start = time.monotonic()
    with Child([sys.executable, "-B", APP]) as child:
        where = None if directory is None else str(directory)
        child.tell(model=subject.model, prompt=prompt, directory=where, key=key)
        answer = child.hear()
        yield float(answer["first"]) - start, int(answer["cached"])
        child.end_input()
        child.hear()  # that it has closed its client


def on_disk(subject: Subject, options: argparse.Namespace, table: figures.Table) -> None:
    """Across the end of the app."""
    cold: list[float] = []
    warm: list[float] = []
    filled: list[float] = []
    with Client(subject.model, backends=figures.backends_for(subject.model)) as ai:
        documents = [new_document(ai, options.document, 500 + turn) for turn in range(options.pairs)]
    for turn, document in enumerate(documents):
        key = secrets.token_hex(32)
        one, two = (f"{document}\n\n{QUESTIONS[(turn + number) % len(QUESTIONS)]}" for number in range(2))
        with tempfile.TemporaryDirectory() as folder:
            directory = Path(folder, "prefixes")
            with app(subject, one, directory, key) as (seconds, _):
                filled.append(seconds)
            for with_cache in (True, False) if turn % 2 else (False, True):
                with app(subject, two, directory if with_cache else None, key) as (seconds, cached):
                    (warm if with_cache else cold).append(seconds)
                    if with_cache and cached < options.document - MOST_NEW:
                        figures.tell(f"  only {cached} tokens came from the disk")
        figures.tell(f"{subject.label} {turn + 1}/{options.pairs}: cold {cold[-1]:.2f} s, restarted {warm[-1]:.2f} s")
    what = f"question on a document of {options.document} tokens in a new process, disk cache, start included"
    table.add(compared(what, subject.label, warm, cold, unit="s", goal=Goal(10), whom="no cache", less_is_better=True))
    table.add(
        compared(
            "first reading in a new process with a cache to be filled",
            subject.label,
            filled,
            cold,
            unit="s",
            whom="no cache",
            less_is_better=True,
        )
    )


def main() -> None:
    parser = figures.parser(__doc__, pairs=20)
    parser.add_argument("--document", type=figures.at_least(100), default=4000, help="its tokens (4000)")
    parser.add_argument("--disk", action="store_true", help="a new process for each question")
    options = parser.parse_args()
    if options.quick:
        options.pairs, options.document = min(options.pairs, 2), min(options.document, 300)
    table = figures.Table(as_json=options.json)
    for subject in find(options.models):
        (on_disk if options.disk else in_memory)(subject, options, table)
    table.close()


if __name__ == "__main__":
    figures.run(main)
