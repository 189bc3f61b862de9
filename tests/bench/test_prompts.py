from __future__ import annotations

from collections.abc import Sequence

import pytest

from ondevice_sdk import ConfigurationError
from ondevice_sdk.bench import prompts


def in_bytes(texts: Sequence[str]) -> list[int]:
    return [1 + len(text) for text in texts]  # and one before it


def in_words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def spaces_take_three(texts: Sequence[str]) -> list[int]:
    """Some lengths are jumped over, as by vocabularies that spell spaces in bytes."""
    return [len(text) + 2 * text.count(" ") for text in texts]


@pytest.mark.parametrize("tokens", [5, 66, 512])
@pytest.mark.parametrize("fan", [1, 24])
@pytest.mark.parametrize("count", [in_bytes, in_words, spaces_take_three])
def test_texts_are_exactly_as_long_as_asked_for(count: prompts.Count, fan: int, tokens: int) -> None:
    for seed in range(5):
        assert count([prompts.exact(count, tokens, seed, fan=fan)]) == [tokens]


def test_texts_differ_from_the_start_and_are_the_same_again() -> None:
    texts = [prompts.exact(in_words, 64, seed) for seed in range(50)]
    assert len({tuple(text.split()[:8]) for text in texts}) == 50
    assert texts == [prompts.exact(in_words, 64, seed) for seed in range(50)]


def test_an_impossible_length_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="exactly 7"):
        prompts.exact(lambda texts: [10 + len(text) for text in texts], 7, 1)
