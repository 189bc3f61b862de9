"""llama.cpp's own server, in a process of its own through PyPI's xllamacpp; a JSON object per line in and out.

See bench_peers.py. Needs nothing but xllamacpp, so that its environment may be another one. The server listens on
loopback, as it always does, and is spoken to through the object in this process.
"""

from __future__ import annotations

import importlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from peer_serve import serve


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


if __name__ == "__main__":
    serve(lambda order: Peer(order["path"], order["threads"], order["slots"], order["context"]))
