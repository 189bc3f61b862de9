"""The report never says more than both accounts prove."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ondevice_sdk.privacy.evidence import Seal, Witness, read_descriptors, read_threads
from ondevice_sdk.privacy.report import build, shortcomings

SEAL = Seal(7, "x86_64", "ab" * 32, (("socket", True), ("execve", True)), True, False, 0, ("LANG",))
WITNESS = Witness(((2, True), (2, True)), ("/dev/null", "pipe:[1]", "pipe:[2]"))


def state(name: str, seal: Seal = SEAL, witness: Witness = WITNESS) -> str:
    report = build("strict", "process", seal, witness, environment=frozenset({"LANG"}), offline=True)
    return next(m.state for m in report.mechanisms if m.name == name)


def test_all_proved() -> None:
    assert shortcomings(SEAL, WITNESS, 7) == ()
    report = build("strict", "process", SEAL, WITNESS, environment=frozenset({"LANG"}), offline=True)
    assert report.enforced
    assert {m.name for m in report.mechanisms if m.state != "active"} == {"filesystem sandbox"}
    assert any("read and write the files" in limit for limit in report.limits)


@pytest.mark.parametrize(
    ("seal", "witness", "mechanism"),
    [
        (replace(SEAL, attempts=(("socket", True), ("execve", False))), WITNESS, "seccomp network refusal"),
        (replace(SEAL, attempts=()), WITNESS, "seccomp network refusal"),
        (replace(SEAL, filter_sha256=""), WITNESS, "seccomp network refusal"),
        (SEAL, Witness((), WITNESS.descriptors), "seccomp network refusal"),
        (SEAL, Witness(((2, True), (0, True)), WITNESS.descriptors), "seccomp network refusal"),
        (SEAL, Witness(((1, True),), WITNESS.descriptors), "seccomp network refusal"),
        (SEAL, Witness(WITNESS.threads, None), "no inherited descriptors"),
        (SEAL, Witness(WITNESS.threads, ("pipe:[1]", "socket:[9]")), "no inherited descriptors"),
        (SEAL, Witness(((2, True), (2, False)), WITNESS.descriptors), "no new privileges"),
        (replace(SEAL, no_new_privileges=False), WITNESS, "no new privileges"),
        (replace(SEAL, dumpable=True), WITNESS, "not dumpable"),
        (replace(SEAL, core_limit=-1), WITNESS, "core dumps off"),
    ],
)
def test_what_is_not_proved_is_not_claimed_and_not_accepted(seal: Seal, witness: Witness, mechanism: str) -> None:
    assert state(mechanism, seal, witness) == "absent"
    assert shortcomings(seal, witness, 7)
    if mechanism in ("seccomp network refusal", "no inherited descriptors"):
        assert not build("strict", "process", seal, witness).enforced


def test_another_process_and_a_failed_seal_are_not_accepted() -> None:
    assert shortcomings(SEAL, WITNESS, 8)
    assert shortcomings(replace(SEAL, error="the kernel refused"), WITNESS, 7) == ("the kernel refused",)


def test_an_inherited_variable_shows() -> None:
    assert state("scrubbed environment", replace(SEAL, environment=("LANG", "https_proxy"))) == "absent"


def test_a_thread_claims_nothing() -> None:
    report = build("guarded", "thread")
    assert not report.enforced
    assert not [m for m in report.mechanisms if m.state == "active"]
    assert "NOT" in report.summary


def test_threads_and_descriptors_are_read_from_proc(tmp_path: Path) -> None:
    for thread, mode in (("10", 2), ("11", 0)):
        folder = tmp_path / "10" / "task" / thread
        folder.mkdir(parents=True)
        (folder / "status").write_text(f"Name:\tpython\nNoNewPrivs:\t1\nSeccomp:\t{mode}\nSeccomp_filters:\t1\n")
    (tmp_path / "10" / "fd").mkdir()
    (tmp_path / "10" / "fd" / "0").symlink_to("socket:[5]")
    assert sorted(read_threads(10, tmp_path)) == [(0, True), (2, True)]
    assert read_descriptors(10, tmp_path) == ("socket:[5]",)
    assert read_threads(12, tmp_path) == ()
    assert read_descriptors(12, tmp_path) is None
