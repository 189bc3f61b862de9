"""What a backend's speed depends on besides model and device, told without importing anything."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

from ondevice_sdk.backends import registry, versions
from ondevice_sdk.backends.echo import EchoBackend

from .test_registry import install


def test_a_plugin_and_all_that_it_requires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "ondevice-versioned", "versioned = ondevice_versioned:Backend")
    metadata = tmp_path / "ondevice_versioned-1.0.dist-info" / "METADATA"
    needed = ["numpy>=2", "ondevice-sdk>=0.1", 'not-to-be-had; sys_platform == "plan9"', "rich; extra == 'colour'"]
    metadata.write_text(metadata.read_text() + "".join(f"Requires-Dist: {each}\n" for each in needed))
    numpy = importlib.metadata.version("numpy")
    assert versions.of_plugin("ondevice_versioned.inside.module") == f"ondevice-versioned 1.0, numpy {numpy}"
    assert "ondevice_versioned" not in sys.modules


def test_what_nobody_announces_has_no_version() -> None:
    assert versions.of_plugin("homemade.backend") == "homemade, version unknown"


def test_the_built_in_backends_name_their_library() -> None:
    assert EchoBackend().library() == "echo 1"
    made = registry.installed()["llama_cpp"].create()
    assert made.library().startswith("llama.cpp ")
    calibrator = made.calibrator()
    assert calibrator is None or calibrator.library == made.library()
