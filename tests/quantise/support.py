"""A small model with random weights in a store, and made-up figures."""

from __future__ import annotations

from pathlib import Path

from ondevice_sdk.backends.llama_cpp import synthetic
from ondevice_sdk.intervals import Interval
from ondevice_sdk.store import Store
from ondevice_sdk.store.derived import MeasuredOn, SpeedUp
from ondevice_sdk.types import ModelShape

SHAPE = ModelShape(400_000, 2, 128, 2, 1, 64, 256, 600, 2048)
WHERE = MeasuredOn("x86_64", "a processor", ("avx2",), "llama_cpp", "llama.cpp 1")


def exactly(value: float) -> Interval:
    return Interval(value, value, value)


def faster(times: float) -> SpeedUp:
    return SpeedUp(exactly(times), exactly(times), exactly(times), exactly(times))


def install(store: Store, folder: Path, *, name: str = "small", kind: str = "Q4_1", seed: int = 0) -> Path:
    """Install a model in the store; where its file came from."""
    path = folder / f"{name}-{seed}.gguf"
    synthetic.write(path, SHAPE, kind, seed=seed)
    store.add(path, name=name, variant="int4")
    return path
