"""The contract suite itself: it finds broken backends, and nobody gets around it quietly."""

from __future__ import annotations

import importlib
import inspect
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ondevice_sdk.backends.api import (
    Capability,
    Engine,
    LoadOptions,
    LocalModel,
    Usage,
)
from ondevice_sdk.backends.echo import EchoBackend
from ondevice_sdk.errors import LoadFailed, ModelCorrupt
from ondevice_sdk.testing.contract import BackendContract
from ondevice_sdk.testing.contract.capabilities import TESTED_BY
from ondevice_sdk.testing.contract.sealed import entries_above

from .broken import (
    MODEL,
    Broken,
    Other,
    delta,
    generate,
    longer,
    mixed_up,
    no_adapter,
    not_cancelled,
    rescored,
    result,
    sampling,
)


@pytest.fixture(autouse=True, scope="module")
def echo_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    path = tmp_path_factory.mktemp("echo") / "model.echo"
    path.write_text('{"ondevice-echo": 1, "context_tokens": 1024}')
    MODEL.append(LocalModel("echo", "int4", "echo", str(path), ""))
    yield
    MODEL.clear()


DEFECTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("test_max_tokens", {"request": longer}, {"tokens": 5}),
    ("test_usage", {"event": result(lambda made: replace(made, usage=Usage(1, 3)))}, {}),
    ("test_seed", {"request": sampling(seed=None)}, {}),
    ("test_seed", {"request": sampling(seed=None), "hides": {Capability.SEED}}, {}),
    ("test_sampling_settings_are_heeded", {"request": sampling(top_k=0)}, {"narrow": {"top_k": 1}}),
    ("test_sampling_settings_are_heeded", {"request": sampling(min_p=0.0)}, {"narrow": {"min_p": 1.0}}),
    ("test_stop_string", {"request": generate(stop=())}, {}),
    ("test_stream_is_the_text", {"event": delta(lambda text: text + "!")}, {}),
    ("test_stream_comes_while_it_is_written", {"late": True}, {}),
    ("test_no_deltas_without_stream", {"request": generate(stream=True)}, {}),
    ("test_unicode_survives", {"event": delta(lambda text: "\ufffd")}, {}),
    ("test_foreign_characters_are_written_whole", {"request": generate(grammar=None)}, {}),
    ("test_wrong_settings", {"request": generate(max_tokens=4)}, {"change": {"max_tokens": 0}}),
    ("test_many_at_once", {"event": mixed_up}, {}),
    ("test_cancel_in_the_prompt", {"deaf": True}, {}),
    ("test_a_cancelled_prompt_leaves_no_trace", {"spoilt": True}, {}),
    ("test_cancel_before_the_first_step", {"event": result(not_cancelled)}, {}),
    ("test_cancel_of_one_among_many", {"deaf": True}, {}),
    ("test_cancel_of_a_score", {"deaf": True}, {}),
    ("test_several_run_side_by_side", {"hides": {Capability.BATCH}}, {}),
    (
        "test_determinism_is_kept_or_refused",
        {"hides": {Capability.DETERMINISTIC}, "request": generate(deterministic=False)},
        {},
    ),
    ("test_adapter", {"request": no_adapter}, {}),
    (
        "test_embed",
        {"claims": {Capability.EMBED}, "vectors": lambda count: ((0.0, 0.0),) * count},
        {"backend": Other(claims={Capability.EMBED})},
    ),
    ("test_embed", {}, {"backend": Other(claims={Capability.EMBED})}),
    ("test_chat", {"hides": {Capability.CHAT}}, {}),
    ("test_prefix_is_reused", {"hides": {Capability.PREFIX_CACHE}}, {}),
    ("test_prefix_is_reused", {"remembers": True}, {}),
    ("test_the_greedy_token_scores_highest", {"event": rescored(lambda value: -20 - value)}, {}),
    ("test_the_greedy_token_scores_highest", {"hides": {Capability.SCORE}}, {}),
    ("test_probabilities_are_at_most_one", {"event": rescored(lambda value: value / 20)}, {}),
    ("test_without_the_capability_it_is_refused", {"hides": {Capability.SCHEMA}}, {"form": "regex"}),
    ("test_schema", {"request": generate(grammar=None)}, {}),
    ("test_schema_holds_at_any_temperature", {"request": generate(grammar=None)}, {}),
    ("test_schema_of_a_list", {"request": generate(grammar=None)}, {}),
    ("test_regex", {"request": generate(grammar=None)}, {}),
    ("test_choice", {"request": generate(grammar=None)}, {}),
    ("test_tokens_that_run_out_leave_no_broken_value", {"event": result(lambda made: replace(made, text="{"))}, {}),
    ("test_engine_can_what_the_probe_says", {"claims": {Capability.ADAPTER}}, {"backend": EchoBackend()}),
    ("test_engine_can_what_the_probe_says", {"hides": {Capability.SCORE}}, {"backend": EchoBackend()}),
    ("test_probe_says_usable_and_what_it_can", {}, {"backend": Other(probe={"usable": False})}),
    ("test_estimate_grows_with_the_context", {}, {"backend": Other(estimate={"weights": 1})}),
    ("test_estimate_grows_with_the_context", {}, {"backend": Other(estimate={"kv_cache": 1})}),
    ("test_load_reports_progress", {}, {"backend": Other(progress=None)}),
    ("test_damaged_file_is_refused", {}, {"backend": Other(careless=True), "damage": "half"}),
    ("test_damaged_file_is_refused", {}, {"backend": Other(untyped=True), "damage": "missing"}),
    ("test_close_twice", {}, {"backend": Other(engine={"again": True})}),
    ("test_use_after_close", {}, {"backend": Other(engine={"immortal": True})}),
]


