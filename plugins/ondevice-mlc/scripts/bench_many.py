"""Many texts at a time through a `Client`: the compiled models beside llama.cpp on what they were made of, in turns.

`python scripts/bench_many.py [MODEL] [--rounds 5]`: MODEL is installed, in int4 and as `int4-mlc` and `int8-mlc`. Eight
documents of 400 tokens with answers of 64, and eight texts of 100 with 128; all get the same new texts in each round.
Shown are the medians of seconds, and how many times as fast each is as llama.cpp, round by round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import ExitStack
from typing import Final

from ondevice_sdk import Client
from ondevice_sdk.bench import prompts

WORK: Final = (("8 documents of 400 tokens, 64 out", 400, 64), ("8 texts of 100 tokens, 128 out", 100, 128))
TEXTS: Final = 8
FRAME: Final = 8  # tokens of a chat template around a text, about


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2-135m-instruct")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    variants = {"llama_cpp": "int4", "mlc int8": "int8-mlc", "mlc int4": "int4-mlc"}
    with ExitStack() as stack:
        clients = {}
        for name, variant in variants.items():
            ai = Client(f"{options.model}:{variant}", backends=[name.split()[0]])
            clients[name] = stack.enter_context(ai)
            ai.prewarm()
        for title, tokens, written in WORK:
            compare(title, clients, tokens, written, options.rounds)


def compare(title: str, clients: dict[str, Client], tokens: int, written: int, rounds: int) -> None:
    """Print one table."""
    first = next(iter(clients.values()))
    seconds: dict[str, list[float]] = {name: [] for name in clients}
    for turn in range(rounds):
        texts = [
            prompts.exact(
                lambda each: [first.count_tokens(text) for text in each],
                tokens - FRAME,
                1 + tokens * 1000 + turn * TEXTS + at,
                fan=1,
            )
            for at in range(TEXTS)
        ]
        for name, ai in clients.items():
            start = time.perf_counter()
            list(ai.generate_many(texts, max_tokens=written, temperature=0, ignore_eos=True))
            seconds[name].append(time.perf_counter() - start)
    print(f"{title}, {rounds} rounds")
    for name, taken in seconds.items():
        ratios = [theirs / mine for theirs, mine in zip(seconds["llama_cpp"], taken, strict=True)]
        print(
            f"  {name:10}{statistics.median(taken):8.2f} s  {statistics.median(ratios):5.2f} times "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
