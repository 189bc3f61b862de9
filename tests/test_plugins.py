"""The plugins of this repository, as sources: what they import, and what they announce."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from ondevice_sdk.testing.imports import strange_imports

PLUGINS = sorted(path.parent for path in (Path(__file__).parent.parent / "plugins").glob("*/pyproject.toml"))


def project(plugin: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((plugin / "pyproject.toml").read_text())["project"]
    return found


def packages(plugin: Path) -> list[Path]:
    return sorted(path.parent for path in plugin.glob("*/__init__.py") if path.parent.name != "tests")


def test_there_are_plugins() -> None:
    assert {path.name for path in PLUGINS} >= {"ondevice-mlc", "ondevice-openvino"}


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_imports_only_the_seam(plugin: Path) -> None:
    entries = project(plugin)["entry-points"].get("ondevice_sdk.commands", {})
    modules = [entry.partition(":")[0] for entry in entries.values()]
    for package in packages(plugin):
        inside = [each.removeprefix(f"{package.name}.").replace(".", "/") for each in modules]
        commands = {f"{name}.py" for name in inside} | {f"{name}/__init__.py" for name in inside}
        assert strange_imports(package, commands=commands) == []


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_announces_its_backend(plugin: Path) -> None:
    found = project(plugin)
    backends = found["entry-points"]["ondevice_sdk.backends"]
    names = {package.name for package in packages(plugin)}
    assert names
    for entry in backends.values():
        assert entry.partition(":")[0].partition(".")[0] in names
    assert any(re.match(r"ondevice-sdk\b", each) for each in found["dependencies"])


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_keeps_the_contract(plugin: Path) -> None:
    """Some test module of it subclasses the contract."""
    tests = [path.read_text() for path in (plugin / "tests").rglob("test_*.py")]
    assert any(re.search(r"^class \w+\(BackendContract\b", text, re.MULTILINE) for text in tests)


# --- the check itself -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "module"),
    [
        ("import ondevice_sdk", "ondevice_sdk"),
        ("import ondevice_sdk.store as s", "ondevice_sdk.store"),
        ("from ondevice_sdk import Client", "ondevice_sdk"),
        ("from ondevice_sdk import store", "ondevice_sdk.store"),
        ("from ondevice_sdk.backends import registry", "ondevice_sdk.backends.registry"),
        ("from ondevice_sdk.backends.llama_cpp import LlamaCppBackend", "ondevice_sdk.backends.llama_cpp"),
        ("from ondevice_sdk.runtime.wire import read", "ondevice_sdk.runtime.wire"),
        ("def f():\n    from ondevice_sdk.store import Store", "ondevice_sdk.store"),
        ("import importlib\nimportlib.import_module('ondevice_sdk.store')", "ondevice_sdk.store"),
        ("from importlib import import_module as load\n__import__('ondevice_sdk.store')", "ondevice_sdk.store"),
        ("if TYPE_CHECKING:\n    from ondevice_sdk.store import Store", "ondevice_sdk.store"),
    ],
)
def test_an_import_from_elsewhere_is_found(tmp_path: Path, line: str, module: str) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "module.py").write_text(line + "\n")
    (found,) = strange_imports(tmp_path)
    assert found.startswith("deep/module.py:")
    assert found.endswith(f": {module}")


def test_what_a_plugin_may_import(tmp_path: Path) -> None:
    seam = (
        "import ondevice_sdk.errors\nfrom ondevice_sdk.backends.api import Backend\n"
        "from ondevice_sdk.backends import api\nfrom ondevice_sdk.engine import BatchedEngine\n"
        "from ondevice_sdk.engine.stop import StopMatcher\nfrom ondevice_sdk.types import Segment\n"
        "from . import other\nimport numpy\n"
    )
    command = (
        "from ondevice_sdk import Client, models\nimport ondevice_sdk.models\nfrom ondevice_sdk.models import build\n"
    )
    (tmp_path / "backend.py").write_text(seam)
    (tmp_path / "cli.py").write_text(command + seam)
    assert strange_imports(tmp_path, commands={"cli.py"}) == []
    assert len(strange_imports(tmp_path)) == 4
