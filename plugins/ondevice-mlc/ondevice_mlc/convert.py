"""From a source to the files of a model folder, all but the compiled library.

Memory is bounded by the largest tensor in its new form and some of its rows in the old one.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ondevice_mlc.architecture.config import ModelConfig
from ondevice_mlc.folder import CONFIG, OURS
from ondevice_mlc.quantisation import FORMATS, Group, Precision, groups, quantise
from ondevice_mlc.shards import ShardWriter, total_bytes
from ondevice_mlc.sources import Source
from ondevice_sdk.errors import ModelCorrupt

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK: Final = 1 << 20  # weights that are quantised at a time: 4 MB, and some times that in between


def convert(source: Source, folder: Path, precision: Precision) -> Generator[float, None, list[str]]:
    """Write weights and tokeniser; yields the share that is done and returns the names of the files.

    Raises:
        ModelCorrupt, ModelUnsupported, LoadFailed: as reading the source does.
    """
    wanted = groups(source.config, precision)
    total = total_bytes([(output.shape, output.dtype) for group in wanted for output in group.outputs])
    done = 0
    with closing(ShardWriter(folder)) as writer:
        for group in wanted:
            for output, array in zip(group.outputs, _make(source, group), strict=True):
                writer.add(output.name, array)
                done += array.nbytes
            yield done / total
        names = writer.finish({"ParamSize": sum(len(group.outputs) for group in wanted), "ParamBytes": total})
    files = source.tokenizer_files()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [*names, *files]


def write_config(source: Source, folder: Path, precision: Precision, made: Mapping[str, Any]) -> str:
    """Write `mlc-chat-config.json`; gives its name.

    Args:
        source: what the model was made of.
        folder: where to.
        precision: of the weights.
        made: what is to be known of the library.
    """
    config: ModelConfig = source.config
    content = {
        "version": "0.1.0",
        "model_type": config.model_type,
        "quantization": FORMATS[precision],
        "model_config": config.to_json(),
        "vocab_size": config.vocab_size,
        "context_window_size": config.context_window_size,
        "sliding_window_size": -1,
        "prefill_chunk_size": config.prefill_chunk_size,
        "attention_sink_size": -1,
        "tensor_parallel_shards": 1,
        "tokenizer_files": list(source.tokenizer_files()),
        **source.tokens(),
        OURS: dict(made),
    }
    (folder / CONFIG).write_text(json.dumps(content, indent=1), encoding="utf-8")
    return CONFIG


def _make(source: Source, group: Group) -> list[NDArray[Any]]:
    """The outputs of a group, block of rows by block of rows."""
    import numpy as np

    sizes = [source.size(name) for name in group.sources]
    made = [np.empty(output.shape, output.dtype) for output in group.outputs]
    if sum(sizes) != len(made[0]):
        raise ModelCorrupt(
            f"{group.sources[0]} has an unexpected size", expected=str(len(made[0])), actual=str(sum(sizes))
        )
    place = 0
    for name, size in zip(group.sources, sizes, strict=True):
        step = size if group.precision is None else max(1, _BLOCK // _inputs(source, name))
        for start in range(0, size, step):
            rows = source.rows(name, start, min(start + step, size))
            if not np.isfinite(rows).all():
                raise ModelCorrupt(f"{name} holds values that are no numbers")
            parts = [rows] if group.precision is None else list(quantise(rows, group.precision).values())
            for target, part in zip(made, parts, strict=True):
                if part.shape[1:] != target.shape[1:]:
                    raise ModelCorrupt(
                        f"{name} has an unexpected shape", expected=str(target.shape[1:]), actual=str(part.shape[1:])
                    )
                target[place : place + len(part)] = part
            place += len(rows)
    return made


def _inputs(source: Source, name: str) -> int:
    return int(source.rows(name, 0, 1).shape[-1])
