"""With the real model: its int4 file as a copy in eight bits."""

from __future__ import annotations

from pathlib import Path

import pytest

from ondevice_sdk import Client, Sentiment
from ondevice_sdk.backends.api import LocalModel
from ondevice_sdk.backends.llama_cpp import LlamaCppBackend, relayout
from ondevice_sdk.catalogue import gguf
from ondevice_sdk.device import detect
from ondevice_sdk.quantise import search
from ondevice_sdk.quantise.divergence import divergence_of, read_windows
from ondevice_sdk.quantise.layouts import candidates, read_source
from ondevice_sdk.runtime.probe_worker import run_in_worker

ENTRY = "ondevice_sdk.backends.llama_cpp:LlamaCppBackend"


@pytest.fixture(scope="module")
def copy(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written in a sealed worker."""
    source = read_source(model_path)
    relayer = LlamaCppBackend().relayer()
    assert source is not None
    assert relayer is not None
    (layout,) = candidates(source, ("Q8_0",), None)
    folder = tmp_path_factory.mktemp("copy")
    target = folder / "copy.gguf"
    told: list[float] = []
    run_in_worker(
        relayer.writer,
        privacy="strict",
        arguments={
            "source": str(model_path), "target": str(target), "formats": dict(layout.changed), "threads": 2,
        },
        read=(str(model_path),),
        caches=(str(folder),),
        on_progress=told.append,
    )  # fmt: skip
    assert told[-1] == 1
    assert [each.name for each in folder.iterdir()] == ["copy.gguf"]
    assert abs(target.stat().st_size - layout.size) < 4096
    return target


def kl(model: Path, source: Path) -> float:
    def local(path: Path) -> tuple[str, LocalModel]:
        return ENTRY, LocalModel("m", "int4", "gguf", str(path), "", (str(path),))

    windows = read_windows(
        [local(model), local(source)],
        search.reading(),
        tokens=search.QUICK_TOKENS,
        window=search.WINDOW,
        threads=detect().threads,
        privacy="strict",
    )
    return divergence_of(windows).value


@pytest.mark.model
@pytest.mark.slow
def test_eight_bits_lose_nothing_and_four_do(copy: Path, model_path: Path, tmp_path: Path) -> None:
    four = {tensor.name: "Q4_0" for tensor in gguf.read_tensors(model_path) if tensor.kind == 3}
    list(relayout.write(source=str(model_path), target=str(tmp_path / "four.gguf"), formats=four, threads=2))
    assert 0 < kl(copy, model_path) < 0.006  # on so little text the interval is wide; what is kept is measured on more
    assert kl(tmp_path / "four.gguf", model_path) > 0.1  # which the measure sees


@pytest.mark.model
@pytest.mark.slow
def test_a_client_answers_with_it_as_with_its_source(copy: Path, model_path: Path) -> None:
    found = []
    for path in (copy, model_path):
        with Client(str(path)) as ai:
            answer = ai.analyse("The soup was cold and nobody came to take it back.", Sentiment)
            assert answer.probabilities is not None
            found.append(dict(answer.probabilities))
    ours, theirs = found
    assert ours.keys() == theirs.keys()
    assert max(abs(ours[label] - theirs[label]) for label in ours) < 0.1
