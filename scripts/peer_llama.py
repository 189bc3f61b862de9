"""The high-level `llama_cpp.Llama` in a process of its own, one JSON object per line in and out; see bench_peers.py."""

from __future__ import annotations

import itertools
import time
from typing import Any

from peer_serve import serve


class Peer:
    """A loaded model that answers one text after another, as the library's own documentation does it."""

    def __init__(self, path: str, threads: int, context: int) -> None:
        import llama_cpp

        amx = b"AMX_INT8 = 1" in llama_cpp.llama_print_system_info()
        if amx:  # its kernels crash on some machines; the class itself has no switch
            make = llama_cpp.llama_model_default_params

            def without_amx() -> Any:
                params = make()
                params.use_extra_bufts = False
                return params

            llama_cpp.llama_cpp.llama_model_default_params = without_amx
        self._llama = llama_cpp.Llama(path, n_ctx=context, n_threads=threads, n_threads_batch=threads, verbose=False)
        # With random weights its answers are no text, and it goes past `max_tokens` in search of a whole character.
        self._most = 0
        generate = self._llama.generate
        self._llama.generate = lambda *words, **options: itertools.islice(generate(*words, **options), self._most)
        vocabulary = llama_cpp.llama_model_get_vocab(self._llama.model)
        ends = filter(lambda token: llama_cpp.llama_vocab_is_eog(vocabulary, token), range(self._llama.n_vocab()))
        self._never = dict.fromkeys(ends, float("-inf"))
        self.system = llama_cpp.llama_print_system_info().decode()

    def answer(self, texts: list[str], tokens: int) -> dict[str, Any]:
        """Greedy answers of exactly so many tokens."""
        usages = []
        self._most = tokens
        start = time.perf_counter()
        for text in texts:
            messages = [{"role": "user", "content": text}]
            answer = self._llama.create_chat_completion(
                messages,
                max_tokens=tokens,
                temperature=0.0,
                logit_bias=self._never,
            )
            usages.append(answer["usage"])
        return {"seconds": time.perf_counter() - start, "usages": usages}


if __name__ == "__main__":
    serve(lambda order: Peer(order["path"], order["threads"], order["context"]))
