"""llama.cpp's own server, in a process of its own through PyPI's xllamacpp; a JSON object per line in and out.

See bench_peers.py. Needs nothing but xllamacpp, so that its environment may be another one. The server listens on
loopback, as it always does, and is spoken to through the object in this process.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class Peer:
    """A server with some slots. Everything else is as it comes."""

    def __init__(self, path: str, threads: int, slots: int, room: int) -> None:
        """`room` is the context of each slot in tokens: by default the cache is split among them."""
        xllamacpp = importlib.import_module("xllamacpp")  # not installed where this is checked
        params = xllamacpp.CommonParams()
        params.model.path = path
        params.n_ctx, params.n_parallel = slots * room, slots
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.n_gpu_layers = 0
        params.verbosity = 0
        self._server = xllamacpp.Server(params)
        self.system = f"xllamacpp {xllamacpp.__version__}, {xllamacpp.get_system_info()}"

    def answer(self, texts: list[str], tokens: int) -> dict[str, Any]:
        """Greedy answers of exactly so many tokens. All are asked at once; the server queues them for its slots."""

        def ask(text: str) -> dict[str, int]:
            answer = self._server.handle_chat_completions(
                {
                    "messages": [{"role": "user", "content": text}],
                    "max_tokens": tokens,
                    "temperature": 0,
                    "ignore_eos": True,
                }
            )
            if "usage" not in answer:
                raise RuntimeError(f"the server refused: {answer.get('error', answer.get('code'))}")
            return {name: answer["usage"][name] for name in ("prompt_tokens", "completion_tokens")}

        with ThreadPoolExecutor(len(texts)) as pool:
            start = time.perf_counter()
            usages = list(pool.map(ask, texts))
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
                peer = Peer(order["path"], order["threads"], order["slots"], order["context"])
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
