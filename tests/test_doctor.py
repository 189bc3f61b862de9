"""`ondevice doctor` and what is behind it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ondevice_sdk import errors
from ondevice_sdk.doctor import examine, memory_warnings, network_file_system
from ondevice_sdk.privacy import policy
from ondevice_sdk.store import Store

FIELDS = {"privacy", "hardware", "backends", "store", "warnings"}


def strict_can_be_had() -> bool:
    try:
        policy.check_available("strict")
    except errors.PrivacyUnavailable:
        return False
    return True


needs_strict = pytest.mark.skipif(not strict_can_be_had(), reason="strict privacy cannot be had here")


def doctor(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "ondevice_sdk", "doctor", *words],
        env={**os.environ, "ONDEVICE_HOME": str(home)}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip


@needs_strict
@pytest.mark.slow
def test_the_command_as_json(tmp_path: Path, echo_path: Path) -> None:
    home = tmp_path / "home"
    Store.open(home).add(echo_path, name="parrot")
    done = doctor(home, "--json")
    told = json.loads(done.stdout)
    assert set(told) == FIELDS
    privacy = told["privacy"]
    assert privacy["tried"] >= 100
    assert privacy["control_succeeded"] >= 60
    counts = [len(privacy[name]) for name in ("escaped", "residual", "not_testable")]
    assert privacy["refused"] + sum(counts) == privacy["tried"] == len(privacy["attempts"])
    assert "all_families" in privacy["left_out"]
    assert privacy["enforced"] is (not privacy["escaped"])
    assert done.returncode == (1 if privacy["escaped"] else 0)
    assert told["hardware"]["usable_cores"] >= 1
    assert {"name", "usable", "reason", "hint", "capabilities", "formats"} == set(told["backends"][0])
    assert told["store"]["writable"]
    assert told["store"]["root"] == str(home)
    assert [(m["name"], m["state"]) for m in told["store"]["models"]] == [("parrot", "verified")]
    assert "tries" not in done.stdout
    assert "attempts" in done.stderr, "progress goes to standard error"


@needs_strict
@pytest.mark.slow
def test_the_command_for_people(tmp_path: Path) -> None:
    done = doctor(tmp_path)
    assert done.returncode in (0, 1)
    assert ("ESCAPED" in done.stdout) is (done.returncode == 1)
    for word in ("net", "dns", "native", "total", "known gap: stat_secret", "not testable here", "hardware", "store"):
        assert word in done.stdout
    assert "Traceback" not in done.stderr


def test_where_strict_cannot_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "sunos5")
    found = examine(store=Store.open(tmp_path))
    assert not found.ok
    assert found.privacy.tried == 0
    assert "sunos5" in found.privacy.reasons[0]


def test_a_damaged_model_and_a_store_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, echo_path: Path
) -> None:
    monkeypatch.setattr(sys, "platform", "sunos5")  # no attempts
    nowhere = examine(store=Store.open(tmp_path / "none" / "at" / "all")).store
    assert not nowhere.exists
    assert nowhere.models == ()
    store = Store.open(tmp_path / "home")
    path = Path(store.add(echo_path, name="parrot").path)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b"2048", b"2047"))
    found = examine(store=store)
    (model,) = found.store.models
    assert model.state == "corrupt"
    assert any("parrot" in warning for warning in found.warnings)


def test_swap_and_core_files_are_warned_of(tmp_path: Path) -> None:
    (tmp_path / "sys" / "kernel").mkdir(parents=True)
    swaps, pattern = tmp_path / "swaps", tmp_path / "sys" / "kernel" / "core_pattern"
    head = "Filename\tType\tSize\tUsed\tPriority\n"
    swaps.write_text(f"{head}/dev/zram0 partition 1 0 1\n/dev/dm-1 partition 1 0 1\n")
    pattern.write_text("core\n")
    assert memory_warnings(tmp_path) == ()
    swaps.write_text(f"{head}/swapfile file 1 0 -2\n")
    pattern.write_text("|/usr/lib/systemd/systemd-coredump %P\n")
    warnings = memory_warnings(tmp_path)
    assert "/swapfile" in warnings[0]
    assert "core files" in warnings[1]
    assert memory_warnings(tmp_path / "none") == ()


def test_a_local_file_system_is_none_of_a_network(tmp_path: Path) -> None:
    assert network_file_system(tmp_path) == ""
    assert network_file_system(tmp_path / "none") == ""
