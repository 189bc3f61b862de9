"""A model file that changes while a worker uses it: the app lives on, and the next calls give typed errors or work."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from ondevice_sdk import Client, errors
from ondevice_sdk.store import Store

from .mutations import MUTATIONS
from .tiny_model import F32, Q8_0, tiny

GOOD, OTHER = tiny(weights=F32).encode(), tiny(7, weights=F32).encode()


def overwrite(path: Path, data: bytes) -> None:
    with path.open("rb+") as file:
        file.write(data)


def put_over(path: Path, data: bytes) -> None:
    fresh = path.with_name("fresh")
    fresh.write_bytes(data)
    fresh.replace(path)


def put_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


WAYS: dict[str, Callable[[Path], object]] = {
    "cut to nothing": lambda path: os.truncate(path, 0),
    "cut in its weights": lambda path: os.truncate(path, len(GOOD) // 2),
    "cut in its header": lambda path: os.truncate(path, 100),
    "zeros": lambda path: overwrite(path, bytes(len(GOOD))),
    "noise": lambda path: overwrite(path, random.Random(1).randbytes(len(GOOD))),
    "another model in place": lambda path: overwrite(path, OTHER),
    "another model put over it": lambda path: put_over(path, OTHER),
    "noise put over it": lambda path: put_over(path, random.Random(2).randbytes(5000)),
    "deleted": lambda path: path.unlink(),
    "a directory in its place": put_directory,
}


def call(client: Client) -> str:
    """What a call comes to; anything but an answer or an error of the tree fails the test."""
    try:
        answer = client.generate("hello", max_tokens=4)
    except errors.WorkerCrashed as error:
        return f"worker died of {error.signal or error.exit_code}"
    except errors.OnDeviceError as error:
        return error.code
    assert answer.usage.completion_tokens <= 4
    return "answer"


@pytest.mark.slow
@pytest.mark.parametrize("where", ["path", "store"])
@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_changes_under_a_worker(store: Store, tmp_path: Path, where: str, way: str) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(GOOD)
    model = str(path)
    if where == "store":
        made = store.add(path, name="tiny")
        model, path = made.name, Path(made.path)
        assert path.stat().st_mode & 0o777 == 0o400
        path.chmod(0o600)  # what the owner of the files can do
    with Client(model, store=store) as client:
        assert call(client) == "answer"
        WAYS[way](path)
        outcomes = [call(client) for _ in range(3)]
    if way.startswith("cut"):  # mapped pages that are gone
        assert outcomes[0] == "worker died of SIGBUS"
    with Client(model, store=store) as fresh:
        after = call(fresh)
    if "another model" not in way:
        assert after in ("model_corrupt", "model_not_installed", "store_error")
    elif where == "store":
        assert after == "model_corrupt"
    else:
        assert after == "answer"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_damaged_files_through_a_whole_client(tmp_path: Path, store: Store, fuzz_seed: int) -> None:
    """The way of an app from the path to the answer, with a worker of its own for every file."""
    good = tiny(weights=Q8_0)
    path = tmp_path / "fuzzed.gguf"
    outcomes: list[str] = []
    for number in range(200):
        mutation = MUTATIONS[number % len(MUTATIONS)]
        path.write_bytes(mutation(good.copy(), random.Random(f"client-{fuzz_seed}-{number}")))
        with Client(str(path), store=store) as client:
            outcomes.append(call(client))
            if mutation is MUTATIONS[-1]:  # the control: not damaged
                assert outcomes[-1] == "answer"
    assert {"answer", "model_corrupt"} <= set(outcomes)
