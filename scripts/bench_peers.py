"""Many texts at a time: `Client.generate_many` beside what else a user could take, in turns.

Two workloads: documents of 400 tokens with answers of 64, and texts of 100 tokens with answers of 128. All sides get
the same new texts in each turn, as chat messages, with the same file and as many threads; all write greedily and
exactly so many tokens. The others are the high-level `llama_cpp.Llama`, one text after another, and llama.cpp's own
server through PyPI's xllamacpp, asked for everything at once, with as many slots as are best for it here (tried
first). `--xllamacpp-python` names a Python that has it, as xllamacpp needs an environment of its own:

    python -m venv somewhere && somewhere/bin/pip install xllamacpp
    python scripts/bench_peers.py --xllamacpp-python somewhere/bin/python --pairs 20

`--optimised`: the client with the copy that `ondevice models optimise` made, beside `Llama` with the original file (the
goal) and the server with the copy.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import figures

from ondevice_sdk import Client, Message
from ondevice_sdk.bench import Subject, find, prompts
from ondevice_sdk.bench.goals import Goal, compared
from ondevice_sdk.bench.process import Child
from ondevice_sdk.errors import ConfigurationError, GenerationFailed
from ondevice_sdk.store import Store

SLOTS: Final = (1, 4, 8, 16)
TRIAL: Final = 16  # texts by which the number of slots is chosen
HERE: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Workload:
    """Texts of so many tokens, answers of so many, and what is to be reached on the same file and optimised."""

    name: str
    text_tokens: int
    answer_tokens: int
    goal: float
    optimised_goal: float

    @property
    def room(self) -> int:
        """Tokens of a context that holds one text and its answer, with what a template may add."""
        return (self.text_tokens + self.answer_tokens + 128 + 63) // 64 * 64


WORKLOADS: Final = (Workload("A", 400, 64, 1.2, 2.0), Workload("B", 100, 128, 1.4, 1.8))
QUICK: Final = (Workload("A", 60, 8, 1.2, 2.0), Workload("B", 40, 12, 1.4, 1.8))


class Ours:
    """The client, in its sealed worker."""

    name = "Client.generate_many"

    def __init__(self, ai: Client) -> None:
        self._ai = ai

    def seconds(self, texts: Sequence[str], lengths: Sequence[int], tokens: int) -> float:
        """Until all answers have come."""
        start = time.perf_counter()
        answers = list(self._ai.generate_many(texts, max_tokens=tokens, temperature=0, ignore_eos=True))
        seconds = time.perf_counter() - start
        check(
            self.name, [(each.usage.prompt_tokens, each.usage.completion_tokens) for each in answers], lengths, tokens
        )
        return seconds


class Other:
    """A peer in a process of its own. Its seconds are its own: the way to that process is left out."""

    def __init__(self, name: str, child: Child, **order: object) -> None:
        self.name = name
        self._child = child
        child.tell(do="load", **order)
        self.system = str(child.hear()["system"])

    def seconds(self, texts: Sequence[str], lengths: Sequence[int], tokens: int) -> float:
        """Until all answers have come."""
        self._child.tell(do="answer", texts=list(texts), tokens=tokens)
        answer = self._child.hear()
        usages = [(int(usage["prompt_tokens"]), int(usage["completion_tokens"])) for usage in answer["usages"]]
        check(self.name, usages, lengths, tokens)
        return float(answer["seconds"])


def check(name: str, usages: Sequence[tuple[int, int]], lengths: Sequence[int], tokens: int) -> None:
    """All sides must have done the same work: a template may be rendered with a token more or less, not more.

    Raises:
        GenerationFailed: they have not.
    """
    for (read, written), length in zip(usages, lengths, strict=True):
        if written != tokens or abs(read - length) > 2:
            raise GenerationFailed(f"{name} read {read} tokens and wrote {written}, not {length} and {tokens}")


@contextmanager
def llama(path: str, threads: int, load: Workload) -> Iterator[Other]:
    with Child([sys.executable, str(HERE / "peer_llama.py")]) as child:
        yield Other("Llama", child, path=path, threads=threads, context=load.room)


@contextmanager
def server(python: str, path: str, threads: int, load: Workload, slots: int) -> Iterator[Other]:
    with Child([python, str(HERE / "peer_xllamacpp.py")]) as child:
        order = {"path": path, "threads": threads, "slots": slots, "context": load.room}
        yield Other(f"xllamacpp, {slots} slots", child, **order)


def best_slots(python: str, path: str, threads: int, load: Workload, tried: Sequence[int], texts: Texts) -> int:
    """The number of slots with which the server is fastest here, by one round each."""
    if len(tried) == 1:
        return tried[0]
    some, lengths = texts.take(load, min(TRIAL, texts.number))
    seconds = {}
    for slots in tried:
        with server(python, path, threads, load, slots) as peer:
            peer.seconds(some[:2], lengths[:2], load.answer_tokens)
            seconds[slots] = peer.seconds(some, lengths, load.answer_tokens)
    figures.tell(f"{load.name}: xllamacpp " + ", ".join(f"{n} slots {s:.1f} s" for n, s in seconds.items()))
    return min(seconds, key=lambda slots: seconds[slots])


class Texts:
    """New texts of an exact length each time."""

    def __init__(self, ai: Client, number: int) -> None:
        self._ai = ai
        self.number = number
        self._seed = 0

    def take(self, load: Workload, number: int | None = None) -> tuple[list[str], list[int]]:
        """Texts, and how many tokens each has with the chat template around it."""
        texts = []
        for _ in range(number or self.number):
            self._seed += 1
            texts.append(prompts.exact(self._count, load.text_tokens, self._seed, fan=1))
        return texts, [self._ai.count_tokens([Message("user", text)]) for text in texts]

    def _count(self, texts: Sequence[str]) -> list[int]:
        return [self._ai.count_tokens(text) for text in texts]


def measure(subject: Subject, options: argparse.Namespace, table: figures.Table) -> None:
    """All workloads of one model."""
    target = figures.target(subject)
    threads = target.device.threads
    with Client(subject.model, backends=figures.backends_for(subject.model)) as ai:
        used = ai.model.path
        first = original(subject, used) if options.optimised else used
        texts = Texts(ai, options.documents)
        for load in QUICK if options.quick else WORKLOADS:
            with ExitStack() as stack:
                peers = []
                if options.peer in ("llama", "all"):
                    peers.append(stack.enter_context(llama(first, threads, load)))
                if options.python is not None:
                    slots = best_slots(options.python, used, threads, load, options.slots, texts)
                    peers.append(stack.enter_context(server(options.python, used, threads, load, slots)))
                    figures.tell(peers[-1].system)
                rounds(subject, load, Ours(ai), peers, texts, options, table)


def rounds(
    subject: Subject,
    load: Workload,
    ours: Ours,
    peers: Sequence[Other],
    texts: Texts,
    options: argparse.Namespace,
    table: figures.Table,
) -> None:
    """Take the samples in turns: another side goes first each time."""
    sides: list[Ours | Other] = [ours, *peers]
    seconds: dict[str, list[float]] = {side.name: [] for side in sides}
    for turn in range(-1, options.pairs):  # the first is to warm up
        some, lengths = texts.take(load, 2 if turn < 0 else None)
        for place in range(len(sides)):
            side = sides[(place + turn) % len(sides)]
            taken = side.seconds(some, lengths, load.answer_tokens)
            if turn >= 0:
                seconds[side.name].append(taken)
        if turn >= 0:
            times = ", ".join(f"{name} {values[-1]:.1f} s" for name, values in seconds.items())
            figures.tell(f"{subject.label} {load.name} {turn + 1}/{options.pairs}: {times}")
    what = f"{texts.number} texts of {load.text_tokens} tokens, {load.answer_tokens} out"
    if options.optimised:
        what += ", optimised copy"
    for peer in peers:
        bound: float | None
        if peer.name == "Llama":
            bound = load.optimised_goal if options.optimised else load.goal
        else:
            bound = None if options.optimised else 1.0
        whom = f"{peer.name}{' (original file)' if options.optimised and peer.name == 'Llama' else ''}"
        table.add(
            compared(
                what,
                subject.label,
                seconds[ours.name],
                seconds[peer.name],
                unit="s",
                goal=None if bound is None else Goal(bound),
                whom=whom,
                less_is_better=True,
            )
        )


def original(subject: Subject, used: str) -> str:
    """The file that was there before a copy of it was optimised.

    Raises:
        ConfigurationError: the client uses no copy.
    """
    name, _, variant = subject.model.partition(":")
    is_file = Path(subject.model).is_file()
    path = subject.model if is_file else Store.open().resolve(name, variant or None).path
    if Path(path).resolve() == Path(used).resolve():
        raise ConfigurationError(f"{subject.label} has no optimised copy", hint=f"ondevice models optimise {name}")
    return path


def main() -> None:
    parser = figures.parser(__doc__, pairs=20)
    parser.add_argument("--documents", type=figures.at_least(2), default=32, help="texts in each round (32)")
    parser.add_argument("--peer", choices=("llama", "xllamacpp", "all"), default="all")
    parser.add_argument("--xllamacpp-python", metavar="PYTHON", dest="python", help="a Python that has xllamacpp")
    parser.add_argument(
        "--slots", type=figures.at_least(1), nargs="+", default=SLOTS, help="of the server, to be tried"
    )
    parser.add_argument("--optimised", action="store_true", help="ours and the server on the optimised copy")
    options = parser.parse_args()
    if options.quick:
        options.pairs, options.documents = min(options.pairs, 2), min(options.documents, 4)
    options.python = None if options.peer == "llama" else python_of(options, parser)
    table = figures.Table(as_json=options.json)
    for subject in find(options.models):
        measure(subject, options, table)
    table.close()


def python_of(options: argparse.Namespace, parser: argparse.ArgumentParser) -> str | None:
    """The Python that has xllamacpp: the one that was named, or this one."""
    if options.python is None:
        if importlib.util.find_spec("xllamacpp") is not None:
            return sys.executable
        if options.peer == "xllamacpp":
            parser.error("xllamacpp is not installed here: name a Python that has it with --xllamacpp-python")
        figures.tell("xllamacpp is left out: name a Python that has it with --xllamacpp-python")
        return None
    try:
        done = subprocess.run([options.python, "-c", "import xllamacpp"], capture_output=True, check=False)
    except OSError as error:
        parser.error(f"{options.python} cannot be started: {error.strerror}")
    if done.returncode:
        parser.error(f"{options.python} has no xllamacpp")
    return str(options.python)


if __name__ == "__main__":
    figures.run(main)
