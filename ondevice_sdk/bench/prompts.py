"""Texts of an exact length in tokens, each one new: no beginning of one is the beginning of another."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

from ondevice_sdk.errors import ConfigurationError

_TEXT: Final = (
    "the of and to in is that for it as was with be by on not he his but at are this have from or had an they "
    "which one you were all her she there would their we him been has when who will no more if out so up said "
    "what its about than into them can only other time new some could these two may first then do any like my now "
    "over such our man me even most made after also did many off before must well back through years much where "
    "your way down should because long each just state those people too little world still work every year hand "
    "life great city house under last harbour river bridge council water lights ferry winter plan report letter "
    "garden school market paper office road window engine signal morning evening station captain keeper island "
    "village number question answer reason figure example"
)
_WORDS: Final = tuple(_TEXT.split())
_ATTEMPTS: Final = 60


Count = Callable[[Sequence[str]], Sequence[int]]


def words(number: int, seed: int) -> str:
    """So many English words in random order."""
    return " ".join(random.Random(seed).choices(_WORDS, k=number))  # noqa: S311 - no secret


def exact(count: Count, tokens: int, seed: int, *, fan: int = 24) -> str:
    """English words in random order that are `tokens` tokens long; the same seed gives the same text.

    Args:
        count: tokens of some texts, each with whatever the model puts before it.
        tokens: how many are wanted.
        seed: texts of different seeds differ from the first words on.
        fan: how many texts are counted in one go; 1 where each costs a call of its own.

    Raises:
        ConfigurationError: no text of this length was found, such as one shorter than what is put before it.
    """
    for attempt in range(_ATTEMPTS):
        text = words(tokens + 8, seed * _ATTEMPTS + attempt)  # a word has at least one token
        low, high = 1, len(text)
        while low < high:  # the longest beginning of at most so many tokens
            step = max(1, (high - low + fan) // (fan + 1))
            ends = range(low + step, high + 1, step)
            counts = count([text[:end] for end in ends])
            if tokens in counts:
                return text[: ends[counts.index(tokens)]]
            fitting = sum(1 for each in counts if each < tokens)
            low, high = low + fitting * step, min(high, low + (fitting + 1) * step - 1)
    raise ConfigurationError(f"no text of exactly {tokens} tokens was found")
