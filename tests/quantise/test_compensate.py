"""Rounding with compensation: on made-up inputs, and in the file of a small random model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from ondevice_sdk.backends.llama_cpp import codes, compensate, matrix, synthetic
from ondevice_sdk.backends.llama_cpp.matrix import Driven
from ondevice_sdk.catalogue import layout
from ondevice_sdk.errors import ConfigurationError

from .support import SHAPE
from .test_compress import collected, quantised, weights

SCALES = {"Q4_0": (0,), "Q4_1": (0, 2), "Q4_K": (0, 2), "Q3_K": (108,)}  # where a block keeps numbers of 16 bits


@pytest.mark.parametrize("kind", sorted(codes.formats()))
def test_codes_stand_for_what_gguf_reads(kind: str) -> None:
    draw = np.random.default_rng(0)
    values, size = layout.BLOCKS[kind]
    rows, columns = 6, 512
    blocks = draw.integers(0, 256, (rows * columns // values, size), np.uint8)
    for start in SCALES[kind]:
        blocks[:, start : start + 2] = draw.normal(size=(len(blocks), 1)).astype(np.float16).view(np.uint8)
    grid = codes.grid(kind, blocks.reshape(-1), rows)
    chosen = draw.integers(0, grid.most + 1, (rows, columns)).astype(np.uint8)
    made = codes.replaced(kind, blocks.reshape(-1), chosen)
    scale, least = grid.columns(columns)
    assert dequantize(made.reshape(rows, -1), GGMLQuantizationType[kind]) == pytest.approx(scale * chosen + least)


def example(groups: int = 2) -> tuple[NDArray[np.float32], codes.Grid, NDArray[np.float32]]:
    """Weights, their grid, and products of inputs that go together within groups."""
    draw = np.random.default_rng(1)
    made = draw.normal(size=(24, 128)).astype(np.float32)
    size = 128 // groups
    inputs = draw.normal(size=(groups, 400, size)) @ draw.normal(size=(groups, size, size))
    products = (inputs.transpose(0, 2, 1) @ inputs / 400).astype(np.float32)
    scale = np.abs(made.reshape(24, 4, 32)).max(axis=2) / 7
    return made, codes.Grid(scale, -8 * scale, 15), products


def loss(
    made: NDArray[np.float32], grid: codes.Grid, chosen: NDArray[np.uint8], products: NDArray[np.float32]
) -> float:
    """Mean square of what the outputs are off by."""
    scale, least = grid.columns(made.shape[1])
    error = (made - (scale * chosen + least)).reshape(len(made), len(products), -1)
    return float(np.einsum("rgi,gij,rgj->", error, products, error))


def rounded(made: NDArray[np.float32], grid: codes.Grid) -> NDArray[np.uint8]:
    scale, least = grid.columns(made.shape[1])
    nearest: NDArray[np.uint8] = np.clip(np.rint((made - least) / scale), 0, grid.most).astype(np.uint8)
    return nearest


@pytest.mark.parametrize("groups", [1, 2])
def test_errors_are_made_up_for(groups: int) -> None:
    made, grid, products = example(groups)
    chosen = compensate.choose(made, grid, *compensate.prepare(products))
    assert chosen.max() <= grid.most
    assert loss(made, grid, chosen, products) < 0.6 * loss(made, grid, rounded(made, grid), products)


def test_inputs_that_have_nothing_to_do_with_each_other_are_rounded_alone() -> None:
    made, grid, _ = example()
    alone = np.broadcast_to(np.diag(np.linspace(1, 5, 64, dtype=np.float32)), (2, 64, 64))
    assert (compensate.choose(made, grid, *compensate.prepare(alone)) == rounded(made, grid)).all()


def test_inputs_and_scales_that_are_nothing_do_no_harm() -> None:
    made, grid, products = example(1)
    products[:, :40] = products[:, :, :40] = 0
    chosen = compensate.choose(made, grid, *compensate.prepare(products))
    assert loss(made, grid, chosen, products) < 0.6 * loss(made, grid, rounded(made, grid), products)
    silent = compensate.prepare(np.zeros((2, 64, 64), np.float32))
    assert (compensate.choose(made, grid, *silent) == rounded(made, grid)).all()
    grid.scale[:] = grid.least[:] = 0
    assert (compensate.choose(made, grid, *silent) == 0).all()


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q3_K_S", "Q4_K_M"])
def test_a_file_becomes_nearer_in_what_it_computes(tmp_path: Path, name: str) -> None:
    source = tmp_path / "source.gguf"
    synthetic.write(source, SHAPE, "BF16")
    whole = collected(source, tmp_path / "whole.gguf")
    squares = tmp_path / "squares.gguf"  # what llama.cpp's own tool would have collected
    found = {each: Driven(values.astype(np.float64), 1) for each, values in matrix.read(str(whole)).items()}
    matrix.write(str(squares), found, text="", windows=1, window=1)
    weighed, compensated = (
        quantised(source, tmp_path / f"{each.stem}-made.gguf", name, each) for each in (squares, whole)
    )
    assert weighed.stat().st_size == compensated.stat().st_size
    products = matrix.Products(str(whole))
    for tensor in ("blk.0.ffn_down.weight", "blk.1.attn_v.weight", "blk.1.ffn_up.weight"):
        exact = weights(source, tensor)
        kept = products.read(products.names[tensor])
        off = []
        for path in (weighed, compensated):
            error = (exact - weights(path, tensor)).reshape(len(exact), len(kept), -1)
            off.append(float(np.einsum("rgi,gij,rgj->", error, kept, error)))
        finer = name == "Q4_K_M" and off[0] == off[1]  # in a format that is left alone
        assert finer or off[1] < 0.95 * off[0]
    assert (weights(weighed, "token_embd.weight") == weights(compensated, "token_embd.weight")).all()


def test_products_of_another_model_are_refused(tmp_path: Path) -> None:
    source, path = tmp_path / "source.gguf", tmp_path / "products.gguf"
    synthetic.write(source, SHAPE, "BF16")
    name = "blk.0.ffn_down.weight"
    square = np.eye(SHAPE.width, dtype=np.float32)[None]
    given = {
        name: Driven(np.ones(SHAPE.feed_forward), 1, shared="blk.0.ffn_up.weight"),
        "blk.0.ffn_up.weight": Driven(np.ones(SHAPE.width), 1, square),
    }
    matrix.write(str(path), given, text="", windows=1, window=1)
    with pytest.raises(ConfigurationError, match="another model"):
        quantised(source, tmp_path / "made.gguf", "Q4_0", path)
    given["blk.0.ffn_up.weight"].products = np.full((1, SHAPE.width, SHAPE.width), np.nan, np.float32)
    matrix.write(str(path), given, text="", windows=1, window=1)
    with pytest.raises(ConfigurationError, match="no importance matrix"):
        quantised(source, tmp_path / "again.gguf", "Q4_0", path)


@pytest.mark.parametrize(
    ("columns", "expected"), [(576, 288), (1536, 512), (896, 448), (4864, 304), (31, 31), (521, 1)]
)
def test_groups_are_equal(columns: int, expected: int) -> None:
    assert compensate.group_size(columns, 512) == expected
