"""The attempts as other users and in a container: the seal needs no privileges, and holds where there are few."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ondevice_sdk
from ondevice_sdk import errors
from ondevice_sdk.privacy import policy

try:
    policy.check_available("strict")
except errors.PrivacyUnavailable as _error:
    pytest.skip(f"strict privacy cannot be had here: {_error.reasons}", allow_module_level=True)

from ondevice_sdk.privacy.attempts.attempt import KNOWN_GAPS
from ondevice_sdk.privacy.attempts.catalogue import ATTEMPTS

SCRIPT = Path(__file__).parents[2] / "scripts" / "prove_seal.py"
CAP_SYS_ADMIN = 1 << 21
CONTAINED = 0xA80425FB  # the capabilities that container engines leave by default
FEWEST_CONTROLS = 90  # of about 150 attempts; without a control a refusal proves nothing
# Refused to everybody in a container, so that there is no control there: shows that the emulation is one.
NOT_IN_A_CONTAINER = {"keyctl", "mount_nfs_like", "clone_newnet_user", "perf_event", "userfaultfd", "io_uring"}


def privileged() -> bool:
    status = Path("/proc/self/status").read_text()
    return os.geteuid() == 0 and bool(int(status.split("CapEff:")[1].split()[0], 16) & CAP_SYS_ADMIN)


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not privileged(), reason="needs the administrator, to become others"),
]


def prove(*words: str, modules: Path | None = None) -> tuple[int, dict[str, Any]]:
    env = {**os.environ, "PYTHONPATH": str(modules)} if modules else None
    done = subprocess.run([sys.executable, SCRIPT, "--json", *words], env=env, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, told


@pytest.fixture(scope="module")
def proved() -> dict[str, Any]:
    return prove("--quick", "--identity", "2", "3")[1]


def test_they_are_who_they_should_be(proved: dict[str, Any]) -> None:
    plain, contained = proved["identities"].values()
    assert [who["Uid"].split()[0] for who in (plain, contained)] == ["65534", "0"]
    assert [int(who["CapEff"], 16) for who in (plain, contained)] == [0, CONTAINED]
    assert contained["pid"] == 1
    assert int(contained["CapBnd"], 16) == CONTAINED
    assert int(contained["CapInh"], 16) == int(contained["CapAmb"], 16) == 0
    assert (contained["NoNewPrivs"], contained["Seccomp"]) == ("0", "2")
    assert contained["mechanisms"]["own namespaces"] == "not_available"
    assert set(contained["trials"]["not_testable"]) >= NOT_IN_A_CONTAINER
    assert plain["Seccomp"] == "0"
    assert len(set(plain["trials"]["not_testable"]) & NOT_IN_A_CONTAINER) <= 3, "some kernels close these to all"


def test_nothing_escapes(proved: dict[str, Any]) -> None:
    assert len(proved["identities"]) == 2
    for name, who in proved["identities"].items():
        trials, mechanisms = who["trials"], who["mechanisms"]
        assert mechanisms["seccomp network refusal"] == mechanisms["no capabilities"] == "active", name
        files = mechanisms["filesystem sandbox"] == "active"
        open_ways = set() if files else {made.id for made in ATTEMPTS.values() if made.layer == "landlock"}
        assert set(trials["escaped"]) <= open_ways, name
        assert set(trials["residual"]) <= KNOWN_GAPS, name


def test_the_controls_get_through(proved: dict[str, Any]) -> None:
    for name, who in proved["identities"].items():
        trials = who["trials"]
        assert trials["control_succeeded"] >= FEWEST_CONTROLS, name
        assert {row["group"] for row in trials["attempts"] if row["control"]} == {
            attempt.group for attempt in ATTEMPTS.values()
        }, name
        counted = sum(len(trials[key]) for key in ("escaped", "residual", "not_testable"))
        assert trials["refused"] + counted == trials["tried"] == len(ATTEMPTS) - len(trials["left_out"]), name


def test_the_machine_is_as_it_was(proved: dict[str, Any]) -> None:
    assert proved["left_behind"] == []


def test_known_gaps_are_attempts() -> None:
    assert set(ATTEMPTS) >= KNOWN_GAPS


@pytest.fixture
def weakened() -> Iterator[Path]:
    """The package with rows left out of its table of calls, which the tries at the start of a worker do not look at."""
    place = Path(tempfile.mkdtemp(prefix="attempts-"))
    try:
        package = place / "ondevice_sdk"
        shutil.copytree(Path(ondevice_sdk.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
        table = package / "privacy" / "sandbox" / "calls.py"
        rows = table.read_text().splitlines(keepends=True)
        kept = [row for row in rows if not row.startswith('    "inotify')]
        assert len(rows) - len(kept) == 3
        table.write_text("".join(kept))
        yield place
    finally:
        shutil.rmtree(place)


def test_a_hole_is_caught_as_every_identity(weakened: Path) -> None:
    code, told = prove("--only", "watch_files", "py_tcp4", modules=weakened)
    assert code == 1
    assert len(told["identities"]) == 4
    for name, who in told["identities"].items():
        assert who["trials"]["escaped"] == ["watch_files"], name
        assert who["trials"]["refused"] == 1, name
