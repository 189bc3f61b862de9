"""Strict workers of apps that are restricted themselves: sealed as far as it goes and reported so, or refused."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ondevice_sdk

from .conftest import MODULES

NOBODY = 65534
NEEDED = ("pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection")
NO_LANDLOCK = {"landlock_create_ruleset": errno.ENOSYS}
NO_NAMESPACES = {"unshare": errno.EPERM}
# What a container engine's default profile refuses of the calls that matter here.
CONTAINER = {
    **NO_NAMESPACES,
    **dict.fromkeys(
        ("mount", "setns", "keyctl", "add_key", "request_key", "bpf", "perf_event_open", "userfaultfd"), errno.EPERM
    ),
    **dict.fromkeys(("io_uring_setup", "open_by_handle_at", "pidfd_getfd", "process_vm_readv"), errno.EPERM),
    "clone3": errno.ENOSYS,
}
REFUSED = ["EPERM"] * 10 + ["ENOSYS", "ENOSYS", "EPERM"]

Launch = Callable[..., dict[str, Any]]


@pytest.fixture
def app() -> Launch:
    return lambda **wanted: launch(sys.executable, [*sys.path, str(MODULES)], wanted)


def launch(python: str, path: list[str], wanted: dict[str, Any]) -> dict[str, Any]:
    script = next(f"{folder}/outer_app.py" for folder in reversed(path) if Path(folder, "outer_app.py").exists())
    run = subprocess.run(
        [python, "-I", script, json.dumps({**wanted, "path": path})],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": os.defpath},
        cwd="/",
        check=False,
    )
    assert run.returncode == 0, run.stderr
    answer: dict[str, Any] = json.loads(run.stdout)
    return answer


@pytest.fixture(scope="module")
def nobody() -> Iterator[Launch]:
    """Launches the app as another user, from copies that everybody can read."""
    if os.geteuid() != 0:
        pytest.skip("needs the administrator, to become another user")
    python = next((name for name in (sys.executable, "/usr/bin/python3") if _usable(name)), None)
    if python is None:
        pytest.skip("no Python of this version that another user can start")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(Path(ondevice_sdk.__file__).parent, folder / "ondevice_sdk")
        for needed in NEEDED:
            spec = importlib.util.find_spec(needed)
            assert spec is not None
            assert spec.origin is not None
            source = Path(spec.origin)
            if source.name == "__init__.py":
                shutil.copytree(source.parent, folder / needed)
            else:
                shutil.copy(source, folder)
        shutil.copytree(MODULES, folder / "modules")
        chosen = python
        yield lambda **wanted: launch(chosen, [str(folder), str(folder / "modules")], {**wanted, "uid": NOBODY})


def _usable(python: str) -> bool:
    """Whether everybody can start it, and it is of this version, for which pydantic was compiled."""
    real = Path(python).resolve()
    if not real.exists() or not all(folder.stat().st_mode & stat.S_IXOTH for folder in (real, *real.parents)):
        return False
    code = "import sys; print(sys.version_info[:2])"
    run = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=False)
    return run.stdout.strip() == str(sys.version_info[:2])


@pytest.mark.parametrize("refuse", [{}, CONTAINER], ids=["alone", "container"])
def test_sealed_as_this_user_and_as_another(app: Launch, nobody: Launch, refuse: dict[str, int]) -> None:
    for launched in (app(refuse=refuse), nobody(refuse=refuse)):
        assert launched["enforced"]
        assert launched["value"] == REFUSED
        assert launched["states"]["ledger of attempts"] == "active"
        assert launched["states"]["no inherited descriptors"] == "active"
        assert launched["states"]["app out of reach"] == "active"
        assert launched["states"]["no capabilities"] == "active"
        assert launched["rows"] >= 8
        assert "absent" not in launched["states"].values()
        if refuse:
            assert launched["states"]["own namespaces"] == "not_available"


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSYS])
def test_no_filter_no_worker(app: Launch, code: int) -> None:
    refused = app(refuse={"seccomp": code})
    assert os.strerror(code) in " ".join(refused["reasons"])
    assert refused["hint"]


def test_capabilities_that_cannot_be_dropped(app: Launch) -> None:
    assert app(refuse={"capset": errno.EPERM})["reasons"]


def test_a_supervisor_above_means_no_ledger(app: Launch) -> None:
    seen = app(listener=True)
    assert seen["enforced"]
    assert seen["value"] == REFUSED
    assert seen["states"]["ledger of attempts"] == "not_available"
    assert "busy" in seen["details"]["ledger of attempts"]
    assert seen["rows"] == 0


def test_without_landlock_or_namespaces_it_starts_and_says_so(nobody: Launch) -> None:
    landlock_only = nobody(refuse=NO_NAMESPACES)
    assert landlock_only["states"]["own namespaces"] == "not_available"
    assert landlock_only["states"]["filesystem sandbox"] == "active"
    if not Path("/proc/self/ns/user").exists():
        pytest.skip("no user namespaces here")
    namespaces_only = nobody(refuse=NO_LANDLOCK)
    if "reasons" in namespaces_only:
        pytest.skip("user namespaces are closed to this user here")
    assert namespaces_only["enforced"]
    assert namespaces_only["value"] == REFUSED
    assert namespaces_only["states"]["filesystem sandbox"] == "not_available"
    assert any("read and write the files" in limit for limit in namespaces_only["limits"])


def test_the_filter_alone_is_not_strict(app: Launch, nobody: Launch) -> None:
    if Path("/proc/sys/kernel/yama/ptrace_scope").exists():
        pytest.skip("Yama keeps processes apart here")
    (reason,) = nobody(refuse={**NO_LANDLOCK, **NO_NAMESPACES})["reasons"]
    assert "no Landlock" in reason
    assert "lsm=landlock" in reason
    if os.geteuid() == 0:  # dropped capabilities keep it from a privileged app
        assert app(refuse={**NO_LANDLOCK, **NO_NAMESPACES})["enforced"]
