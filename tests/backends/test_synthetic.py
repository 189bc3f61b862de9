"""Random models are real ones: llama.cpp loads them, and their logits are numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ondevice_sdk.backends.api import Batch, LoadOptions, LocalModel
from ondevice_sdk.backends.llama_cpp import LlamaCppBackend, synthetic
from ondevice_sdk.backends.llama_cpp.runner import LlamaCppRunner
from ondevice_sdk.catalogue import gguf, layout
from ondevice_sdk.errors import ConfigurationError, StoreError
from ondevice_sdk.types import ModelShape

SMALL = ModelShape(1_000_000, 2, 256, 4, 2, 64, 512, 600, 512)


@pytest.mark.parametrize("quantisation", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q4_K_M", "Q5_K_M"])
def test_a_random_model_runs(tmp_path: Path, quantisation: str) -> None:
    path = tmp_path / "random.gguf"
    told: list[float] = []
    synthetic.write(path, SMALL, quantisation, on_progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    header = gguf.read_header(path)
    assert header.shape is not None
    assert (header.shape.layers, header.shape.width, header.shape.vocabulary) == (2, 256, 600)
    assert layout.FILE_TYPES[header.file_type or 0] == quantisation
    assert sum(header.tensor_types.values()) == sum(tensor.values for tensor in layout.tensors(SMALL, quantisation))
    options = LoadOptions(context_tokens=64, max_sequences=1, threads=1, batch_tokens=8)
    runner = LlamaCppBackend().load(LocalModel("random", "", "gguf", str(path), ""), options)
    assert isinstance(runner, LlamaCppRunner)
    try:
        batch = Batch()
        for position in range(4):
            batch.add(0, position, 300 + position, position == 3)
        logits = runner.forward(batch)[0]
        assert np.isfinite(logits).all()
        assert np.ptp(logits) > 0
    finally:
        runner.close()


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        synthetic.write(tmp_path / name, SMALL, "Q4_0", seed=seed)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Q4_2"):
        synthetic.write(tmp_path / "a.gguf", SMALL, "Q4_2")
    with pytest.raises(StoreError):
        synthetic.write(tmp_path / "missing" / "a.gguf", SMALL, "Q4_0")

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthetic.write(tmp_path / "a.gguf", SMALL, "Q4_0", on_progress=stop)
    assert list(tmp_path.iterdir()) == []
