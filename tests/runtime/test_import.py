from __future__ import annotations

import subprocess
import sys

HEAVY = ("pydantic", "pydantic_core", "numpy", "llama_cpp", "llguidance", "ctypes")


def test_the_way_in_is_light() -> None:
    code = f"import sys, ondevice_sdk.runtime; print([m for m in {HEAVY!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout == "[]\n"
