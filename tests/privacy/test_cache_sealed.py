"""The encrypted cache in a worker that is sealed as those that run models."""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import pytest

from ondevice_sdk.privacy.vault import EncryptedCache, MemoryKey
from ondevice_sdk.runtime.probe_worker import Returned, run_in_worker
from ondevice_sdk.types import PrivacyLevel

DIGEST = "ab" * 32


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).with_name("modules"))])


def test_a_sealed_worker_keeps_entries_with_a_directory_and_a_key_handed_over(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    with MemoryKey() as key, EncryptedCache(directory, key.scoped("prompt-state", DIGEST), max_bytes=1 << 20) as cache:
        cache.put("from the app", b"good morning")
        handed = base64.b64encode(key.scoped("prompt-state", DIGEST).reveal()).decode()

        def run(caches: list[str]) -> Returned:
            arguments = {
                "directory": str(directory), "key": handed, "purpose": "prompt-state", "model_digest": DIGEST,
            }  # fmt: skip
            return run_in_worker("cache_functions:keep", privacy="strict", arguments=arguments, caches=caches)

        returned = run([str(directory)])
        assert isinstance(returned.value, dict)
        used = returned.value.pop("bytes")
        assert isinstance(used, int)
        assert 300_000 < used <= 1 << 20
        assert returned.value == {"found": "good morning", "puts": [True] * 6, "there": True, "deleted": True}
        assert returned.report.enforced
        assert returned.report.attempts == (), "neither the cache nor OpenSSL tries what is refused"
        assert cache.get("last") == b"words"
        assert cache.get("filler 3") is None
        assert not cache.refused
        layers = {mechanism.name: mechanism.state for mechanism in returned.report.mechanisms}
        if layers["filesystem sandbox"] == "active":
            refused = run([]).value
            assert isinstance(refused, dict)
            assert refused["error"] == "store_error"
            assert cache.get("last") == b"words"


def test_a_worker_makes_only_plain_files_in_such_a_directory(tmp_path: Path) -> None:
    def outcomes(privacy: PrivacyLevel) -> object:
        directory = tmp_path / privacy / "cache"
        directory.mkdir(parents=True)
        arguments = {"directory": str(directory)}
        function = "cache_functions:reach"
        return run_in_worker(function, privacy=privacy, arguments=arguments, caches=[str(directory)]).value

    names = ("file", "link", "folder", "pipe", "beside")
    assert outcomes("off") == dict.fromkeys(names, "done")  # the control
    sealed = outcomes("strict")
    assert isinstance(sealed, dict)
    if sealed["beside"] == "done":
        pytest.skip("no Landlock here")
    assert sealed.pop("file") == "done"
    assert set(sealed.values()) <= {"EACCES", "EPERM"}
