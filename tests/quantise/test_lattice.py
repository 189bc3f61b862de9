from __future__ import annotations

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize, quantize
from numpy.typing import NDArray

from ondevice_sdk.backends.llama_cpp import lattice
from ondevice_sdk.catalogue import layout

BLOCKS = 512


def weights() -> NDArray[np.float32]:
    draw = np.random.default_rng(7)
    values = draw.normal(0.0, 0.05, (BLOCKS, 32)).astype(np.float32)
    values[0] = 0.0  # a scale of nothing
    values[1] = 0.25  # all the same
    values[2] = np.linspace(1.0, 1.1, 32)  # far from zero: no step of 8 bits fits
    return values.reshape(-1, 256)


def packed(kind: str) -> NDArray[np.uint8]:
    """Blocks of this format; those of 256 are not made by gguf, so that they are drawn."""
    values, size = layout.BLOCKS[kind]
    if values == 32:
        made: NDArray[np.uint8] = quantize(weights(), gguf.GGMLQuantizationType[kind]).view(np.uint8).reshape(-1)
        return made
    draw = np.random.default_rng(8)
    blocks = draw.integers(0, 256, (BLOCKS // 8, size), np.uint8)
    blocks[:, :4] = np.array([8e-5, 6e-4], np.float16).view(np.uint8)
    return blocks.reshape(-1)


def plain(kind: str, data: NDArray[np.uint8]) -> NDArray[np.float32]:
    made: NDArray[np.float32] = dequantize(data.reshape(1, -1), gguf.GGMLQuantizationType[kind]).reshape(-1, 32)
    return made


@pytest.mark.parametrize("kind", sorted(lattice.formats()))
def test_no_block_gets_worse_and_nearly_all_get_better(kind: str) -> None:
    source = packed(kind)
    wanted = plain(kind, source).astype(np.float64)
    rounded = quantize(wanted.astype(np.float32), gguf.GGMLQuantizationType.Q8_0).view(np.uint8).reshape(-1)
    made = lattice.refine(kind, source, rounded)
    assert made.shape == rounded.shape
    before, after = (np.abs(plain("Q8_0", each) - wanted).max(axis=1) for each in (rounded, made))
    bound = np.abs(wanted).max(axis=1) / 254 + 1e-12  # what rounding may err
    assert (after <= np.maximum(before, bound) * 1.001).all()
    rms_before, rms_after = (float(np.sqrt(((plain("Q8_0", each) - wanted) ** 2).mean())) for each in (rounded, made))
    assert rms_after < 0.8 * rms_before


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_0"])
def test_formats_without_an_offset_are_kept_exactly(kind: str) -> None:
    source = packed(kind)
    wanted = plain(kind, source)
    rounded = quantize(wanted, gguf.GGMLQuantizationType.Q8_0).view(np.uint8).reshape(-1)
    assert np.abs(plain("Q8_0", rounded) - wanted).max() > 0  # which rounding does not do
    assert np.abs(plain("Q8_0", lattice.refine(kind, source, rounded)) - wanted).max() == 0


def test_a_damaged_scale_leaves_the_block_as_it_was_rounded() -> None:
    source = packed("Q4_1").reshape(-1, 20).copy()
    source[5, :2] = np.array([np.nan], np.float16).view(np.uint8)
    rounded = np.arange(BLOCKS * 34, dtype=np.uint64).astype(np.uint8)
    made = lattice.refine("Q4_1", source.reshape(-1), rounded).reshape(-1, 34)
    assert (made[5] == rounded.reshape(-1, 34)[5]).all()
    assert (made[6] != rounded.reshape(-1, 34)[6]).any()
