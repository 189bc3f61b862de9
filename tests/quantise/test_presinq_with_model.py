"""With the real model: scaled in a sealed worker, it computes the same, and loses less when it is rounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from ondevice_sdk.backends.api import LocalModel
from ondevice_sdk.backends.llama_cpp import LlamaCppBackend, compress
from ondevice_sdk.catalogue import gguf
from ondevice_sdk.quantise import reparametrise, search, typed
from ondevice_sdk.quantise.divergence import divergence_of, read_windows
from ondevice_sdk.runtime.probe_worker import run_in_worker
from ondevice_sdk.types import JsonValue

ENTRY = "ondevice_sdk.backends.llama_cpp:LlamaCppBackend"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("presinq")


@pytest.fixture(scope="module")
def source(model_path: Path, folder: Path) -> Path:
    """The model in 32 bits, as llama.cpp writes it."""
    compressor = LlamaCppBackend().compressor()
    assert compressor is not None
    path = folder / "source.gguf"
    list(compress.write(source=str(model_path), target=str(path), quantisation="F32", importance=None, threads=2))
    return path


@pytest.fixture(scope="module")
def changed(source: Path, folder: Path) -> Path:
    """The source, scaled."""
    path = folder / "scaled" / "changed.gguf"
    path.parent.mkdir()
    told: list[float] = []
    sealed("write", {"source": str(source), "target": str(path)}, source, path.parent, told)
    assert told == sorted(told)
    assert told[-1] == 1
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    return path


def sealed(
    function: str, arguments: dict[str, JsonValue], read: Path, folder: Path, told: list[float] | None = None
) -> JsonValue:
    returned = run_in_worker(
        typed.ENTRY,
        privacy="strict",
        arguments={"entry": f"{reparametrise.__name__}:{function}", "arguments": arguments},
        read=(str(read),),
        caches=(str(folder),),
        timeout_s=300,
        on_progress=None if told is None else told.append,
    )
    assert isinstance(returned.value, dict)
    return returned.value["value"]


@pytest.mark.model
@pytest.mark.slow
def test_the_function_is_kept(source: Path, changed: Path) -> None:
    assert set(gguf.read_header(changed).tensor_types) == {0}
    found = sealed(
        "check",
        {
            "entry": ENTRY, "source": str(source), "changed": str(changed), "text": search.reading(), "tokens": 128,
            "threads": 2,
        },
        source,
        changed.parent,
    )  # fmt: skip
    assert isinstance(found, float)
    assert 0 < found <= reparametrise.MOST_ERROR


@pytest.mark.model
@pytest.mark.slow
def test_rounding_costs_less(source: Path, changed: Path, folder: Path) -> None:
    assert kl(changed, source, folder) < 0.85 * kl(source, source, folder)


def kl(model: Path, source: Path, folder: Path) -> float:
    """Of the model in Q4_0 from the source."""
    path = folder / "rounded.gguf"
    list(compress.write(source=str(model), target=str(path), quantisation="Q4_0", importance=None, threads=2))

    def local(path: Path) -> tuple[str, LocalModel]:
        return ENTRY, LocalModel("m", "f32", "gguf", str(path), "", (str(path),))

    try:
        windows = read_windows(
            [local(path), local(source)],
            search.reading(),
            tokens=2 * search.WINDOW,
            window=search.WINDOW,
            threads=2,
            privacy="strict",
        )
    finally:
        path.unlink()
    return divergence_of(windows).value
