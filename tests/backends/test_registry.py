from __future__ import annotations

import subprocess
import sys
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path

import pytest

from ondevice_sdk.backends import registry
from ondevice_sdk.backends.api import DeviceProfile
from ondevice_sdk.backends.echo import EchoBackend
from ondevice_sdk.errors import BackendUnavailable

DEVICE = DeviceProfile("linux", "x86_64", "any", (), 1, 1, 1 << 34, 1 << 33)


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, distribution: str, entries: str, module: str = "") -> None:
    """Put a plugin on the path, as pip leaves it."""
    info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[ondevice_sdk.backends]\n{entries}\n")
    (folder / f"{distribution.replace('-', '_')}.py").write_text(module)
    monkeypatch.syspath_prepend(str(folder))


def test_built_ins_come_through_the_entry_points() -> None:
    found = registry.installed()
    assert {"echo", "llama_cpp"} <= set(found)
    assert found["echo"].distribution == "ondevice-sdk"
    assert isinstance(found["echo"].create(), EchoBackend)
    assert isinstance(registry.create(found["echo"].entry), EchoBackend)


def test_status_of_the_built_ins() -> None:
    states = {state.name: state for state in registry.status(DEVICE)}
    assert states["echo"].usable
    assert "generate" in states["echo"].capabilities
    assert states["echo"].capabilities == tuple(sorted(states["echo"].capabilities))


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("raise RuntimeError('broken')", "RuntimeError"),
        ("", "AttributeError"),
        ("Thing = dict", "not a Backend"),
    ],
)
def test_a_broken_plugin_is_named_and_harms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, reason: str
) -> None:
    name = f"broken-{abs(hash(module))}"
    install(tmp_path, monkeypatch, name, f"broken = {name.replace('-', '_')}:Thing", module)
    with pytest.raises(BackendUnavailable) as caught:
        registry.installed()["broken"].create()
    assert reason in (caught.value.reason or "")
    assert name in (caught.value.reason or "")
    states = {state.name: state for state in registry.status(DEVICE)}
    assert not states["broken"].usable
    assert name in states["broken"].reason
    assert states["echo"].usable


def test_a_probe_that_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = (
        "from ondevice_sdk.backends.echo import EchoBackend\n"
        "class Thing(EchoBackend):\n    def probe(self, device):\n        raise OSError('secret')\n"
    )
    install(tmp_path, monkeypatch, "raising-probe", "raising = raising_probe:Thing", module)
    states = {state.name: state for state in registry.status(DEVICE)}
    assert not states["raising"].usable
    assert "OSError" in states["raising"].reason
    assert "secret" not in states["raising"].reason


def test_a_plugin_cannot_take_the_name_of_a_built_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "aaa-imposter", "echo = aaa_imposter:Thing", "Thing = dict")
    assert registry.installed()["echo"].distribution == "ondevice-sdk"


def test_an_entry_without_a_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("loose", "ondevice_sdk.backends.echo:EchoBackend", registry.GROUP)
    assert point.dist is None or isinstance(point.dist, Distribution)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    assert registry.installed()["loose"].distribution == "unknown"


def test_finding_and_probing_backends_imports_nothing_heavy() -> None:
    code = (
        "import sys; from ondevice_sdk.backends import registry; from ondevice_sdk.types import DeviceProfile; "
        "registry.status(DeviceProfile('linux', 'x86_64', 'any', (), 1, 1, 1 << 34, 1 << 33)); "
        "print([name for name in ('numpy', 'llama_cpp', 'llguidance', 'pydantic', 'jinja2') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
