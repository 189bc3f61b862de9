"""The public surface: sorted, light to import, with the names and defaults that the documentation promises."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import ondevice_sdk
from ondevice_sdk import AsyncClient, Client, errors

HEAVY = (
    "numpy",
    "llama_cpp",
    "llguidance",
    "huggingface_hub",
    "pydantic",
    "pydantic_core",
    "psutil",
    "anyio",
    "rich",
    "typer",
)


def test_all_is_sorted_and_complete() -> None:
    own = [name for name in ondevice_sdk.__all__ if name not in errors.__all__]
    assert own == sorted(own)
    assert sorted(errors.__all__) == errors.__all__
    for name in ondevice_sdk.__all__:
        assert getattr(ondevice_sdk, name) is not None


def test_import_loads_no_heavy_module() -> None:
    code = f"import ondevice_sdk, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_import_reads_no_environment() -> None:
    code = """
import os, sys
class Watch(dict):
    def __getitem__(self, key):
        raise AssertionError(f"environment read at import: {key}")
    get = __getitem__
import dataclasses, typing, threading, inspect, platform, importlib.metadata, typing_extensions
import json, subprocess, tempfile, pathlib
os.environ = Watch()
os.getenv = os.environ.get
import ondevice_sdk
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("cls", [Client, AsyncClient])
def test_names_and_defaults_of_the_tasks(cls: type) -> None:
    def options(method: str) -> dict[str, object]:
        parameters = inspect.signature(getattr(cls, method)).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    assert options("summarise") == {
        "style": "key_points",
        "length": "medium",
        "format": "plain",
        "language": None,
        "context": None,
        "seed": None,
        "adapter": None,
        "on_progress": None,
    }
    generation = {
        "instructions": None,
        "output_type": None,
        "tools": (),
        "max_tokens": 512,
        "temperature": 0.7,
        "top_p": 0.95,
        "top_k": 40,
        "min_p": 0.05,
        "repetition_penalty": 1.0,
        "seed": None,
        "stop": (),
        "ignore_eos": False,
        "adapter": None,
        "timeout": None,
        "deterministic": False,
        "on_progress": None,
    }
    assert options("generate") == generation
    assert options("stream") == generation
    assert options("embed") == {"on_progress": None}
    assert {"examples": (), "abstain_below": None}.items() <= options("analyse").items()
    for name in ("summarise_many", "analyse_many", "generate_many"):
        assert {"on_error": "raise", "window": None}.items() <= options(name).items()


def test_names_and_defaults_of_the_client() -> None:
    parameters = list(inspect.signature(Client).parameters.values())
    assert [(p.name, p.default) for p in parameters[:7]] == [
        ("model", None),
        ("privacy", "strict"),
        ("isolation", "process"),
        ("backends", None),
        ("prefer", "balanced"),
        ("context", None),
        ("keep_alive", None),
    ]
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[1:])


def test_both_spellings_are_one_method() -> None:
    for british, american in (("summarise", "summarize"), ("analyse", "analyze"), ("summarise_many", "summarize_many")):
        for cls in (Client, AsyncClient):
            assert getattr(cls, british) is getattr(cls, american)


def test_every_error_has_its_own_code_and_survives_the_way_through_a_pipe() -> None:
    classes = [getattr(errors, name) for name in errors.__all__ if name != "OnDeviceError"]
    assert len({cls.code for cls in classes}) == len(classes)
    for cls in classes:
        error = cls("what happened", hint="what to do")
        again = errors.rebuild(error.code, error.message, error.hint, error.data())
        assert type(again) is cls
        assert (again.message, again.hint, again.data()) == (error.message, error.hint, error.data())
