"""What the tests of backends share."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from ondevice_sdk.cli import plugin

HERE = Path(__file__).parent
PROCESSES = ("test_sealed_worker", "test_importing_and_probing")  # tests of the contract that start one


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents and item.name.startswith(PROCESSES):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The package that `ondevice plugin new` writes, imported and not installed; `toy.folder` is where it lies."""
    made = plugin.write("toy-chip", tmp_path_factory.mktemp("plugin"))
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(made.folder)
        module = importlib.import_module(made.package)
        module.folder = Path(made.folder)  # type: ignore[attr-defined]
        for name in ("model_file", "runner"):
            importlib.import_module(f"{made.package}.{name}")
        yield module
    for name in set(sys.modules) - before:
        if name.startswith(made.package):
            del sys.modules[name]
