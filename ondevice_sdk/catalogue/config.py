"""The shape of a model that is a folder, by its configuration file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ondevice_sdk.types import ModelShape

_MLC: Final = "mlc-chat-config.json"
_MOST_BYTES: Final = 1 << 20
_MOST: Final = 1 << 31  # of any dimension


def read_shape(first_file: str) -> ModelShape | None:
    """The shape told by the configuration that lies beside a model's first file, or is that file.

    That is `config.json`, with the names of transformers, or MLC's own, which has the same names further down. None:
    there is none, or it tells no shape of a decoder.
    """
    first = Path(first_file)
    path = first if first.name == _MLC else first.with_name("config.json")
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    inner = value.get("model_config")
    return shape_of({**inner, **value} if isinstance(inner, dict) else value)


def shape_of(config: Mapping[str, object]) -> ModelShape | None:
    """The shape by the names of transformers (https://huggingface.co/docs/transformers/main_classes/configuration)."""

    def number(*names: str, default: int | None = None) -> int | None:
        for name in names:
            value = config.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MOST:
                return value
        return default

    layers, width, heads = number("num_hidden_layers"), number("hidden_size"), number("num_attention_heads")
    feed_forward, vocabulary = number("intermediate_size"), number("vocab_size")
    context = number("context_window_size", "max_position_embeddings")
    if not (layers and width and heads and feed_forward and vocabulary and context):
        return None
    kv_heads, head_dim = number("num_key_value_heads") or heads, number("head_dim") or max(1, width // heads)
    attention = 2 * width * head_dim * (heads + kv_heads)
    embeddings = vocabulary * width * (1 if config.get("tie_word_embeddings", True) else 2)
    parameters = layers * (attention + 3 * width * feed_forward) + embeddings
    return ModelShape(parameters, layers, width, heads, kv_heads, head_dim, feed_forward, vocabulary, context)
