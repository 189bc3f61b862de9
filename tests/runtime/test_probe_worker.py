from __future__ import annotations

import threading

import pytest

from ondevice_sdk import __version__
from ondevice_sdk.errors import LoadFailed, WorkerCrashed
from ondevice_sdk.runtime.probe_worker import run_in_worker
from ondevice_sdk.types import JsonValue


def test_a_result_and_what_protected_it() -> None:
    arguments = {"a": [1, 2.5, None, True], "b": {"c": "éü"}}
    returned = run_in_worker("worker_functions:echo", privacy="strict", arguments=arguments)  # type: ignore[arg-type]
    assert returned.value == arguments
    assert returned.report.enforced
    assert returned.report.level == "strict"


def test_sealed_and_the_control() -> None:
    assert run_in_worker("worker_functions:open_socket", privacy="off").value == "opened"
    assert run_in_worker("worker_functions:open_socket", privacy="strict").value == "EPERM"


def test_nothing_heavy_is_imported() -> None:
    loaded = run_in_worker("worker_functions:modules", privacy="strict").value
    assert isinstance(loaded, list)
    assert not {"pydantic", "numpy", "llama_cpp", "site"} & {str(name).partition(".")[0] for name in loaded}
    ours = {str(name) for name in loaded if str(name).startswith("ondevice_sdk.")}
    assert "ondevice_sdk.runtime.function" in ours
    assert not {"ondevice_sdk.client", "ondevice_sdk.store", "ondevice_sdk.tasks"} & ours  # the app's side


def test_the_names_of_the_package_are_there_when_they_are_asked_for() -> None:
    found = run_in_worker("worker_functions:public_names", privacy="strict").value
    assert found == ["OnDeviceError", "False", "Message", __version__]


@pytest.mark.parametrize("name", ["raises", "no_json", "missing"])
def test_a_function_that_fails(name: str) -> None:
    with pytest.raises(LoadFailed) as caught:
        run_in_worker(f"worker_functions:{name}", privacy="off")
    assert "text" not in str(caught.value)


def test_a_function_that_ends_its_worker() -> None:
    with pytest.raises(WorkerCrashed) as caught:
        run_in_worker("worker_functions:dies", privacy="strict")
    assert caught.value.exit_code == 3


def test_last_words_are_not_quoted() -> None:
    """They may hold the text that the function was given."""
    with pytest.raises(WorkerCrashed) as caught:
        run_in_worker("worker_functions:dies_quoting", privacy="strict", arguments={"text": "a private text"})
    assert caught.value.exit_code == 3
    assert "private" not in str(caught.value)


def test_a_function_that_yields_how_far_it_is() -> None:
    told: list[float] = []
    returned = run_in_worker(
        "worker_functions:steps", privacy="strict", arguments={"fractions": [0.25, 1]}, on_progress=told.append
    )
    assert returned.value == "done"
    assert told == [0.25, 1.0]


@pytest.mark.parametrize("fractions", [[1.5], [-0.1], [0.5] * 2000])
def test_progress_that_no_honest_function_makes(fractions: list[JsonValue]) -> None:
    with pytest.raises(WorkerCrashed):
        run_in_worker("worker_functions:steps", privacy="off", arguments={"fractions": fractions})


def test_nothing_is_left_behind() -> None:
    before = threading.active_count()
    run_in_worker("worker_functions:echo", privacy="strict")
    assert threading.active_count() == before
