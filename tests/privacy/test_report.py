"""The report never says more than both accounts prove."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ondevice_sdk.privacy.evidence import Seal, Thread, Witness, read_descriptors, read_namespaces, read_threads
from ondevice_sdk.privacy.report import build, shortcomings

SEAL = Seal(
    pid=7,
    machine="x86_64",
    attempts=(("socket", True), ("execve", True)),
    files=(("list /", True),),
    app_out_of_reach=True,
    landlock=7,
    landlock_lack="",
    namespaces_lack="",
    told=True,
    told_lack="",
    no_new_privileges=True,
    dumpable=False,
    core_limit=0,
    environment=("LANG",),
)
CLOSED = Thread(2, no_new_privileges=True, capabilities=False, bounding=False)
WITNESS = Witness(
    (CLOSED, CLOSED), ("/dev/null", "pipe:[1]", "pipe:[2]"), ("user", "net", "ipc"), "ab" * 32, read_back=True
)
LIBRARIES = {"libengine.so": ()}


def states(seal: Seal = SEAL, witness: Witness = WITNESS) -> dict[str, str]:
    report = build(
        "strict", "process", seal, witness, environment=frozenset({"LANG"}), offline=True, libraries=LIBRARIES
    )
    return {m.name: m.state for m in report.mechanisms}


def test_all_proved() -> None:
    assert shortcomings(SEAL, WITNESS, 7) == ()
    assert set(states().values()) == {"active"}
    report = build("strict", "process", SEAL, WITNESS, environment=frozenset({"LANG"}))
    assert report.enforced
    assert not any("read and write the files" in limit for limit in report.limits)


@pytest.mark.parametrize(
    ("seal", "witness", "mechanism"),
    [
        (replace(SEAL, attempts=(("socket", True), ("execve", False))), WITNESS, "seccomp network refusal"),
        (replace(SEAL, attempts=()), WITNESS, "seccomp network refusal"),
        (SEAL, replace(WITNESS, read_back=False), "seccomp network refusal"),
        (SEAL, replace(WITNESS, read_back=False), "filter read back"),
        (SEAL, replace(WITNESS, threads=()), "seccomp network refusal"),
        (SEAL, replace(WITNESS, threads=(CLOSED, replace(CLOSED, seccomp=0))), "seccomp network refusal"),
        (SEAL, replace(WITNESS, threads=(replace(CLOSED, seccomp=1),)), "seccomp network refusal"),
        (SEAL, replace(WITNESS, descriptors=None), "no inherited descriptors"),
        (SEAL, replace(WITNESS, descriptors=("pipe:[1]", "socket:[9]")), "no inherited descriptors"),
        (SEAL, replace(WITNESS, descriptors=("pipe:[1]", "anon_inode:seccomp notify")), "no inherited descriptors"),
        (SEAL, replace(WITNESS, threads=(CLOSED, replace(CLOSED, no_new_privileges=False))), "no new privileges"),
        (SEAL, replace(WITNESS, threads=(CLOSED, replace(CLOSED, capabilities=True))), "no capabilities"),
        (replace(SEAL, no_new_privileges=False), WITNESS, "no new privileges"),
        (replace(SEAL, dumpable=True), WITNESS, "not dumpable"),
        (replace(SEAL, core_limit=-1), WITNESS, "core dumps off"),
        (replace(SEAL, files=(("list /", False),)), WITNESS, "filesystem sandbox"),
        (replace(SEAL, files=()), WITNESS, "filesystem sandbox"),
        (replace(SEAL, app_out_of_reach=False), WITNESS, "app out of reach"),
    ],
)
def test_what_is_not_proved_is_not_claimed_and_not_accepted(seal: Seal, witness: Witness, mechanism: str) -> None:
    assert states(seal, witness)[mechanism] == "absent"
    assert shortcomings(seal, witness, 7)
    if mechanism in ("seccomp network refusal", "no inherited descriptors"):
        assert not build("strict", "process", seal, witness).enforced


def test_another_process_and_a_failed_seal_are_not_accepted() -> None:
    assert shortcomings(SEAL, WITNESS, 8)
    assert shortcomings(replace(SEAL, error="the kernel refused"), WITNESS, 7) == ("the kernel refused",)
    assert shortcomings(replace(SEAL, hiding_error="not hidden"), WITNESS, 7) == ("not hidden",)


ALONE = replace(SEAL, landlock=0, files=(("list /", False),), landlock_lack="no such call")
BARE = replace(WITNESS, namespaces=())


@pytest.mark.parametrize(
    "other",
    [
        (SEAL, BARE),
        (ALONE, WITNESS),
        (ALONE, replace(BARE, yama=1)),
        (ALONE, replace(BARE, app_privileged=True)),
    ],
)
def test_one_more_layer_has_to_keep_the_worker_from_the_app(other: tuple[Seal, Witness]) -> None:
    assert shortcomings(*other, 7) == ()
    assert states(*other)["app out of reach"] == "active"
    (reason,) = shortcomings(ALONE, BARE, 7)
    assert "Landlock" in reason
    assert "lsm=landlock" in reason
    assert states(ALONE, BARE)["app out of reach"] == "absent"


def test_what_the_kernel_does_not_have_is_said_to_be_missing() -> None:
    seen = states(replace(ALONE, told=False, told_lack="busy"), replace(WITNESS, read_back=None, namespaces=("user",)))
    missing = {name for name, state in seen.items() if state == "not_available"}
    assert missing == {"filter read back", "ledger of attempts", "filesystem sandbox", "own namespaces"}
    report = build("strict", "process", ALONE, WITNESS)
    assert any("read and write the files" in limit for limit in report.limits)


def test_libraries_that_could_open_a_connection_are_named() -> None:
    report = build("strict", "process", SEAL, WITNESS, libraries={"liba.so": (), "libb.so": ("fork", "socket")})
    (line,) = (m for m in report.mechanisms if m.name == "engine libraries without sockets")
    assert (line.state, line.detail) == ("absent", "libb.so imports fork, socket")
    nothing: dict[str, tuple[str, ...]] = {}
    for unknown in (None, nothing):
        report = build("strict", "process", SEAL, WITNESS, libraries=unknown)
        assert report.mechanisms[-1].state == "not_available"


def test_an_inherited_variable_shows() -> None:
    assert states(replace(SEAL, environment=("LANG", "https_proxy")))["scrubbed environment"] == "absent"


@pytest.mark.parametrize("level", ["guarded", "off"])
def test_without_strict_no_layer_is_claimed(level: str) -> None:
    report = build(level, "process", SEAL, WITNESS)  # type: ignore[arg-type]
    layers = [m for m in report.mechanisms if m.name in ("own namespaces", "no capabilities", "ledger of attempts")]
    assert {m.state for m in layers} == {"absent"}


def test_a_thread_claims_nothing() -> None:
    report = build("guarded", "thread")
    assert not report.enforced
    assert {m.state for m in report.mechanisms} == {"absent"}
    assert "NOT" in report.summary
    assert any("inside the app" in limit for limit in report.limits)


STATUS = (
    "Name:\tpython\nNoNewPrivs:\t1\nCapInh:\t00\nCapPrm:\t{0}\nCapEff:\t00\nCapBnd:\t{1}\nCapAmb:\t00\nSeccomp:\t{2}\n"
)


def test_threads_and_descriptors_are_read_from_proc(tmp_path: Path) -> None:
    for thread, fields in (("10", ("00", "00", 2)), ("11", ("01", "ff", 0))):
        folder = tmp_path / "10" / "task" / thread
        folder.mkdir(parents=True)
        (folder / "status").write_text(STATUS.format(*fields))
    (tmp_path / "10" / "fd").mkdir()
    (tmp_path / "10" / "fd" / "0").symlink_to("socket:[5]")
    threads = {thread.seccomp: thread for thread in read_threads(10, tmp_path)}
    assert threads == {2: CLOSED, 0: Thread(0, no_new_privileges=True, capabilities=True, bounding=True)}
    assert read_descriptors(10, tmp_path) == ("socket:[5]",)
    assert read_threads(12, tmp_path) == ()
    assert read_descriptors(12, tmp_path) is None


def test_a_status_without_capabilities_is_not_believed(tmp_path: Path) -> None:
    folder = tmp_path / "10" / "task" / "10"
    folder.mkdir(parents=True)
    (folder / "status").write_text("Seccomp:\t2\nNoNewPrivs:\t1\n")
    (thread,) = read_threads(10, tmp_path)
    assert thread.capabilities
    assert thread.bounding


def test_namespaces_are_compared(tmp_path: Path) -> None:
    for process, user in (("self", "user:[1]"), ("10", "user:[2]")):
        (tmp_path / process / "ns").mkdir(parents=True)
        (tmp_path / process / "ns" / "user").symlink_to(user)
        (tmp_path / process / "ns" / "net").symlink_to("net:[1]")
        (tmp_path / process / "ns" / "ipc").symlink_to("ipc:[1]")
    assert read_namespaces(10, tmp_path) == ("user",)
    assert read_namespaces(11, tmp_path) == ()
