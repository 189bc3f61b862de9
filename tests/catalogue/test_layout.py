from __future__ import annotations

from pathlib import Path

import pytest

from ondevice_sdk import catalogue
from ondevice_sdk.catalogue import gguf, layout

SHAPES = {spec.name: spec.shape for spec in catalogue.load()}


@pytest.mark.model
def test_the_real_model_is_predicted_to_the_byte(model_path: Path) -> None:
    header = gguf.read_header(model_path)
    assert header.shape is not None
    predicted: dict[str, int] = {}
    for tensor in layout.tensors(header.shape, "Q4_1"):
        predicted[tensor.format] = predicted.get(tensor.format, 0) + tensor.values
    assert predicted == {layout.NUMBERS[number]: values for number, values in header.tensor_types.items()}
    assert layout.tied(header.shape)


def test_public_sizes_of_files_are_met() -> None:
    # smollm2-360m-instruct Q4_K_M and smollm2-1.7b-instruct Q8_0, as their repositories list them
    for name, quantisation, size in (
        ("smollm2-360m-instruct", "Q4_K_M", 270_590_880),
        ("smollm2-1.7b-instruct", "Q8_0", 1_820_414_944),
    ):
        predicted = sum(tensor.size for tensor in layout.tensors(SHAPES[name], quantisation))
        assert predicted == pytest.approx(size, rel=0.012)  # the file has its vocabulary besides


@pytest.mark.parametrize("quantisation", sorted({*layout.FILE_TYPES.values()}))
def test_every_known_quantisation_gives_whole_blocks(quantisation: str) -> None:
    for shape in SHAPES.values():
        for tensor in layout.tensors(shape, quantisation):
            values, size = layout.BLOCKS[tensor.format]
            assert tensor.columns % values == 0
            assert tensor.size * values == tensor.values * size


def test_an_unknown_quantisation_is_said_to_be() -> None:
    assert not layout.is_known("IQ1_S")
    with pytest.raises(KeyError):
        layout.tensors(next(iter(SHAPES.values())), "IQ1_S")
