from __future__ import annotations

from pathlib import Path

import pytest
from gguf import GGUFReader

from ondevice_sdk.backends.calibration import Calibration, FormatRates
from ondevice_sdk.backends.llama_cpp import synthetic
from ondevice_sdk.catalogue import gguf
from ondevice_sdk.quantise import layouts
from ondevice_sdk.quantise.layouts import Source, candidates, read_source, unchanged
from ondevice_sdk.types import ModelShape

from .support import SHAPE

FORMATS = ("Q8_0", "Q4_0", "BF16")
WIDE = ModelShape(3_000_000, 2, 256, 4, 2, 64, 512, 600, 2048)  # rows of blocks of 256


def source(folder: Path, kind: str, shape: ModelShape = SHAPE) -> Source:
    path = folder / f"{kind}.gguf"
    synthetic.write(path, shape, kind)
    found = read_source(path)
    assert found is not None
    return found


def calibrated(**seconds: float) -> Calibration:
    """Of a processor that takes so many seconds for a weight in each format, whether it reads or multiplies."""
    rates = tuple(FormatRates(kind, 2, each, each, each) for kind, each in seconds.items())
    return Calibration("test", 2, rates, 1e-5, 1e-6, 1e-12, 1e-9, 1e-12, 1e-12, 1.0, 1.0)


def test_the_layout_of_a_file(tmp_path: Path) -> None:
    made = unchanged(source(tmp_path, "Q4_1"))
    assert (made.name, made.changed) == ("Q4_1", {})
    assert made.size == (tmp_path / "Q4_1.gguf").stat().st_size
    assert set(made.work.layers) == {"Q4_1"}
    assert sum(made.work.output.values()) == SHAPE.width * SHAPE.vocabulary


def test_without_figures_each_format_is_tried_in_its_order(tmp_path: Path) -> None:
    assert [each.name for each in candidates(source(tmp_path, "Q4_1"), FORMATS, None)] == ["Q8_0", "Q4_0", "BF16"]
    assert [each.name for each in candidates(source(tmp_path, "Q8_0"), FORMATS, None)] == ["Q4_0", "BF16"]


def test_the_most_promising_comes_first_and_what_is_slower_not_at_all(tmp_path: Path) -> None:
    figures = calibrated(Q4_1=4e-9, Q8_0=2e-9, Q4_0=1e-9, BF16=8e-9)
    assert [each.name for each in candidates(source(tmp_path, "Q4_1"), FORMATS, figures)] == ["Q4_0", "Q8_0"]
    assert candidates(source(tmp_path, "Q4_0"), FORMATS, figures) == ()


def test_only_the_matrices_whose_format_is_slow_may_change(tmp_path: Path) -> None:
    mixed = source(tmp_path, "Q4_K_M", WIDE)
    kinds = set(unchanged(mixed).work.layers)
    assert kinds == {"Q4_K", "Q6_K"}
    made = candidates(mixed, FORMATS, calibrated(Q4_K=2e-9, Q6_K=6e-9, Q8_0=2e-9, Q4_0=9e-9, BF16=9e-9))
    assert "Q4_K+Q8_0" in {each.name for each in made}
    (partly,) = (each for each in made if each.name == "Q4_K+Q8_0")
    before = {tensor.name: tensor.kind for tensor in mixed.tensors}
    assert {before[name] for name in partly.changed} == {14}
    assert set(partly.changed.values()) == {"Q8_0"}


@pytest.mark.parametrize(
    ("kind", "target", "moves"), [("F16", "Q8_0", True), ("F16", "Q4_0", False), ("Q8_0", "BF16", False)]
)
def test_the_vocabulary_goes_from_16_bits_to_8_and_no_other_way(
    tmp_path: Path, kind: str, target: str, moves: bool
) -> None:
    (made,) = candidates(source(tmp_path, kind), (target,), None)
    assert ("token_embd.weight" in made.changed) == moves
    assert not any("norm" in name for name in made.changed)


def test_the_size_is_that_of_the_file_that_is_written(tmp_path: Path) -> None:
    here = source(tmp_path, "Q4_1")
    for each in candidates(here, FORMATS, None):
        if each.name in ("Q8_0", "BF16"):  # the same vocabulary matrix, or none of it
            other = source(tmp_path, each.name)
            vocabulary = sum(t.values for t in here.tensors if t.name == "token_embd.weight")
            difference = abs(each.size - other.size)
            assert difference <= vocabulary * 2


def test_rows_that_do_not_divide_into_blocks_stay(tmp_path: Path) -> None:
    odd = ModelShape(100_000, 1, 48, 1, 1, 48, 96, 300, 512)
    path = tmp_path / "odd.gguf"
    synthetic.write(path, odd, "F16")
    found = read_source(path)
    assert found is not None
    (made,) = candidates(found, ("Q8_0",), None)
    columns = {tensor.name: tensor.columns for tensor in gguf.read_tensors(path)}
    assert {columns[name] % 32 for name in made.changed} == {0}
    assert made.name == "F16+Q8_0" or made.name == "Q8_0+F16"


def test_speeds_in_one_figure() -> None:
    assert sum(layouts.WEIGHTS.values()) == pytest.approx(1)
    assert layouts.score({"prompt": 2.0, "batched": 2.0, "decode": 2.0}) == pytest.approx(2)
    slow_stream = layouts.score({"prompt": 4.0, "batched": 1.0, "decode": 0.5})
    assert 1 < slow_stream < layouts.score({"prompt": 4.0, "batched": 1.0, "decode": 1.0})


def test_tensors_lie_where_the_header_says(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    synthetic.write(path, SHAPE, "Q4_1")
    expected = {each.name: each for each in GGUFReader(path).tensors}
    found = gguf.read_tensors(path)
    assert {each.name for each in found} == set(expected)
    for each in found:
        other = expected[each.name]
        assert (each.offset, each.kind, each.values) == (
            other.data_offset,
            int(other.tensor_type),
            int(other.n_elements),
        )
        assert each.columns == int(other.shape[0])
