"""Models that a folder can be made of, seen alike: a configuration, tensors by Hugging Face's names, a tokeniser."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondevice_mlc.architecture.config import ModelConfig
from ondevice_sdk.errors import ModelUnsupported

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Source(ABC):
    """A model on the disk. Errors while it is read are `ModelCorrupt` and `ModelUnsupported`."""

    config: ModelConfig

    @abstractmethod
    def rows(self, name: str, start: int, end: int) -> NDArray[np.float32]:
        """Some rows of a matrix, or some entries of a vector, in Hugging Face's order."""

    @abstractmethod
    def size(self, name: str) -> int:
        """How many rows a matrix has, or entries a vector."""

    @abstractmethod
    def tokenizer_files(self) -> Mapping[str, bytes]:
        """`tokenizer.json` and `tokenizer_config.json`, with the chat template in the latter if there is one."""

    @abstractmethod
    def tokens(self) -> Mapping[str, Any]:
        """`bos_token_id`, `eos_token_id` (all tokens that end an answer) and `pad_token_id` of the configuration."""


def open_source(path: Path) -> Source:
    """Look at a model.

    Args:
        path: a GGUF file, a `config.json` or `.safetensors` file, or a folder that holds one.

    Raises:
        ModelCorrupt: it cannot be read. ModelUnsupported: it is of an architecture or kind that is not supported.
    """
    if path.is_dir() or path.suffix in (".json", ".safetensors"):
        from ondevice_mlc.safetensors_source import SafetensorsSource

        return SafetensorsSource(path if path.is_dir() else path.parent)
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"GGUF":
        from ondevice_mlc.gguf_source import GgufSource

        return GgufSource(path)
    raise ModelUnsupported("only GGUF files and safetensors folders can be compiled")
