"""Shapes of models that are folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ondevice_sdk import catalogue
from ondevice_sdk.catalogue.config import read_shape, shape_of

SMOLLM2: dict[str, Any] = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}


def test_it_is_that_of_the_catalogue() -> None:
    listed, found = catalogue.get(catalogue.DEFAULT).shape, shape_of(SMOLLM2)
    assert found is not None
    assert found.parameters == pytest.approx(listed.parameters, rel=0.001)  # norms are left out
    assert found.kv_bytes_per_token() == listed.kv_bytes_per_token()
    assert (found.width, found.context_tokens, found.head_dim) == (576, 8192, 64)


def test_what_is_not_said_follows_from_the_rest() -> None:
    assert (alone := shape_of({**SMOLLM2, "num_key_value_heads": None})) is not None
    assert alone.kv_heads == 9
    assert (wide := shape_of({**SMOLLM2, "head_dim": 128, "tie_word_embeddings": False})) is not None
    assert wide.head_dim == 128
    assert wide.parameters > alone.parameters


@pytest.mark.parametrize("name", sorted(set(SMOLLM2) - {"num_key_value_heads", "tie_word_embeddings"}))
@pytest.mark.parametrize("value", [None, 0, -1, "many", True, 1 << 40])
def test_without_a_dimension_there_is_no_shape(name: str, value: object) -> None:
    assert shape_of({**SMOLLM2, name: value}) is None


def test_both_kinds_of_folders(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SMOLLM2))
    assert read_shape(str(tmp_path / "openvino_model.xml")) == shape_of(SMOLLM2)
    mlc = tmp_path / "mlc-chat-config.json"
    mlc.write_text(json.dumps({"model_config": SMOLLM2, "context_window_size": 2048}))
    found = read_shape(str(mlc))
    assert found is not None
    assert found.context_tokens == 2048


@pytest.mark.parametrize("text", ["", "[]", "{", '{"model_config": 3}', "[" * 100_000])
def test_what_is_no_configuration(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert read_shape(str(tmp_path / "model.xml")) is None
    assert read_shape(str(tmp_path / "elsewhere" / "model.xml")) is None
