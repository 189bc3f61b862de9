"""Tests of ondevice-mlc."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ondevice_mlc import gguf_tokenizer


def gguf_vocabulary() -> tuple[dict[str, Any], int]:
    """A small `tokenizer.json`, and how many rows the vocabulary of a model for it has."""
    from .vocabularies import fields, write_byte_level

    with tempfile.TemporaryDirectory() as work:
        write_byte_level(Path(work) / "v.gguf", "smollm")
        found = gguf_tokenizer.description(fields(Path(work) / "v.gguf"))
    return found, 928
