"""The attempts, made: against workers without a seal, in strict privacy, and against seals weakened on purpose."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

import ondevice_sdk
from ondevice_sdk import errors
from ondevice_sdk.privacy import policy
from ondevice_sdk.runtime.probe_worker import Returned, run_in_worker
from ondevice_sdk.trials import Trials, run_trials
from ondevice_sdk.types import JsonValue, PrivacyLevel, Progress

try:
    policy.check_available("strict")
except errors.PrivacyUnavailable as _error:
    pytest.skip(f"strict privacy cannot be had here: {_error.reasons}", allow_module_level=True)

from ondevice_sdk.privacy.attempts.catalogue import ATTEMPTS

NOBODY = 65534
# The mechanisms of the report that stand for a layer of `Attempt.layer`.
LAYERS = {
    "seccomp": ("seccomp network refusal", "no capabilities"),
    "landlock": ("filesystem sandbox",),
}


def expected_open(active: set[str]) -> set[str]:
    """What may get through where only these mechanisms are in force: empty where all are."""
    layers = {layer for layer, needed in LAYERS.items() if active.issuperset(needed)}
    return {name for name, attempt in ATTEMPTS.items() if attempt.layer not in (*layers, "none")}


def active_mechanisms() -> set[str]:
    report = run_in_worker("ondevice_sdk.privacy.attempts.inside:answer", privacy="strict").report
    return {mechanism.name for mechanism in report.mechanisms if mechanism.state == "active"}


def named(place: str) -> list[str]:
    return sorted(path.name for path in Path(place).iterdir() if path.name.startswith("ondevice-"))


def leftovers() -> dict[str, list[str]]:
    """What an attempt could leave on the machine."""
    return {
        "temporary": named(tempfile.gettempdir()),
        "shared": named("/dev/shm"),
        "groups": named("/sys/fs/cgroup"),
        "objects": [
            line
            for kind in Path("/proc/sysvipc").glob("*")
            for line in kind.read_text().splitlines()
            if line.split()[0].isdigit() and int(line.split()[0]) >> 16 == 0x0D0C
        ],
        "host": [os.uname().nodename, Path("/proc/sys/kernel/core_pattern").read_text()],
    }


@pytest.fixture
def readable() -> Iterator[Path]:
    """A copy of the package that any user can read: the checkout may lie in a private home."""
    place = Path(tempfile.mkdtemp(prefix="attempts-"))
    try:
        shutil.copytree(Path(ondevice_sdk.__file__).parent, place / "ondevice_sdk",
                        ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
        subprocess.run(["chmod", "-R", "a+rX", str(place)], check=True)
        yield place
    finally:
        shutil.rmtree(place)


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Trials:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("t")))
        before = leftovers()
        made = run_trials(full=True)
        assert leftovers() == before
    return made


@pytest.mark.slow
def test_the_sandbox_lets_nothing_through(trials: Trials) -> None:
    allowed = expected_open(active_mechanisms())
    escaped = {trial.id: trial.note for trial in trials.attempts if trial.verdict == "escaped"}
    assert set(escaped) <= allowed


@pytest.mark.slow
def test_the_controls_get_through(trials: Trials) -> None:
    """For else the refusals would prove nothing."""
    assert trials.control_succeeded >= 60, [(t.id, t.control_note) for t in trials.attempts if not t.control]
    for name, part in trials.groups.items():
        assert part.control_succeeded > 0, name


@pytest.mark.slow
def test_every_attempt_has_one_verdict(trials: Trials) -> None:
    assert trials.tried == len(ATTEMPTS)
    counted = (trials.escaped, trials.residual, trials.not_testable)
    assert trials.refused + sum(map(len, counted)) == trials.tried
    assert all(trial.control for trial in trials.attempts if trial.verdict == "refused")
    assert not any(trial.control for trial in trials.attempts if trial.verdict == "not_testable")
    assert "stat_secret" in trials.residual


@pytest.mark.slow
def test_it_is_the_kernel_that_refuses(trials: Trials) -> None:
    """An attempt that fails by a fault of its own, say an import, is no refusal."""
    for trial in trials.attempts:
        assert not trial.note.startswith(("ImportError", "ModuleNotFoundError", "NameError", "TypeError")), trial


@pytest.mark.slow
def test_nothing_but_notes_of_the_system_is_told(trials: Trials) -> None:
    """What the attempts read stays out of the result."""
    text = repr(trials)
    assert "root:" not in text
    assert len(text) < 100_000


def run_of(**changes: object) -> Callable[..., Returned]:
    """A way to run functions that is changed where it should be strict."""

    def run(
        entry: str,
        *,
        privacy: PrivacyLevel,
        arguments: Mapping[str, JsonValue] | None = None,
        read: Sequence[str] = (),
        timeout_s: float = 60.0,
        worker_command: Sequence[str] | None = None,
    ) -> Returned:
        options: dict[str, object] = {"privacy": privacy, "read": read}
        if privacy == "strict":
            options |= changes
        return run_in_worker(entry, arguments=arguments, timeout_s=timeout_s, worker_command=worker_command,
                             **options)  # type: ignore[arg-type]  # fmt: skip

    return run


@pytest.mark.slow
def test_a_worker_without_a_seal_is_caught() -> None:
    ids = ["py_tcp4", "dns_raw_udp53", "io_uring_socket", "subprocess_curl", "unix_path", "vm_write_host",
           "watch_files", "undo_dumpable", "read_ssh_key", "write_tmp", "become_program"]  # fmt: skip
    caught = run_trials(ids, run=run_of(privacy="guarded"))
    missed = set(ids) - set(caught.escaped)
    assert missed <= set(caught.not_testable) | {"undo_dumpable"}
    assert len(caught.escaped) >= 8


@pytest.mark.slow
def test_a_hole_in_the_filesystem_sandbox_is_caught() -> None:
    if "filesystem sandbox" not in active_mechanisms():
        pytest.skip("no Landlock on this kernel")
    ids = ["read_ssh_key", "list_home", "symlink_escape", "write_home", "py_tcp4"]
    caught = run_trials(ids, run=run_of(read=(tempfile.gettempdir(),)))
    assert caught.escaped == ("read_ssh_key", "list_home", "symlink_escape")
    assert caught.refused == 2


WEAKENED = """
import json
from ondevice_sdk.trials import run_trials
print(json.dumps(run_trials(["watch_files", "sysv_semaphore", "py_tcp4"]).escaped))
"""


@pytest.mark.slow
def test_a_hole_in_the_filter_is_caught(readable: Path) -> None:
    """Two groups of rows left out of the table, which the tries at the start of a worker do not look at."""
    table = readable / "ondevice_sdk" / "privacy" / "sandbox" / "calls.py"
    rows = table.read_text().splitlines(keepends=True)
    kept = [row for row in rows if not row.startswith(('    "inotify', '    "sem'))]
    assert len(rows) - len(kept) >= 6
    table.write_text("".join(kept))
    path = os.pathsep.join([str(readable), *(entry for entry in sys.path if "site-packages" in entry)])
    done = subprocess.run([sys.executable, "-c", WEAKENED], env={**os.environ, "PYTHONPATH": path}, cwd="/",
                          capture_output=True, text=True, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "watch_files" in json.loads(done.stdout)
    assert "py_tcp4" not in json.loads(done.stdout)


def test_what_the_range_sees_counts_more_than_what_the_worker_says() -> None:
    """A worker that says nothing got out all the same."""

    def run(entry: str, *, privacy: PrivacyLevel, **options: object) -> Returned:
        done = run_in_worker(entry, privacy="off", **options)  # type: ignore[arg-type]
        silent: list[JsonValue] = [{"claim": False, "text": "", "note": "EPERM"}]
        return Returned(silent, done.report) if privacy == "strict" and options.get("arguments") else done

    assert run_trials(["py_tcp4", "kill_host", "write_home"], run=run).escaped == ("py_tcp4", "kill_host", "write_home")


def test_an_answer_that_is_none_is_no_refusal() -> None:
    def run(entry: str, *, privacy: PrivacyLevel, **options: object) -> Returned:
        done = run_in_worker(entry, privacy=privacy, **options)  # type: ignore[arg-type]
        return Returned([], done.report) if privacy == "strict" and options.get("arguments") else done

    with pytest.raises(errors.WorkerCrashed):
        run_trials(["py_tcp4", "py_udp4"], run=run)


def test_progress_and_choice() -> None:
    seen: list[Progress] = []
    made = run_trials(["py_udp4", "py_alg"], on_progress=seen.append)
    assert (made.tried, made.left_out) == (1, ("py_alg",))
    assert [event.done for event in seen] == [1, 2]
    with pytest.raises(errors.ConfigurationError, match="no_such"):
        run_trials(["no_such"])


# --- as a user without privileges -------------------------------------------------------------------------------------

AS_NOBODY = """
import json, sys, dataclasses
from ondevice_sdk.privacy.attempts.catalogue import ATTEMPTS
from ondevice_sdk.runtime.probe_worker import run_in_worker
from ondevice_sdk.trials import run_trials
report = run_in_worker("ondevice_sdk.privacy.attempts.inside:answer", privacy="strict").report
trials = run_trials(full=True)
print(json.dumps({
    "uid": __import__("os").getuid(),
    "active": [m.name for m in report.mechanisms if m.state == "active"],
    "escaped": trials.escaped, "residual": trials.residual,
    "controls": trials.control_succeeded, "tried": trials.tried,
}))
"""


def become_nobody() -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def python_for_nobody(path: str) -> str | None:
    """A Python that an unprivileged user can run and that sees the dependencies."""
    here = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{here}", f"/usr/local/bin/{here}"):
        try:
            done = subprocess.run([candidate, "-c", "import ondevice_sdk, pydantic"], env={"PYTHONPATH": path},
                                  preexec_fn=become_nobody, capture_output=True, cwd="/", timeout=60)  # fmt: skip
        except OSError:
            continue
        if done.returncode == 0:
            return candidate
    return None


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Where that user puts files; not below what workers may read."""
    place = Path(tempfile.mkdtemp(prefix="attempts-"))
    place.chmod(0o1777)
    yield place
    shutil.rmtree(place)


@pytest.mark.slow
def test_as_an_unprivileged_user(readable: Path, temporary: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become another user; the other tests ran as this one")
    path = os.pathsep.join([str(readable), *(entry for entry in sys.path if "site-packages" in entry)])
    python = python_for_nobody(path)
    if python is None:
        pytest.skip(f"uid {NOBODY} can run no Python here that sees the dependencies")
    done = subprocess.run([python, "-c", AS_NOBODY], env={"PYTHONPATH": path, "TMPDIR": str(temporary)}, cwd="/",
                          preexec_fn=become_nobody, capture_output=True, text=True, timeout=280)  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["uid"] == NOBODY
    assert told["controls"] >= 60
    assert set(told["escaped"]) <= expected_open(set(told["active"]))
    assert not list(temporary.iterdir())
