"""The high-level `llama_cpp.Llama` in a process of its own, one JSON object per line in and out; see bench_peers.py."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from typing import Any


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


def main() -> None:
    """Serve until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    peer: Peer | None = None
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if order["do"] == "load":
                peer = Peer(order["path"], order["threads"], order["context"])
                answer: dict[str, Any] = {"system": peer.system}
            else:
                assert peer is not None
                answer = peer.answer(order["texts"], order["tokens"])
        except Exception as error:  # noqa: BLE001 - the other side is told, whatever it was
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
    os._exit(0)


if __name__ == "__main__":
    main()
