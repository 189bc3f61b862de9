"""How well speed and memory are predicted: every prediction beside its measurement, on this machine.

Speed: prompt processing and decoding of models whose shapes were not calibrated with, through a sealed worker. Memory:
the peak of a worker that has filled its context as far as a prompt of 700 tokens goes, run 8 sequences at a time and
scored labels, for contexts from 512 to 8,192 tokens. Models with random weights are made on demand.
Run: `python scripts/check_predictions.py`, with `--only speed` or `--only memory` for a part.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Iterator, Sequence

from ondevice_sdk import Client, bench
from ondevice_sdk.backends.api import (
    GREEDY,
    Done,
    Failed,
    Generate,
    LoadOptions,
    LocalModel,
    Raw,
    Request,
    Score,
    Segment,
)
from ondevice_sdk.backends.calibration import Calibration
from ondevice_sdk.backends.llama_cpp import LlamaCppBackend
from ondevice_sdk.bench.memory import peak_bytes
from ondevice_sdk.bench.subjects import find
from ondevice_sdk.catalogue import gguf, layout
from ondevice_sdk.catalogue.gguf import GgufHeader
from ondevice_sdk.chooser import Chooser, Settings
from ondevice_sdk.runtime import open_executor
from ondevice_sdk.runtime.process import ProcessExecutor
from ondevice_sdk.selection import calibrated

SMALL = [f"random:smollm2-135m-instruct:{kind}" for kind in ("Q4_0", "Q4_1", "Q8_0", "F16", "BF16")]
LARGE = [f"random:llama-3.2-1b-instruct:{kind}" for kind in ("Q4_0", "Q4_K_M", "Q8_0", "BF16")]
OTHERS = ["random:smollm2-360m-instruct:Q4_K_M", "random:qwen3-0.6b:Q8_0"]
CONTEXTS = (512, 2048, 8192)


def speeds(words: Sequence[str], pairs: int, calibration: Calibration) -> Iterator[dict[str, object]]:
    """Prompt and decode speed of each model, and what was predicted."""
    sizes = bench.Sizes(prompt_tokens=512, decode_prompt_tokens=64, decode_tokens=64)
    conditions = bench.Conditions(against_library=False, backend="llama_cpp")
    for word in words:
        print(f"  speed of {word}", file=sys.stderr, flush=True)
        result = bench.measure(word, measures=("prompt", "decode"), pairs=pairs, sizes=sizes, conditions=conditions)
        header = header_of(word)
        assert header.shape is not None
        work = calibrated.work(header.shape, layout.FILE_TYPES[header.file_type or 0])
        prompt, token = calibrated.prefill_s(calibration, work, 512), calibrated.decode_s(calibration, work, 96)
        assert prompt is not None
        assert token is not None
        for name, predicted in (("prompt_tokens_per_s", 512 / prompt), ("decode_tokens_per_s", 1 / token)):
            measured = result.figures[name].median
            yield {
                "model": word,
                "figure": name,
                "predicted": predicted,
                "measured": measured.value,
                "interval_95": [measured.low, measured.high],
                "off": predicted / measured.value - 1,
            }


def memory(words: Sequence[str], contexts: Sequence[int]) -> Iterator[dict[str, object]]:
    """The peak of a worker with each model and context, and what was predicted."""
    for word in words:
        (subject,) = find([word])
        header = header_of(word)
        assert header.shape is not None
        for context in contexts:
            print(f"  memory of {word} with {context} tokens", file=sys.stderr, flush=True)
            chosen = Chooser(Settings(subject.model, backends=("llama_cpp",), context=context)).resolve()
            predicted = LlamaCppBackend().estimate(header.shape, chosen.model.size(), chosen.options).total
            measured = peak(chosen.entry, chosen.model, chosen.options, context)
            yield {
                "model": word,
                "figure": f"peak_bytes at {context}",
                "predicted": predicted,
                "measured": measured,
                "off": predicted / measured - 1,
            }


def peak(entry: str, model: LocalModel, options: LoadOptions, context: int) -> int:
    """Bytes that a worker takes at most while it works."""
    executor = open_executor(entry, model, options, isolation="process", privacy="strict")
    assert isinstance(executor, ProcessExecutor)
    try:
        words = "a b c d " * (min(700, int(0.8 * context)) // 17)  # 17 tokens at most, with a vocabulary of bytes
        run(executor, [Generate(Raw((Segment(words),)), 8, GREEDY, ignore_eos=True)])
        run(executor, [Generate(Raw((Segment(f"{i} b c"),)), 8, GREEDY, ignore_eos=True) for i in range(8)])
        run(executor, [Score(Raw((Segment("a b c"),)), tuple(f"x{i}" for i in range(12)))])
        return peak_bytes(executor.pid)
    finally:
        executor.close()


def run(executor: ProcessExecutor, requests: Sequence[Request]) -> None:
    """Run the requests at a time."""
    for ticket in [executor.submit(request) for request in requests]:
        arrived = threading.Event()
        ticket.set_wakeup(arrived.set)
        while True:
            arrived.wait()
            arrived.clear()
            last = next((event for event in ticket.take() if isinstance(event, Done | Failed)), None)
            if isinstance(last, Failed):
                raise SystemExit(last.error.message)
            if last is not None:
                break


def header_of(word: str) -> GgufHeader:
    """The header of a model's file."""
    (subject,) = find([word])
    return gguf.read_header(Chooser(Settings(subject.model, backends=("llama_cpp",))).resolve().model.path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("speed", "memory"))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--models", nargs="*", help="words of `ondevice bench`; default: SmolLM2, a 1B and two others")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    words = options.models or ["smollm2-135m-instruct:int4", *SMALL, *LARGE, *OTHERS]
    rows: list[dict[str, object]] = []
    if options.only != "memory":
        with Client(privacy="off", backends=("llama_cpp",)) as ai:
            (calibration,) = [each for each in ai.calibrate() if each.library.startswith("llama.cpp")]
        rows += speeds(words, options.pairs, calibration)
    if options.only != "speed":
        rows += memory(words, CONTEXTS)
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(
            f"{row['model']:42} {row['figure']:22} {row['predicted']:14,.1f} {row['measured']:14,.1f} "
            f"{row['off']:+7.1%}"
        )
    offs = [abs(float(str(row["off"]))) for row in rows]
    print(f"largest deviation {max(offs):.1%} of {len(rows)} predictions")


if __name__ == "__main__":
    main()
