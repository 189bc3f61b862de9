from __future__ import annotations

import io
import subprocess
import sys
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path

import pytest
from rich.console import Console

from ondevice_sdk.backends import registry
from ondevice_sdk.backends.api import DeviceProfile
from ondevice_sdk.backends.echo import EchoBackend
from ondevice_sdk.cli import output
from ondevice_sdk.errors import BackendUnavailable, ModelCorrupt
from ondevice_sdk.store import Store, formats

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


FORMATS = """
from ondevice_sdk.backends.echo import EchoBackend
class Thing(EchoBackend):
    name = "chip"
    formats = frozenset({"chip", "short", "elf"})
    magic = {"chip": b"chip-model ", "short": b"abc", "elf": b"\\x7fELF", "unread": b"other-model "}
"""


def test_a_plugins_own_format_is_told_by_its_first_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "own-format", "chip = own_format:Thing", FORMATS)
    install(tmp_path, monkeypatch, "own-broken", "aaa = own_broken:Thing", "raise RuntimeError")
    path = tmp_path / "model.chip"
    path.write_bytes(b"chip-model 1\n...")
    assert formats.inspect(path) == formats.Inspected("chip", "other")
    assert Store.open(tmp_path / "store").from_path(path).format == "chip"
    for content, expected in (
        (b"chip-mode", "no known model format"),
        (b"abcdef", "no known model format"),  # three bytes begin files of any kind
        (b"other-model 1", "no known model format"),  # not one of its formats
        (b"\x7fELF...", "a compiled library"),  # never, whatever a plugin says
        (b"\x80\x04\x95...", "pickle"),
    ):
        path.write_bytes(content)
        with pytest.raises(ModelCorrupt, match=expected):
            formats.inspect(path)


def test_the_list_for_people_has_every_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "fine-chip", "chip = fine_chip:Thing", FORMATS)
    install(tmp_path, monkeypatch, "bad-chip", "bad = bad_chip:Thing", "raise RuntimeError('secret')")
    states = registry.status(DEVICE)
    by_name = {state.name: state for state in states}
    assert by_name["chip"].formats == ("chip", "elf", "short")
    assert by_name["bad"].hint == "install bad-chip again"
    console = Console(width=300, record=True, file=io.StringIO())
    for table in output.backend_tables(states):
        console.print(table)
    lines = console.export_text().splitlines()
    (bad,) = [line for line in lines if line.strip().startswith("bad")]
    assert "RuntimeError while loading bad_chip:Thing (from bad-chip)" in bad
    assert "secret" not in bad
    (chip,) = [line for line in lines if line.strip().startswith("chip")]
    assert "chip, elf, short" in chip
    (names,) = [line.split() for line in lines if line.strip().startswith("capability")]
    assert "bad" not in names
    (embed,) = [line.split() for line in lines if line.strip().startswith("embed")]
    assert embed[names.index("echo")] == "-"
    assert embed[names.index("llama_cpp")] == "yes"
    assert output.backend_tables([by_name["bad"]])[1:] == []
