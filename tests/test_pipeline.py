"""What a client uses and why: choosing, finding and refusing, before anything is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ondevice_sdk import Client, errors, models
from ondevice_sdk.device import detect
from ondevice_sdk.store import Store
from ondevice_sdk.types import DeviceProfile


@pytest.fixture
def roomy() -> DeviceProfile:
    return replace(detect(), memory_bytes=16_000_000_000, memory_available_bytes=12_000_000_000)


def test_a_missing_backend_is_named_with_the_line_to_type(
    monkeypatch: pytest.MonkeyPatch, store: Store, roomy: DeviceProfile
) -> None:
    monkeypatch.setattr("ondevice_sdk.backends.llama_cpp._installed", lambda name: False)
    with Client(store=store, device=roomy, backends=["llama_cpp"]) as ai:  # plugins may read its files too
        with pytest.raises(errors.BackendUnavailable) as caught:
            ai.generate("a")
        assert caught.value.hint == "pip install 'ondevice-sdk[llama-cpp]'"
        assert ai.availability("summarise").state == "unavailable"
        assert all("not installed" in (candidate.rejected or "") for candidate in ai.explain().candidates)


def test_a_backend_that_does_not_exist(store: Store, roomy: DeviceProfile) -> None:
    with (
        Client(store=store, device=roomy, backends=["abacus"]) as ai,
        pytest.raises(errors.ConfigurationError, match="abacus"),
    ):
        ai.explain()


def test_a_model_under_a_name_of_ones_own(store: Store, roomy: DeviceProfile, echo_path: Path) -> None:
    models.add(echo_path, name="parrot", store=store)
    for name in ("parrot", None):
        with Client(name, store=store, device=roomy) as ai:
            assert ai.model.name == "parrot"
            assert ai.model.backend == "echo"


def test_an_unknown_name_suggests_the_nearest(store: Store, roomy: DeviceProfile) -> None:
    with Client("smollm2-135m-instuct", store=store, device=roomy) as ai:
        with pytest.raises(errors.ConfigurationError, match="smollm2-135m-instruct"):
            ai.generate("a")
        with pytest.raises(errors.ConfigurationError):
            ai.explain()


def test_a_named_model_that_is_not_here(store: Store, roomy: DeviceProfile) -> None:
    with Client("qwen3-0.6b:int8", store=store, device=roomy) as ai:
        with pytest.raises(errors.ModelNotInstalled) as caught:
            ai.generate("a")
        assert caught.value.hint == "ondevice models pull qwen3-0.6b:int8"
        assert {candidate.variant for candidate in ai.explain().candidates} == {"int8"}


@pytest.mark.model
def test_a_file_is_weighed_by_its_header(model_path: Path, store: Store, roomy: DeviceProfile) -> None:
    with Client(model_path, store=store, device=roomy) as ai:
        assert ai._pipeline.resolve().context_tokens == 8192
    tight = replace(roomy, memory_available_bytes=380_000_000)
    with Client(model_path, store=store, device=tight) as ai:
        assert ai._pipeline.resolve().context_tokens in (2048, 4096)  # less room for the KV cache, but it runs
    with Client(model_path, store=store, device=tight, context=8192) as ai:
        assert ai._pipeline.resolve().options.kv_type == "q8_0"  # insisted on, it is had with fewer bits
    tight = replace(roomy, memory_available_bytes=280_000_000)
    with (
        Client(model_path, store=store, device=tight, context=8192) as ai,
        pytest.raises(errors.NoModelFits, match=r"needs 0\.\d\d GB, 0\.\d\d GB can be used"),
    ):
        ai.generate("a")


def test_the_catalogue_decides_what_pull_takes(roomy: DeviceProfile) -> None:
    from ondevice_sdk import catalogue

    assert models.best_variant(catalogue.get("smollm2-135m-instruct")) == "int4"  # the one that somebody has checked
    assert models.best_variant(catalogue.get("qwen3-0.6b")) in ("int4", "int8")


def test_a_pull_under_way_is_seen(store: Store, roomy: DeviceProfile) -> None:
    with Client("smollm2-135m-instruct", store=store, device=roomy) as ai:
        assert ai.availability("summarise").state == "downloadable"
        with store.space.lock("smollm2-135m-instruct--int4"):
            assert ai.availability("summarise").state == "downloading"
        assert ai.availability("summarise").state == "downloadable"
