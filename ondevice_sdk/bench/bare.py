"""The bare library, in a process of its own: llama.cpp's low-level functions in loops as short as they can be.

Run as `python -m ondevice_sdk.bench.bare`. It is what the SDK is compared with, so it does nothing but the work: no
worker, no pipes per token, no sampler but the largest logit or llama.cpp's own ones. One JSON object per line comes in,
one goes out. Between two it waits blocked on its input, so that it costs the other side nothing.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

_ROWS = 512  # of a batch, llama.cpp's own default for its inner one


class Bare:
    """A model and a context."""

    def __init__(self, path: str, threads: int, context: int, sequences: int) -> None:
        start = time.perf_counter()
        import llama_cpp
        import numpy as np

        self._lib, self._np = llama_cpp, np
        self._silent = llama_cpp.llama_log_callback(lambda *_: None)  # kept alive while the library may call it
        llama_cpp.llama_log_set(self._silent, ctypes.c_void_p())
        self.import_s = time.perf_counter() - start
        weights = llama_cpp.llama_model_default_params()
        weights.use_extra_bufts = (
            b"AMX_INT8 = 1" not in llama_cpp.llama_print_system_info()
        )  # they crash on some machines
        weights.n_gpu_layers = 0
        self._model = llama_cpp.llama_model_load_from_file(path.encode(), weights)
        if not self._model:
            raise RuntimeError("the model was not loaded")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = context, _ROWS, _ROWS
        params.n_seq_max, params.kv_unified = sequences, True
        params.n_threads = params.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            raise RuntimeError("the context was not made")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._size = llama_cpp.llama_vocab_n_tokens(self._vocabulary)
        self._batch = llama_cpp.llama_batch_init(_ROWS, 0, 1)
        self._chain = _default_chain(llama_cpp)
        self.load_s = time.perf_counter() - start - self.import_s

    def generate(
        self, texts: Sequence[str], lengths: Sequence[int], count: int, sampled: bool
    ) -> dict[str, float | list[int]]:
        """Continue the texts by `count` tokens each: seconds until the first ones, and from then to the last.

        The prompts are read one after another, then all sequences go on in step. A prompt is brought to its length,
        for where ours has a chat template around it.
        """
        self._lib.llama_memory_clear(self._memory, True)
        tokenised = [self._tokens(text) for text in texts]
        prompts = [_brought_to(length, tokens) for tokens, length in zip(tokenised, lengths, strict=True)]
        choose = self._sampled if sampled else self._largest
        start = time.perf_counter()
        following = []
        for sequence, tokens in enumerate(prompts):
            self._read(sequence, tokens)
            following.append(choose(-1))
        first = time.perf_counter()
        positions = [len(tokens) for tokens in prompts]
        rows = range(len(prompts))
        for _ in range(count - 1):
            self._decode([(following[row], positions[row], row, True) for row in rows])
            following = [choose(row) for row in rows]
            positions = [position + 1 for position in positions]
        counts = [len(tokens) for tokens in tokenised]
        return {"prompt_s": first - start, "decode_s": time.perf_counter() - first, "tokens": counts}

    def ask_again(self, text: str, length: int, more: int) -> dict[str, float]:
        """Read a prompt of `length` tokens, then put another question of `more` in the place of its last ones."""
        self._lib.llama_memory_clear(self._memory, True)
        tokens = _brought_to(length, self._tokens(text))
        start = time.perf_counter()
        self._read(0, tokens)
        self._largest(-1)
        first = time.perf_counter()
        self._lib.llama_memory_seq_rm(self._memory, 0, length - more, -1)
        self._read(0, tokens[more::-1][:more], length - more)
        self._largest(-1)
        return {"first_s": first - start, "again_s": time.perf_counter() - first}

    def _read(self, sequence: int, tokens: Sequence[int], start: int = 0) -> None:
        """Process a prompt whose first token has the position `start`; the logits of its last one are kept."""
        last = len(tokens) - 1
        for begin in range(0, len(tokens), _ROWS):
            piece = tokens[begin : begin + _ROWS]
            self._decode([(token, start + at, sequence, at == last) for at, token in enumerate(piece, begin)])

    def _decode(self, rows: Sequence[tuple[int, int, int, bool]]) -> None:
        batch = self._batch
        batch.n_tokens = len(rows)
        for at, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[at], batch.pos[at], batch.logits[at] = token, position, wanted
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, sequence
        if self._lib.llama_decode(self._context, batch) != 0:
            raise RuntimeError("the batch was not computed")

    def _largest(self, row: int) -> int:
        logits = self._lib.llama_get_logits_ith(self._context, row)
        return int(self._np.ctypeslib.as_array(logits, (self._size,)).argmax())

    def _sampled(self, row: int) -> int:
        return int(self._lib.llama_sampler_sample(self._chain, self._context, row))

    def _tokens(self, text: str) -> list[int]:
        data = text.encode()
        buffer = (self._lib.llama_token * (3 * len(data) + 8))()  # a space may be spelled in three bytes
        count = self._lib.llama_tokenize(self._vocabulary, data, len(data), buffer, len(buffer), True, False)
        return list(buffer[:count])


def _default_chain(lib: Any) -> Any:
    """llama.cpp's samplers in its own order, set as `backends.requests.Sampling` is by default."""
    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    for sampler in (
        lib.llama_sampler_init_top_k(40),
        lib.llama_sampler_init_top_p(0.95, 1),
        lib.llama_sampler_init_min_p(0.05, 1),
        lib.llama_sampler_init_temp(0.7),
        lib.llama_sampler_init_dist(lib.LLAMA_DEFAULT_SEED),
    ):
        lib.llama_sampler_chain_add(chain, sampler)
    return chain


def _brought_to(length: int, tokens: Sequence[int]) -> list[int]:
    return [tokens[at % len(tokens)] for at in range(length)]


def _lines() -> Iterator[str]:
    """The lines of the input. Its end ends the process, also in the middle of a computation."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)  # destructors of native libraries have nothing left to do but crash

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield lines.get()


def main() -> None:
    """Serve until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the library prints is no answer
    bare: Bare | None = None
    for line in _lines():
        order: dict[str, Any] = json.loads(line)
        try:
            if order["do"] == "load":
                bare = Bare(order["path"], order["threads"], order["context"], order["sequences"])
                answer: dict[str, Any] = {"import_s": bare.import_s, "load_s": bare.load_s}
            elif order["do"] == "ask_again":
                assert bare is not None
                answer = bare.ask_again(order["text"], order["length"], order["more"])
            else:
                assert bare is not None
                answer = bare.generate(order["texts"], order["lengths"], order["count"], order["sampled"])
        except Exception as error:  # noqa: BLE001 - the other side is told, whatever it was
            answers.write(json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n")
            continue
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
