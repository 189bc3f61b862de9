"""What tests of the plugin share: models that are compiled once, and again only when what they are made of changes."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

import ondevice_mlc
from ondevice_mlc.build import make
from ondevice_sdk.backends.api import LocalModel
from ondevice_sdk.errors import ModelNotInstalled
from ondevice_sdk.store import Store

from . import gguf_vocabulary, tiny, upstream

MODEL = "smollm2-135m-instruct"
SEED = b"1"  # another one compiles everything anew

Made = Callable[[str, str], LocalModel]


@pytest.fixture(scope="session")
def installed_store() -> Store:
    """The user's own store, with the default model in it."""
    store = Store.open()
    try:
        store.resolve(f"{MODEL}:int4")
    except ModelNotInstalled:
        pytest.skip(f"the model is not installed: ondevice models pull {MODEL}")
    return store


@pytest.fixture(scope="session")
def model_path(installed_store: Store) -> Path:
    """The real model, SmolLM2-135M-Instruct in int4, a GGUF file."""
    return Path(installed_store.resolve(f"{MODEL}:int4").path)


@pytest.fixture(scope="session")
def kept(request: pytest.FixtureRequest) -> Callable[[str, Callable[[Path], None]], Path]:
    """A folder that is filled once for each version of the sources of the package and of these tests."""
    digest = hashlib.sha256(SEED)
    for folder in (Path(ondevice_mlc.__file__).parent, Path(__file__).parent):
        for path in sorted(folder.rglob("*.py")):
            if not path.name.startswith("test_") and path.name not in ("cli.py", "conftest.py", "runner.py"):
                digest.update(path.read_bytes())
    assert request.config.cache is not None
    root = request.config.cache.mkdir("ondevice-mlc")

    def keep(name: str, fill: Callable[[Path], None]) -> Path:
        place = root / f"{name}-{digest.hexdigest()[:16]}"
        if not place.exists():
            for old in root.glob(f"{name}-*"):
                shutil.rmtree(old, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=root) as work:
                (Path(work) / "made").mkdir()
                fill(Path(work) / "made")
                (Path(work) / "made").rename(place)
        return place

    return keep


@pytest.fixture(scope="session")
def made(kept: Callable[[str, Callable[[Path], None]], Path], request: pytest.FixtureRequest) -> Made:
    """Compiles a model: "llama", "qwen2" and "qwen3" are tiny and random, "smollm2" is the real one."""

    def build(kind: str, precision: str) -> LocalModel:
        def fill(folder: Path) -> None:
            if kind == "smollm2":
                source: Path = request.getfixturevalue("model_path")
                list(make(source=str(source), folder=str(folder), precision=precision, target=None, threads=1))
                return
            with tempfile.TemporaryDirectory() as work:
                tiny.write_gguf(Path(work) / "m.gguf", kind, tied=kind != "qwen3")
                source = Path(work) / "m.gguf"
                list(make(source=str(source), folder=str(folder), precision=precision, target=None, threads=1))

        return local(kept(f"{kind}-{precision}", fill), kind, f"{precision}-mlc")

    return build


@pytest.fixture(scope="session")
def of_upstream(kept: Callable[[str, Callable[[Path], None]], Path]) -> LocalModel:
    """A folder as upstream makes it, none of this package's work."""

    def fill(folder: Path) -> None:
        description, size = gguf_vocabulary()
        with tempfile.TemporaryDirectory() as work:
            upstream.compile_library(Path(work) / "lib.so", size)
            upstream.write_folder(folder, Path(work) / "lib.so", description, size)

    return local(kept("upstream", fill), "upstream", "f32-mlc")


def local(folder: Path, name: str, variant: str) -> LocalModel:
    """The model in a folder."""
    first = folder / "mlc-chat-config.json"
    others = sorted(path for path in folder.iterdir() if path != first)
    return LocalModel(name, variant, "mlc", str(first), "", (str(first), *map(str, others)))
