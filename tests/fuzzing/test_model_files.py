"""Damaged and hostile model files, each the way that a client takes: the look at its header, then a sealed worker."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ondevice_sdk import Client, errors
from ondevice_sdk.backends.api import Done, Event, Failed, Generate, Generated, LoadOptions, LocalModel, Raw, Segment
from ondevice_sdk.runtime import Executor, open_executor
from ondevice_sdk.store import Store, formats
from ondevice_sdk.types import Isolation, PrivacyLevel

from . import many_models
from .mutations import MUTATIONS
from .tiny_model import tiny

_PATIENCE_S = 60.0  # for one file; only ever waited out by a test that fails
_FILES_PER_WORKER = 250  # what one file has broken unnoticed must not be another's result for long
_GOOD = {"refused by the header check", "refused by the loader", "refused the request", "generated", "worker died"}


class Loader:
    """Sends model files to one sealed worker after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._executor: Executor | None = None
        self._files = 0
        self.signals: Counter[str] = Counter()

    def use(self, path: Path) -> tuple[str, str]:
        """Load a file that passed the check and generate; what happened, and more of it."""
        if self._executor is None or not self._executor.alive or self._files >= _FILES_PER_WORKER:
            self.close()
            model = LocalModel("many", "int8", "many", str(self._folder), "0" * 64)
            options = LoadOptions(threads=1, max_sequences=2)
            self._executor = open_executor(many_models.ENTRY, model, options, isolation="process", privacy="strict")
            assert self._executor.report().enforced
        self._files += 1
        last = _last_event(self._executor, Generate(Raw((Segment(str(path)),)), 1_000))
        if isinstance(last, Failed):
            assert last.error.code == errors.WorkerCrashed.code, last.error
            how = str(last.error.data.get("signal") or last.error.data.get("exit_code"))
            self.signals[how] += 1
            return "worker died", how
        assert isinstance(last, Done)
        assert isinstance(last.result, Generated)
        outcome, detail = json.loads(last.result.text)
        return outcome, detail

    def close(self) -> None:
        self._files = 0
        if self._executor is not None:
            self._executor.close()
            self._executor = None


def _last_event(executor: Executor, request: Generate) -> Event:
    ticket = executor.submit(request)
    arrived = threading.Event()
    ticket.set_wakeup(arrived.set)
    while True:
        assert arrived.wait(_PATIENCE_S), "the worker hangs"
        arrived.clear()
        for event in ticket.take():
            if isinstance(event, Done | Failed):
                return event


@pytest.fixture
def loader(tmp_path: Path) -> Iterator[Loader]:
    made = Loader(tmp_path)
    yield made
    made.close()


def judge(path: Path, loader: Loader) -> tuple[str, str]:
    try:
        assert formats.inspect(path).format in ("gguf", "echo")
    except errors.ModelCorrupt as error:
        return "refused by the header check", error.code
    return loader.use(path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_outcome_is_a_typed_error_or_a_working_model(
    loader: Loader, tmp_path: Path, fuzz_files: int, fuzz_seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    files, seed = fuzz_files, fuzz_seed
    good = tiny()
    path = tmp_path / "fuzzed.gguf"
    outcomes: dict[str, Counter[str]] = {}
    for number in range(files):
        chance = random.Random(f"{seed}-{number}")
        mutation = MUTATIONS[number % len(MUTATIONS)]
        path.write_bytes(mutation(good.copy(), chance))
        outcome, detail = judge(path, loader)
        outcomes.setdefault(outcome, Counter())[f"{mutation.__name__}: {detail}"] += 1
        assert outcome in _GOOD, f"{outcome} {detail} (seed {seed}, file {number}, {mutation.__name__})"
        if outcome == "generated":
            assert detail == str(many_models.TOKENS), f"seed {seed}, file {number}, {mutation.__name__}"
    counts = {outcome: sum(details.values()) for outcome, details in sorted(outcomes.items())}
    with capsys.disabled():
        print(f"\n{files} model files of seed {seed}: {counts}; signals {dict(loader.signals)}")
    # The control: what is not damaged works, so the other outcomes are the files' and not the test's.
    assert outcomes["generated"][f"nothing: {many_models.TOKENS}"] == len(
        range(len(MUTATIONS) - 1, files, len(MUTATIONS))
    )
    assert set(counts) >= _GOOD - {"worker died"}
    # What the header check is for: no native code dies of more than one file in a hundred.
    assert counts.get("worker died", 0) <= max(5, files // 100)


@pytest.mark.parametrize("isolation", ["process", "thread"])
def test_a_hostile_template_is_a_typed_error_of_the_call(tmp_path: Path, store: Store, isolation: Isolation) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(tiny(template="{{ '%1000000000d' % 1 }}{{ messages[0].content }}").encode())
    privacy: PrivacyLevel = "strict" if isolation == "process" else "guarded"
    with Client(str(path), store=store, isolation=isolation, privacy=privacy) as client:
        for _ in range(2):
            with pytest.raises(errors.ModelUnsupported, match="chat template"):
                client.generate("hello", max_tokens=4)
