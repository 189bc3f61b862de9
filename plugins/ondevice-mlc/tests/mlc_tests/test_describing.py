"""What a runner takes from the configuration of a folder, before anything of it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ondevice_mlc.folder import Folder
from ondevice_mlc.runner import MlcRunner
from ondevice_sdk.backends.api import LoadOptions
from ondevice_sdk.errors import ModelCorrupt

from .test_gguf_tokenizer import own, small
from .upstream import CHATML

METADATA = {"context_window_size": 512, "prefill_chunk_size": 64}


def described(config: dict[str, Any]) -> MlcRunner:
    runner = MlcRunner.__new__(MlcRunner)
    runner._words = own(small())
    runner._describe(Folder(config, (), {}, Path("model.so")), METADATA)
    return runner


def test_the_number_of_words() -> None:
    assert described({"vocab_size": 9}).vocabulary == 9
    assert described({"model_config": {"vocab_size": 8}}).vocabulary == 8


@pytest.mark.parametrize("config", [{}, {"model_config": ["vocab_size"]}, {"model_config": "x"}, {"vocab_size": 2}])
def test_numbers_of_words_that_are_none(config: dict[str, Any]) -> None:
    with pytest.raises(ModelCorrupt):
        described(config)


def test_stop_strings_in_an_unknown_form() -> None:
    """Only words that are tokens end an answer."""
    template: dict[str, Any] = {**CHATML, "stop_str": [["<|end|>"], {}, None, "hi", "<|end|>"]}
    assert described({"vocab_size": 9, "conv_template": template}).end_tokens == {3}


@pytest.mark.parametrize("most", [1, 2, 8])
def test_a_library_for_few_sequences(most: int) -> None:
    """It runs as many as it can, and not so many as are asked for."""
    runner = MlcRunner.__new__(MlcRunner)
    runner._choose_sizes(METADATA | {"max_batch_size": most}, LoadOptions(max_sequences=8))
    assert (runner.max_sequences, runner.isolated_sequence, runner.max_logits) == (most, most, most)
