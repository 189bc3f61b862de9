"""The same model through the SDK, by OpenVINO GenAI alone, and by llama.cpp: tokens/s, in interleaved rounds.

    python plugins/ondevice-openvino/scripts/bench_openvino.py MODEL.gguf [--rounds 7] [--threads 2] [--json]

"Alone" is openvino_genai's own `ContinuousBatchingPipeline` with its defaults for everything but threads, room and
precision, stepped by a loop, on the same weights. With --as-is it has its own default precision too, and the file as it
lies there: then it computes another model; see `ondevice_openvino.exact` and `ondevice_openvino.pipeline`.

Each round makes every measurement once, in turn; a ratio is the median over the rounds of that within a round. Prompts
are new in each round, so that no prefix cache has them. `decode` counts the tokens after the first.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ondevice_openvino import OpenVinoBackend, quiet
from ondevice_openvino.source import open_source
from ondevice_sdk.backends.api import (
    GREEDY,
    Done,
    Engine,
    Generate,
    Generated,
    LoadOptions,
    LocalModel,
    Raw,
    Segment,
    TextDelta,
)
from ondevice_sdk.testing import as_engine

PROMPT = 512  # tokens, about
WRITTEN = 128


def new_prompt(seed: int) -> str:
    """A text that no round had before; numbers are a token a digit in most vocabularies."""
    random_ = random.Random(seed)
    return " ".join(str(random_.randrange(10_000)) for _ in range(PROMPT // 5))


def through_the_sdk(engine: Engine, seed: int) -> tuple[float, float]:
    """Prefill and decode, by the same two instants as of the bare pipeline: the first token, and the end."""
    prompt = Raw((Segment(new_prompt(seed)),))
    start = time.perf_counter()
    engine.add_request(str(seed), Generate(prompt, WRITTEN, GREEDY, ignore_eos=True, stream=True))
    first = 0.0
    while True:
        for event in engine.step(PROMPT):
            if isinstance(event, TextDelta):
                first = first or time.perf_counter()
            elif isinstance(event, Done):
                assert isinstance(event.result, Generated)
                usage = event.result.usage
                assert usage.cached_tokens < 32
                assert usage.completion_tokens == WRITTEN
                return usage.prompt_tokens / (first - start), (WRITTEN - 1) / (time.perf_counter() - first)


class Alone:
    """The bare pipeline."""

    def __init__(self, path: str, threads: int, sequences: int, tokens: int, precision: dict[str, str]) -> None:
        import numpy as np
        import openvino
        import openvino_genai

        self._np, self._ov, self._genai = np, openvino, openvino_genai
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.num_kv_blocks = tokens // 32 + sequences
        scheduler.enable_prefix_caching = True
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            path, scheduler, "CPU", {"INFERENCE_NUM_THREADS": threads, **precision}
        )
        self._number = 0

    def measure(self, seed: int) -> tuple[float, float]:
        """Prefill and decode."""
        config = self._genai.GenerationConfig()
        config.max_new_tokens = WRITTEN
        config.ignore_eos = True
        start = time.perf_counter()
        tokens = self._pipeline.get_tokenizer().encode([new_prompt(seed)], add_special_tokens=False).input_ids
        self._number += 1
        handle = self._pipeline.add_request(self._number, tokens, config)
        first = 0.0
        while handle.get_status() == self._genai.GenerationStatus.RUNNING:
            self._pipeline.step()
            while handle.can_read():
                handle.read()
                first = first or time.perf_counter()
        end = time.perf_counter()
        return tokens.get_size() / (first - start), (WRITTEN - 1) / (end - first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--as-is", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    os.environ.setdefault("GOMP_SPINCOUNT", "1500")  # as in a worker; else llama.cpp's threads spin while others work
    quiet.hush()
    model = LocalModel("model", "any", "gguf", str(asked.model.resolve()), "")
    options = LoadOptions(context_tokens=2048, max_sequences=4, threads=asked.threads)
    sdk = as_engine(OpenVinoBackend().load(model, options))
    source = open_source(model)
    with (replace(source, tensors=()) if asked.as_is else source).to_load() as path:
        precision = {} if asked.as_is else {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f16"}
        alone = Alone(path, asked.threads, options.max_sequences, 2048, precision)
    from ondevice_sdk.backends.llama_cpp import LlamaCppBackend

    llama = as_engine(LlamaCppBackend().load(model, options))
    ways: dict[str, Callable[[int], tuple[float, float]]] = {
        "sdk": lambda seed: through_the_sdk(sdk, seed),
        "alone": alone.measure,
        "llama_cpp": lambda seed: through_the_sdk(llama, seed),
    }
    for number, way in enumerate(ways.values()):  # kernels are made when they are first needed
        way(10_000 + number)
    rounds: list[dict[str, tuple[float, float]]] = []
    for number in range(asked.rounds):
        order = list(ways)[number % 2 :] + list(ways)[: number % 2]
        rounds.append({name: ways[name](100 * number + list(ways).index(name)) for name in order})
    report(rounds, asked)
    sdk.close()
    llama.close()


def report(rounds: list[dict[str, tuple[float, float]]], asked: argparse.Namespace) -> None:
    """Print the figures."""
    figures: dict[str, Any] = {"model": asked.model.name, "threads": asked.threads, "rounds": len(rounds)}
    for at, measure in enumerate(("prefill", "decode")):
        for name in rounds[0]:
            figures[f"{name}_{measure}"] = round(statistics.median(each[name][at] for each in rounds), 1)
        for other in ("alone", "llama_cpp"):
            ratio = statistics.median(each["sdk"][at] / each[other][at] for each in rounds)
            figures[f"sdk/{other}_{measure}"] = round(ratio, 3)
    if asked.json:
        print(json.dumps(figures))
    else:
        print("\n".join(f"{name:24} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
