from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize

from ondevice_sdk.backends.llama_cpp import relayout, synthetic
from ondevice_sdk.catalogue import gguf, layout
from ondevice_sdk.errors import LoadFailed, ModelCorrupt
from ondevice_sdk.quantise.layouts import candidates, read_source

from .support import SHAPE


def formats(path: Path) -> dict[str, str]:
    return {tensor.name: layout.NUMBERS[tensor.kind] for tensor in gguf.read_tensors(path)}


@pytest.mark.parametrize("target", ["Q8_0", "Q4_0", "BF16", "F16"])
def test_the_tensors_named_change_and_no_others(tmp_path: Path, target: str) -> None:
    source, copy = tmp_path / "source.gguf", tmp_path / "copy.gguf"
    synthetic.write(source, SHAPE, "Q4_1")
    found = read_source(source)
    assert found is not None
    (wanted,) = candidates(found, (target,), None)
    told = list(relayout.write(source=str(source), target=str(copy), formats=wanted.changed, threads=1))
    assert told == sorted(told)
    assert told[-1] == 1
    before, after = formats(source), formats(copy)
    assert after == {**before, **wanted.changed}
    assert set(after.values()) >= {target, "F32"}
    assert abs(copy.stat().st_size - wanted.size) < 4096
    old, new = ({each.name: each for each in GGUFReader(path).tensors} for path in (source, copy))
    for name, tensor in old.items():
        was, now = (dequantize(each.data, each.tensor_type) for each in (tensor, new[name]))
        if name not in wanted.changed:
            assert (tensor.data == new[name].data).all()
        loss = float(np.sqrt(((was - now) ** 2).mean()) / np.sqrt((was**2).mean()))
        assert loss < {"Q8_0": 0.004, "Q4_0": 0.15, "BF16": 0.003, "F16": 0.001}[target]
    heads = [{key: field.contents() for key, field in GGUFReader(path).fields.items()} for path in (source, copy)]
    changing = {"general.file_type", "general.quantization_version", "GGUF.kv_count"}
    assert {k: v for k, v in heads[0].items() if k not in changing} == {
        k: v for k, v in heads[1].items() if k not in changing
    }


def test_eight_bits_are_nearer_than_a_second_rounding(tmp_path: Path) -> None:
    source, copy = tmp_path / "source.gguf", tmp_path / "copy.gguf"
    synthetic.write(source, SHAPE, "Q4_1")
    name = "blk.0.ffn_down.weight"
    list(relayout.write(source=str(source), target=str(copy), formats={name: "Q8_0"}, threads=1))
    (was,) = (dequantize(each.data, each.tensor_type) for each in GGUFReader(source).tensors if each.name == name)
    (now,) = (dequantize(each.data, each.tensor_type) for each in GGUFReader(copy).tensors if each.name == name)
    blocks = was.reshape(-1, 32)
    step = np.abs(blocks).max(axis=1, keepdims=True) / 127
    rounded = np.rint(blocks / step) * step
    assert np.square(now - was).sum() < 0.5 * np.square(rounded - blocks).sum()


def test_what_cannot_be_read_or_written(tmp_path: Path) -> None:
    source = tmp_path / "source.gguf"
    source.write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(ModelCorrupt):
        list(relayout.write(source=str(source), target=str(tmp_path / "copy.gguf"), formats={}, threads=1))
    synthetic.write(source, SHAPE, "Q8_0")
    target = str(tmp_path / "nowhere" / "copy.gguf")
    with pytest.raises(LoadFailed):
        list(relayout.write(source=str(source), target=target, formats={"blk.0.ffn_down.weight": "BF16"}, threads=1))