@pytest.mark.parametrize(
    ("test", "wrong", "given"), DEFECTS, ids=[f"{n}-{row[0][5:]}" for n, row in enumerate(DEFECTS)]
)
def test_a_defect_is_found(test: str, wrong: dict[str, Any], given: dict[str, Any], tmp_path: Path) -> None:
    function = getattr(BackendContract(), test)
    names = inspect.signature(function).parameters
    values = {
        "backend": EchoBackend(),
        "model": MODEL[0],
        "tmp_path": tmp_path,
        "request": None,
        "adapter": None,
        "embedding_model": None,
    }

    def arguments(engine: Engine, **more: Any) -> dict[str, Any]:
        all_values = {**values, "engine": engine, **more}
        return {name: all_values[name] for name in names}

    with pytest.raises((AssertionError, LookupError, OSError, RuntimeError, ValueError, pytest.fail.Exception)):
        function(**arguments(Broken(**wrong), **given))
    fine = {name: value for name, value in given.items() if name != "backend"}
    shutil.rmtree(tmp_path / "0", ignore_errors=True)
    function(**arguments(Broken(), **fine))  # and the same test passes where nothing is wrong


def test_every_capability_is_tested() -> None:
    assert set(TESTED_BY) == set(Capability)
    assert set(TESTED_BY.values()) <= set(BackendContract.contract_tests())


class OfFolder(EchoBackend):
    """A model of two files, of which a careless one reads only the first."""

    def __init__(self, *, careless: bool) -> None:
        self.careless = careless

    def load(self, model: LocalModel, options: LoadOptions) -> Any:
        first, second = map(Path, model.files)
        if not self.careless:
            try:
                if second.read_bytes() != b"weights" * 9:
                    raise ModelCorrupt("the weights are damaged")
            except OSError as error:
                raise LoadFailed("the weights cannot be read") from error
        return super().load(replace(model, path=str(first), files=()), options)


@pytest.mark.parametrize("damage", ["empty", "random", "text", "short", "half", "missing"])
def test_every_file_of_a_folder_is_damaged_in_turn(tmp_path: Path, damage: str) -> None:
    first = Path(MODEL[0].path)
    second = tmp_path / "weights.bin"
    second.write_bytes(b"weights" * 9)
    model = replace(MODEL[0], files=(str(first), str(second)))
    for careless in (False, True):
        place = tmp_path / str(careless)
        place.mkdir()
        check = partial(
            BackendContract().test_damaged_file_is_refused, OfFolder(careless=careless), model, place, damage
        )
        if careless:
            with pytest.raises(pytest.fail.Exception):  # nothing was raised
                check()
        else:
            check()
    assert second.read_bytes() == b"weights" * 9
    assert first.exists()


class Excused(BackendContract):
    """Says of files that they are not read."""


@pytest.mark.parametrize("excuses", [{"model.echo": "it is small"}, {"other": " "}])
def test_files_are_left_out_for_a_reason_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, excuses: dict[str, str]
) -> None:
    """And never that which a backend is given first."""
    monkeypatch.setattr(Excused, "unread_files", excuses)
    with pytest.raises(AssertionError, match="file"):
        Excused().test_damaged_file_is_refused(EchoBackend(), MODEL[0], tmp_path, "empty")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "found"),
    [("", ""), ("import numpy", "numpy"), ("print('hello')", "hello"), ("import sys; print(1, file=sys.stderr)", "1")],
)
def test_a_heavy_or_talkative_plugin_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, found: str
) -> None:
    name = f"plugin_{len(line)}"
    source = f"from ondevice_sdk.backends.echo import EchoBackend\nclass Mine(EchoBackend):\n    pass\n{line}\n"
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    backend = importlib.import_module(name).Mine()
    if not found:
        BackendContract().test_importing_and_probing_load_no_runtime(backend)
        return
    with pytest.raises((AssertionError, ValueError)):
        BackendContract().test_importing_and_probing_load_no_runtime(backend)


