"""Decode speed through the client (sealed worker, pipes, batching engine) beside a bare loop on the same library.

Both decode the same model greedily, with the same number of threads, in turns, so that the noise of the machine
hits both alike; the ratio is taken pair by pair. Run: `make bench`, or `python scripts/bench_decode.py --pairs 20`.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import random
import statistics
import time
from collections.abc import Callable

import llama_cpp
import numpy as np

from ondevice_sdk import Client
from ondevice_sdk.device import detect

PROMPT = "Write a long story about a lighthouse keeper and her dog."


_silent = llama_cpp.llama_log_callback(lambda *_: None)  # kept alive while the library may call it


def bare_loop(path: str, threads: int, tokens: int) -> Callable[[], float]:
    """A greedy loop on the low-level functions, as short as it can be: tokens/s of the decode steps."""
    llama_cpp.llama_log_set(_silent, ctypes.c_void_p())
    weights = llama_cpp.llama_model_default_params()
    weights.use_extra_bufts = b"AMX_INT8 = 1" not in llama_cpp.llama_print_system_info()  # they crash on some machines
    model = llama_cpp.llama_model_load_from_file(path.encode(), weights)
    assert model is not None
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_threads, params.n_threads_batch = 2048, 512, threads, threads
    context = llama_cpp.llama_init_from_model(model, params)
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    size = llama_cpp.llama_vocab_n_tokens(vocabulary)
    data = f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n".encode()
    buffer = (llama_cpp.llama_token * 512)()
    count = llama_cpp.llama_tokenize(vocabulary, data, len(data), buffer, 512, False, True)

    def run() -> float:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        assert llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(buffer, count)) == 0
        token = (llama_cpp.llama_token * 1)()
        start = 0.0
        for step in range(tokens):
            logits = llama_cpp.llama_get_logits_ith(context, -1)
            token[0] = int(np.ctypeslib.as_array(logits, (size,)).argmax())
            if step == 0:
                start = time.perf_counter()
            if step < tokens - 1:
                assert llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(token, 1)) == 0
        seconds = time.perf_counter() - start
        return float((tokens - 1) / seconds)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    device = detect()
    threads = max(1, min(device.physical_cores, device.usable_cores))
    bare, client = [], []
    with Client(options.model) as ai:
        loop = bare_loop(ai.model.path, threads, options.tokens)

        def through_client() -> float:
            usage = ai.generate(PROMPT, temperature=0, max_tokens=options.tokens, ignore_eos=True).usage
            assert usage.completion_tokens == options.tokens
            return float(options.tokens - 1) / usage.decode_s

        loop(), through_client()
        for pair in range(options.pairs):
            order = (loop, through_client) if pair % 2 else (through_client, loop)
            figures = {run: run() for run in order}
            bare.append(figures[loop])
            client.append(figures[through_client])
    ratios = [c / b for c, b in zip(client, bare, strict=True)]
    low, high = _bootstrap(ratios)
    result = {
        "model": options.model,
        "threads": threads,
        "pairs": options.pairs,
        "bare_tokens_per_s": statistics.median(bare),
        "client_tokens_per_s": statistics.median(client),
        "ratio": statistics.median(ratios),
        "ratio_interval_95": [low, high],
    }
    if options.json:
        print(json.dumps(result))
        return
    print(f"{options.model}, {threads} threads, {options.pairs} pairs of {options.tokens} tokens, greedy; medians")
    print(f"  bare library  {result['bare_tokens_per_s']:7.1f} tokens/s")
    print(f"  Client        {result['client_tokens_per_s']:7.1f} tokens/s")
    print(f"  ratio         {result['ratio']:7.3f}   (95 % interval of the median {low:.3f} to {high:.3f})")


def _bootstrap(values: list[float], rounds: int = 2000) -> tuple[float, float]:
    draw = random.Random(1)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(rounds))
    return medians[int(rounds * 0.025)], medians[int(rounds * 0.975)]


if __name__ == "__main__":
    main()
