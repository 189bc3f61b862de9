"""A writer without a model: draws the bytes of a constrained output at random, in a budget."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

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
    constraint = made.compile(grammar, ignore_eos=False)
    budget, random, written = Budget(constraint, limit), np.random.default_rng(seed), bytearray()

    def put(tokens: list[int]) -> None:
        for token in tokens:
            if len(written) < limit and not constraint.finished:
                written.append(token)
                constraint.accept(token)

    def put_forced() -> None:
        put(budget.forced(constraint.forced()))

    put_forced()
    while len(written) < limit and not constraint.finished:
        token = _draw(constraint, random)
        if token is None or token == END:
            break
        steered = budget.steer(token, len(written))
        if steered is None:
            break
        put([steered])
        put_forced()
    return written.decode()


def _draw(constraint: Constraint, random: np.random.Generator) -> int | None:
    logits = (2 * random.normal(size=END + 1)).astype(np.float32)
    logits[list(b'"]}')] += 2
    if not constraint.mask(logits):
        return None
    while np.isfinite(logits.max()):
        token = int(np.argmax(logits))
        if constraint.keeps(token):
            return token
        logits[token] = -np.inf
    return None