def test_what_a_project_announces(tmp_path: Path) -> None:
    deep = tmp_path / "plugin" / "tests" / "unit"
    deep.mkdir(parents=True)
    assert entries_above(deep / "test_x.py").get("chip") is None
    (tmp_path / "plugin" / "pyproject.toml").write_text(
        '[project]\nname = "x"\n[project.entry-points."ondevice_sdk.backends"]\nchip = "chip:Backend"\n'
    )
    assert entries_above(deep / "test_x.py") == {"chip": "chip:Backend"}


# --- nobody gets around it --------------------------------------------------------------------------------------------


def anything(*_: object) -> None:
    return


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({"test_seed": anything}, "test_seed is overridden"),
        ({"test_seed": None}, "test_seed is overridden"),
        ({"test_seed": BackendContract.test_chat}, "test_seed is overridden"),
        ({"engine": anything, "_no_test_is_missing": anything}, "_no_test_is_missing is overridden"),
        ({"_exemption": anything}, "_exemption is overridden"),
        ({"contract_tests": anything}, "contract_tests is overridden"),
        ({"__init_subclass__": classmethod(anything)}, "__init_subclass__ is overridden"),
        ({"engine": anything}, "engine is overridden"),
        ({"exemptions": {"test_seed": " "}}, "has no reason"),
        ({"exemptions": {"test_sead": "a reason"}}, "names no test"),
    ],
)
def test_a_subclass_that_changes_the_contract_cannot_be_made(body: dict[str, Any], fault: str) -> None:
    with pytest.raises(TypeError, match=fault):
        type("TestSly", (BackendContract,), body)


def test_neither_can_one_that_inherits_the_change() -> None:
    class Easier:
        def test_seed(self) -> None:
            return

    with pytest.raises(TypeError, match="test_seed is overridden"):
        type("TestSly", (Easier, BackendContract), {})
    type("TestFine", (BackendContract, Easier), {})  # comes after the contract, and changes nothing


SLY = """
import pytest
from ondevice_sdk.backends.api import LocalModel
from ondevice_sdk.backends.echo import EchoBackend
from ondevice_sdk.testing.contract import BackendContract

class Base(BackendContract):
    __test__ = False

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls):
        return EchoBackend()

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, tmp_path_factory):
        path = tmp_path_factory.mktemp("echo") / "model.echo"
        path.write_text('{"ondevice-echo": 1, "context_tokens": 1024}')
        return LocalModel("echo", "int4", "echo", str(path), "")

@pytest.fixture(autouse=True)
def choosy(request):
    if request.cls is TestByFixture and request.node.originalname == "test_seed":
        pytest.skip("not today")

class TestByFixture(Base):
    __test__ = True

class TestByHook(Base):
    __test__ = True

class TestByPatch(Base):
    __test__ = True
TestByPatch.test_seed = lambda self: None

class TestExempt(Base):
    __test__ = True
    exemptions = {"test_a_score_is_the_sum_of_its_tokens": "it repeats its prompt", "test_chat": "no longer true"}

@pytest.mark.skip(reason="the runtime is not here")
class TestAllSkipped(Base):
    __test__ = True
"""
HOOK = """
import pytest

def pytest_collection_modifyitems(items):
    for item in items:
        if item.cls.__name__ == "TestByHook" and item.originalname == "test_chat":
            item.add_marker(pytest.mark.skip(reason="not now"))
"""


@pytest.mark.slow
def test_what_is_skipped_from_outside_is_found(tmp_path: Path) -> None:
    (tmp_path / "test_sly.py").write_text(SLY)
    (tmp_path / "conftest.py").write_text(HOOK)
    chosen = "test_seed or test_chat or test_a_score_is_the_sum or test_tokenize_counts"
    line = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rA", "-k", chosen, str(tmp_path)]
    wide = {**os.environ, "COLUMNS": "300"}
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env=wide, timeout=120, check=False)
    told = done.stdout.splitlines()
    assert done.returncode == 1

    def summary(word: str, *parts: str) -> list[str]:
        return [each for each in told if each.startswith(word) and all(part in each for part in parts)]

    assert summary("ERROR", "TestByFixture", "skips tests of the contract (test_seed)")
    assert summary("ERROR", "TestByHook", "skips tests of the contract (test_chat)")
    assert summary("ERROR", "TestByPatch", "test_seed is overridden")
    assert summary("XFAIL", "TestExempt::test_a_score_is_the_sum_of_its_tokens", "exempt: it repeats its prompt")
    assert summary("FAILED", "TestExempt::test_chat", "[XPASS(strict)] exempt: no longer true")
    assert not summary("ERROR", "TestExempt")
    assert not summary("ERROR", "TestAllSkipped")
    assert summary("PASSED", "TestByHook::test_seed")
