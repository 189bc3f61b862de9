"""Writers without a model: they choose the bytes of a constrained output, at random or by preference, in a budget."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondevice_sdk.backends.api import Grammar
from ondevice_sdk.engine.closing import Budget, byte_tokenizer
from ondevice_sdk.engine.grammar import Constraint, GrammarCompiler

END = 256


def compiler() -> GrammarCompiler:
    return GrammarCompiler(byte_tokenizer, END + 1, {END})


def schema(value: Any) -> Grammar:
    return Grammar("json_schema", json.dumps(value))


def write(made: GrammarCompiler, grammar: Grammar, seed: int, limit: int) -> str:
    """An output of so many bytes at most; what ends something is likelier than the rest, as with a model."""
    random = np.random.default_rng(seed)

    def draw() -> NDArray[np.float32]:
        logits = (2 * random.normal(size=END + 1)).astype(np.float32)
        logits[list(b'"]}')] += 2
        return logits

    return _write(made, grammar, draw, limit)


def repeat(made: GrammarCompiler, grammar: Grammar, liked: str, limit: int) -> str:
    """An output of so many bytes at most by a writer who always takes the first of the liked, and ends unwillingly."""
    logits = np.zeros(END + 1, np.float32)
    for rank, sign in enumerate(liked):
        logits[ord(sign)] = 10 - rank / 10
    logits[END] = -5
    return _write(made, grammar, logits.copy, limit)


def _write(made: GrammarCompiler, grammar: Grammar, draw: Callable[[], NDArray[np.float32]], limit: int) -> str:
    constraint = made.compile(grammar, ignore_eos=False)
    budget, written = Budget(constraint, limit), bytearray()

    def put(tokens: list[int]) -> None:
        for token in tokens:
            if len(written) < limit and not constraint.finished:
                written.append(token)
                constraint.accept(token)

    def put_forced() -> None:
        put(budget.forced(constraint.forced()))

    put_forced()
    while len(written) < limit and not constraint.finished:
        token = _choose(constraint, draw())
        if token is None or token == END:
            break
        steered = budget.steer(token, len(written))
        if steered is None:
            break
        put([steered])
        put_forced()
    return written.decode()


def _choose(constraint: Constraint, logits: NDArray[np.float32]) -> int | None:
    if not constraint.mask(logits):
        return None
    while np.isfinite(logits.max()):
        token = int(np.argmax(logits))
        if constraint.keeps(token):
            return token
        logits[token] = -np.inf
    return None
