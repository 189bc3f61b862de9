"""`ondevice plugin new`: the package works at once, and the tutorial's commands run as they stand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

from ondevice_sdk.cli import plugin
from ondevice_sdk.errors import ConfigurationError, StoreError

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "how-to" / "write-a-backend.md"


def test_the_files(tmp_path: Path) -> None:
    made = plugin.write("acme-npu", tmp_path / "new" / "place")
    folder = Path(made.folder)
    assert folder == tmp_path / "new" / "place" / "ondevice-acme-npu"
    assert (made.name, made.distribution, made.package) == ("acme_npu", "ondevice-acme-npu", "ondevice_acme_npu")
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert found == list(made.files)
    assert {"pyproject.toml", "README.md", "ondevice_acme_npu/__init__.py", "tests/test_contract.py"} <= set(found)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["ondevice_sdk.backends"] == {"acme_npu": "ondevice_acme_npu:AcmeNpuBackend"}
    for path in folder.rglob("*"):
        if path.is_file():
            assert not re.search(r"\$\{?\w|\.template", path.read_text()), path


UNUSABLE = (
    *("", "Acme", "acme npu", "1chip", "a--b", "-a", "a_", "../up", "a/b", "ünï", "a" * 41, "a\n"),
    *("class", "json", "tests", "ondevice", "ondevice-foo", "ondevice_foo", "echo", "llama-cpp", "llama_cpp"),
    *("gguf", "gguf-lora", "safetensors", "mlc", "openvino"),
)


@pytest.mark.parametrize("name", UNUSABLE)
def test_names_that_cannot_be_used(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        plugin.write(name, tmp_path)
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["empty folder", "folder", "file", "dangling link"])
def test_what_is_there_is_never_touched(tmp_path: Path, kind: str) -> None:
    there = tmp_path / "ondevice-chip"
    if kind == "file":
        there.write_text("mine")
    elif kind == "dangling link":
        there.symlink_to(tmp_path / "nowhere")
    else:
        there.mkdir()
        if kind == "folder":
            (there / "README.md").write_text("mine")
    with pytest.raises(ConfigurationError, match="is there already"):
        plugin.write("chip", tmp_path)
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] in ([], ["mine"])
    assert list(tmp_path.iterdir()) == [there]


def test_a_place_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        plugin.write("chip", tmp_path / "file" / "below")

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(StoreError, match="No space left"):
        plugin.write("chip", tmp_path)
    assert not (tmp_path / "ondevice-chip").exists()


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    line = [sys.executable, "-W", "error", "-m", "ondevice_sdk", "plugin", "new"]
    done = subprocess.run([*line, "chip", "--dir", str(tmp_path), "--json"], capture_output=True, text=True, check=True)
    made = json.loads(done.stdout)
    assert set(made) == {"name", "distribution", "package", "folder", "files", "next"}
    again = subprocess.run(
        [*line, "chip", "--dir", str(tmp_path), "--json"], capture_output=True, text=True, check=False
    )
    assert again.returncode == 1
    assert json.loads(again.stderr)["error"]["code"] == "configuration_error"
    plain = subprocess.run([*line, "other", "--dir", str(tmp_path)], capture_output=True, text=True, check=True)
    assert "pip install -e" in plain.stdout


@pytest.mark.slow
def test_its_tests_pass_before_it_is_installed(tmp_path: Path) -> None:
    made = plugin.write("fresh-chip", tmp_path)
    line = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", made.folder]
    done = subprocess.run(line, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"\d{2,} passed", done.stdout)
    assert "skipped" not in done.stdout


@pytest.mark.slow
def test_it_is_clean_by_the_sdks_own_measure(tmp_path: Path) -> None:
    made = plugin.write("tidy-chip", tmp_path)
    settings = ROOT / "pyproject.toml"
    for line in (
        ["ruff", "check", "--config", str(settings), made.package],
        ["ruff", "check", "--config", str(settings), "--extend-ignore", "D,S", "tests"],
        ["ruff", "format", "--check", "--config", str(settings), "."],
        ["mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), made.package, "tests"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *line], cwd=made.folder, capture_output=True, text=True, timeout=280, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path: Path) -> None:
    """In an environment of its own, in which the SDK and what this one has can be imported."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    here = sysconfig.get_path("purelib")
    for place in (tmp_path / "env" / "lib").glob("python*/site-packages"):
        (place / "outer.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    tools = {
        # The network is not needed: what the plugin requires is there.
        "pip": '[ "$1" = install ] && shift && set -- install -q --no-deps --no-build-isolation "$@"; '
        f'exec "{python}" -W ignore -m pip "$@"',
        "pytest": f'exec "{python}" -m pytest -q -p no:cacheprovider "$@"',
        "ondevice": f'exec "{python}" -m ondevice_sdk "$@"',
    }
    for name, body in tools.items():
        tool = tmp_path / "env" / "bin" / name
        tool.write_text(f"#!/bin/sh\n{body}\n")
        tool.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    env = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}", "ONDEVICE_HOME": str(tmp_path / "home")}
    env |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INDEX": "1"}
    outputs = []
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        done = subprocess.run(
            ["bash", "-euc", block], cwd=work, env=env, capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == 0, block + done.stdout[-3000:] + done.stderr[-3000:]
        outputs.append(done.stdout)
    made, tested, used, _ = outputs
    assert re.search(r"^ *mychip +yes +mychip\b", made, re.MULTILINE)
    assert re.search(r"\d{2,} passed", tested)
    assert "network refused by the kernel" in used
