"""The bare library beside the SDK: the same file, the same threads, the same prompts, in turns."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from ondevice_sdk.bench.process import Child


@dataclass(frozen=True, slots=True)
class Loop:
    """Seconds of a bare loop: until the first tokens of all prompts, and from then to the last.

    `tokens`: how long the library itself finds each text.
    """

    prompt_s: float
    decode_s: float
    tokens: tuple[int, ...]


class BareLibrary:
    """llama.cpp without the SDK. Its process sleeps while it is not asked for anything."""

    def __init__(self, path: str, *, threads: int, context_tokens: int, sequences: int) -> None:
        """Start it and load the file.

        Raises:
            GenerationFailed: it could not be loaded.
        """
        with ExitStack() as stack:
            self._child = stack.enter_context(Child.of_module("ondevice_sdk.bench.bare"))
            self._child.tell(do="load", path=path, threads=threads, context=context_tokens, sequences=sequences)
            answer = self._child.hear()
            self.import_s, self.load_s = float(answer["import_s"]), float(answer["load_s"])
            self._stack = stack.pop_all()
        self.pid = self._child.pid

    def generate(self, texts: Sequence[str], lengths: Sequence[int], count: int, *, sampled: bool = False) -> Loop:
        """Continue the texts by `count` tokens each.

        Args:
            texts: prompts.
            lengths: how many tokens each has, for ours as for this.
            count: tokens to write.
            sampled: with llama.cpp's own samplers, set as the SDK's are by default; else greedily.
        """
        self._child.tell(do="generate", texts=list(texts), lengths=list(lengths), count=count, sampled=sampled)
        answer = self._child.hear()
        return Loop(float(answer["prompt_s"]), float(answer["decode_s"]), tuple(answer["tokens"]))

    def ask_again(self, text: str, length: int, more: int) -> tuple[float, float]:
        """Seconds to read a prompt of `length` tokens, and then with other ones in the place of its last `more`."""
        self._child.tell(do="ask_again", text=text, length=length, more=more)
        answer = self._child.hear()
        return float(answer["first_s"]), float(answer["again_s"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


def can_run(backend: str) -> bool:
    """Whether there is a bare library to compare this backend with."""
    return backend == "llama_cpp" and importlib.util.find_spec("llama_cpp") is not None
