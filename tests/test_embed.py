"""Embeddings through the client: a worker of their own, sealed and closed as the other one."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from ondevice_sdk import AsyncClient, Client, errors, models
from ondevice_sdk.replay import replay
from ondevice_sdk.store import Store
from ondevice_sdk.types import Progress
from tests import bert
from tests.processes import workers


@pytest.fixture(scope="module")
def embedders(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with a tiny embedding model."""
    place = tmp_path_factory.mktemp("embedders")
    store = Store.open(place / "store")
    models.pull("tiny-embedder", source=f"file:{bert.write_folder(place / 'model')}/", store=store)
    return store


@pytest.fixture(scope="module")
def ai(embedders: Store) -> Iterator[Client]:
    with Client(store=embedders) as client:
        yield client


def test_embed_runs_on_the_model_that_gives_embeddings(ai: Client) -> None:
    told: list[Progress] = []
    found = ai.embed(["the cat", "the cat", "money bank"], on_progress=told.append)
    assert found.dimensions == 32
    assert [math.hypot(*vector) for vector in found.vectors] == pytest.approx([1] * 3, abs=1e-5)
    assert [place for place, _ in found.nearest(found.vectors[0])] == [0, 1, 2]
    assert found.receipt is not None
    assert found.receipt.model.name == "tiny-embedder"
    assert found.usage.prompt_tokens > 0
    last = next(progress for progress in reversed(told) if progress.unit == "texts")
    assert (last.stage, last.done, last.total) == ("embedding", 3, 3)
    assert "cat" not in repr(found)
    assert len(ai.embed("one text").vectors) == 1
    assert ai.embed([]).vectors == ()
    assert ai.availability("embed").state == "available"


def test_vectors_are_the_same_again(ai: Client) -> None:
    receipt = ai.embed(iter(["the cat", "money bank"])).receipt
    assert receipt is not None
    assert replay(receipt, ai, input=["the cat", "money bank"]).same
    with pytest.raises(errors.ConfigurationError, match="the input is not that of the receipt"):
        replay(receipt, ai, input=["the cat", "money", "bank"])


def test_a_text_longer_than_the_context(ai: Client) -> None:
    found = ai.embed(["The cat sat on the mat. " * 40, "a"])
    assert len(found.vectors) == 2
    assert "read in parts" in found.warnings[0]


@pytest.mark.parametrize("wrong", [[""], ["a", "\ud800"], [b"a"], None, 5])
def test_bad_input(ai: Client, wrong: Any) -> None:
    with pytest.raises(errors.ConfigurationError):
        ai.embed(wrong)


def test_the_worker_is_sealed(ai: Client) -> None:
    ai.embed("a")
    report = ai._embedding.executor().report()
    assert (report.level, report.enforced) == ("strict", True)
    assert {each.name: each.state for each in report.mechanisms}["seccomp network refusal"] == "active"


@pytest.mark.slow
def test_from_many_threads(ai: Client) -> None:
    expected = ai.embed("a dog").vectors[0]
    wrong: list[object] = []

    def ask() -> None:
        for _ in range(5):
            vector = ai.embed(["a dog", "x"]).vectors[0]
            if vector != pytest.approx(expected, abs=2e-3):
                wrong.append(vector)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.slow
def test_a_killed_worker_is_started_again(embedders: Store) -> None:
    with Client(store=embedders) as ai:
        before = ai.embed("a").vectors
        executor: Any = ai._embedding.executor()
        os.kill(executor.pid, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(executor.pid)], timeout=10)
        for _ in range(2):  # the first may still meet the dead one
            try:
                assert ai.embed("a").vectors == before
            except errors.WorkerCrashed:
                continue
        assert ai.embed("a").vectors == before


@pytest.mark.slow
def test_close_ends_both_workers(embedders: Store, echo_path: Path) -> None:
    before = set(workers())
    ai = Client(echo_path, store=embedders)
    ai.generate("a", max_tokens=1)
    ai.embed("a")
    mine = [worker for worker in workers() if worker not in before]
    assert len(mine) == 2
    report = ai.privacy_report()
    assert report.enforced
    ai.close()
    assert not psutil.wait_procs(mine, timeout=20)[1]
    with pytest.raises(errors.ClientClosed):
        ai.embed("a")


@pytest.mark.slow
def test_it_is_unloaded_when_it_is_not_used(embedders: Store) -> None:
    with Client(store=embedders, keep_alive=0) as ai:
        first = ai.embed("a").vectors
        assert ai.embed("a").vectors == first


@pytest.mark.slow
def test_in_a_forked_child(embedders: Store) -> None:
    with Client(store=embedders) as ai:
        expected = ai.embed("a").vectors
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(0 if ai.embed("a").vectors == expected else 1)
            except BaseException:  # noqa: BLE001 - whatever it is, the child ends here
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert ai.embed("a").vectors == expected


def test_without_an_embedding_model(store: Store, echo_path: Path) -> None:
    with Client(echo_path, store=store) as ai:
        with pytest.raises(errors.ModelNotInstalled) as caught:
            ai.embed("a")
        assert caught.value.hint == "ondevice models pull all-minilm-l6-v2"
        assert ai.availability("embed").state == "downloadable"
        chosen = ai.explain("embed").chosen
        assert chosen is not None
        assert chosen.name == "all-minilm-l6-v2"


@pytest.mark.slow
def test_neither_model_does_the_work_of_the_other(embedders: Store, echo_path: Path) -> None:
    with Client("tiny-embedder", store=embedders) as ai:
        assert ai.embed("a").dimensions == 32  # a client's one model may be an embedder
        with pytest.raises(errors.Unsupported) as caught:
            ai.generate("a")
        assert caught.value.capability == "generate"
    with Client(store=embedders) as ai, pytest.raises(errors.ModelNotInstalled):
        ai.generate("a")
    with Client(store=embedders, embedder=echo_path) as ai, pytest.raises(errors.Unsupported) as caught:
        ai.embed("a")
    assert caught.value.capability == "embed"
    path = embedders.resolve("tiny-embedder").path
    with Client(store=embedders, embedder=path) as ai:
        assert ai.embed("a").dimensions == 32
    for selection in (Client(store=embedders).explain(), Client(store=embedders).explain("summarise")):
        assert "all-minilm-l6-v2" not in {each.name for each in selection.candidates}


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_async(embedders: Store, anyio_backend: str) -> None:
    async with AsyncClient(store=embedders) as ai:
        vectors = (await ai.embed(["the cat", "a dog"])).vectors
        assert len(vectors) == 2
        results: list[Any] = []

        async def ask() -> None:
            results.append(await ai.embed("the cat"))

        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(ask)
        assert all(result.vectors[0] == pytest.approx(vectors[0], abs=2e-3) for result in results)
        with anyio.move_on_after(0.05) as scope:
            await ai.embed(f"text {number}" for number in range(1_000_000))
        assert scope.cancelled_caught
        assert len((await ai.embed("a")).vectors) == 1  # it goes on


@pytest.mark.slow
def test_the_command(embedders: Store) -> None:
    def run_command(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "ondevice_sdk", "embed", "-", *words],
            input="the cat\n\na dog\n",
            env={**os.environ, "ONDEVICE_HOME": str(embedders.root)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert not done.stderr
        return done.stdout

    shown = json.loads(run_command("--json"))
    lines = [[float(number) for number in line.split()] for line in run_command().splitlines()]
    assert [len(vector) for vector in shown["vectors"]] == [32, 32]
    assert lines[0] == pytest.approx(shown["vectors"][0], abs=1e-4)
    assert shown["receipt"]["model"]["name"] == "tiny-embedder"
