"""Writes the weights of a model folder: `params_shard_*.bin` and the `tensor-cache.json` that describes them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ondevice_mlc.folder import ITEM_BYTES, TENSORS
from ondevice_mlc.runtime import ALIGNMENT

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHARD_BYTES: Final = 32 << 20  # as upstream's; larger tensors have a file of their own


class ShardWriter:
    """Puts tensors one after another; each begins where compiled code can read it without a copy."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shards: list[dict[str, Any]] = []
        self._records: list[dict[str, Any]] = []
        self._file: Any = None
        self._digest = hashlib.md5(usedforsecurity=False)
        self._size = 0

    def add(self, name: str, array: NDArray[Any]) -> None:
        """Write a tensor as it is."""
        dtype = str(array.dtype)
        size = math.prod(array.shape) * ITEM_BYTES[dtype]
        if self._records and self._size + size > SHARD_BYTES:
            self._end()
        if self._file is None:
            self._file = (self._folder / self._name()).open("wb")
        self._write(bytes(-self._size % ALIGNMENT))
        shape = list(array.shape)
        record = {"name": name, "shape": shape, "dtype": dtype, "format": "raw", "nbytes": size}
        self._records.append({**record, "byteOffset": self._size})
        self._write(array.tobytes())

    def finish(self, metadata: Mapping[str, Any]) -> list[str]:
        """Write the description; gives the names of all files, it first."""
        self._end()
        content = {"metadata": dict(metadata), "records": self._shards}
        (self._folder / TENSORS[0]).write_text(json.dumps(content, indent=1), encoding="utf-8")
        return [TENSORS[0], *(shard["dataPath"] for shard in self._shards)]

    def close(self) -> None:
        """Close the file that was being written, if there is one."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._size += len(data)

    def _end(self) -> None:
        self.close()
        if self._records:
            described = {"dataPath": self._name(), "format": "raw-shard", "nbytes": self._size}
            self._shards.append({**described, "records": self._records, "md5sum": self._digest.hexdigest()})
        self._records, self._size, self._digest = [], 0, hashlib.md5(usedforsecurity=False)

    def _name(self) -> str:
        return f"params_shard_{len(self._shards)}.bin"


def total_bytes(tensors: Sequence[tuple[tuple[int, ...], str]]) -> int:
    """Bytes of tensors of these shapes and types."""
    return sum(math.prod(shape) * ITEM_BYTES[dtype] for shape, dtype in tensors)
