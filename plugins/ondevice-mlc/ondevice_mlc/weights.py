"""Weights of a model folder as the tensors that its library takes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from ondevice_mlc import runtime
from ondevice_mlc.folder import Folder, Record, Shard
from ondevice_sdk.errors import LoadFailed, ModelCorrupt, ModelUnsupported

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TABLE: Final = "embed_tokens"  # what the table of words is called, also by upstream
_CHUNK: Final = 1 << 22  # bytes hashed at a time
_HASHERS: Final = 2  # files that are hashed side by side


def parameters(metadata: Mapping[str, Any], vocabulary: int) -> list[dict[str, Any]]:
    """Name, shape and type of each parameter of a library, in its order.

    Upstream's libraries run with any number of words: that dimension has a name in their metadata.

    Args:
        metadata: what the library says of itself.
        vocabulary: how many words the folder says that the model has.

    Raises:
        ModelCorrupt: the library has another number of words, or does not describe its parameters. Tokens are places
            in the table of words, and compiled code does not look whether it reads past its end.
    """
    try:
        found = [
            {**each, "shape": [vocabulary if size == "vocab_size" else size for size in each["shape"]]}
            for each in metadata["params"]
        ]
        rows = {each["shape"][0] for each in found if _TABLE in each["name"]}
    except (KeyError, TypeError, IndexError) as error:
        raise ModelCorrupt("the compiled library does not describe its parameters") from error
    if rows != {vocabulary}:
        raise ModelCorrupt(
            "the library was compiled for another number of words than the folder says",
            expected=", ".join(map(str, rows)) or f"a parameter {_TABLE}",
            actual=str(vocabulary),
        )
    return found


def load(folder: Folder, wanted: Sequence[Any], on_progress: Callable[[float], None]) -> list[Any]:
    """The tensors in the order of the library's parameters.

    They lie in the memory-mapped files where these are laid out for it, else in memory of their own.

    Args:
        folder: whose files are read.
        wanted: name, shape and type of each parameter, as the library's metadata gives them.
        on_progress: called with the share that is loaded.

    Raises:
        ModelCorrupt: a file is not what its digest says, or the tensors are not those that the library was compiled
            for. ModelUnsupported: a type that cannot be used here. LoadFailed: a file cannot be read.
    """
    import numpy as np

    maps: dict[str, tuple[Record, NDArray[np.uint8]]] = {}
    total, done = sum(shard.size for shard in folder.shards), 0
    with ThreadPoolExecutor(_HASHERS, "ondevice-mlc-md5") as pool:
        contents = []
        for shard in folder.shards:
            try:
                contents.append(np.memmap(shard.path, np.uint8, "c"))  # private: nothing is ever written to the file
            except (OSError, ValueError) as error:
                raise LoadFailed(f"{shard.path.name} cannot be read") from error
        checks = pool.map(_check, folder.shards, contents)
        for shard, content, _ in zip(folder.shards, contents, checks, strict=True):
            maps.update({record.name: (record, content) for record in shard.records})
            done += shard.size
            on_progress(done / max(total, 1))
    return [_parameter(each, maps) for each in wanted]


def _check(shard: Shard, content: NDArray[np.uint8]) -> None:
    if shard.md5 is None:
        return
    digest = hashlib.md5(usedforsecurity=False)
    for start in range(0, len(content), _CHUNK):
        digest.update(content[start : start + _CHUNK].data)
    if digest.hexdigest() != shard.md5:
        raise ModelCorrupt(f"{shard.path.name} is damaged", expected=shard.md5[:32], actual=digest.hexdigest())


def _parameter(wanted: Any, maps: dict[str, tuple[Record, NDArray[np.uint8]]]) -> Any:
    try:
        name, shape, dtype = wanted["name"], tuple(wanted["shape"]), wanted["dtype"]
    except (KeyError, TypeError) as error:
        raise ModelCorrupt("the compiled library does not describe its parameters") from error
    if name not in maps:
        raise ModelCorrupt("the folder lacks a tensor that its library was compiled for", expected=str(name)[:80])
    record, content = maps[name]
    if record.shape != shape:
        raise ModelCorrupt(
            f"{name} has another shape than its library was compiled for", expected=str(shape), actual=str(record.shape)
        )
    return runtime.tensor(_array(record, dtype, content[record.offset : record.offset + record.size]))


def _array(record: Record, dtype: str, data: NDArray[np.uint8]) -> NDArray[Any]:
    """The values of a tensor in memory that compiled code can read."""
    import numpy as np

    widened = record.halved or record.dtype == "bfloat16"
    if dtype != ("float32" if widened else record.dtype):
        raise ModelCorrupt(
            f"{record.name} has another type than its library was compiled for", expected=dtype, actual=record.dtype
        )
    if dtype == "bfloat16":
        raise ModelUnsupported("parameters in bfloat16 are not supported")
    if widened:
        values = runtime.aligned(record.shape, np.uint32)
        np.left_shift(data.view(np.uint16).reshape(record.shape), 16, out=values, dtype=np.uint32)
        return values.view(np.float32)
    if data.ctypes.data % runtime.ALIGNMENT == 0 and data.size:
        return data.view(dtype).reshape(record.shape)
    copied = runtime.aligned(record.shape, dtype)
    copied[...] = np.frombuffer(data.tobytes(), dtype).reshape(record.shape)
    return copied
