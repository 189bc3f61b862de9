"""The privacy report: what is proved of one worker, and in plain words what is not protected."""

from __future__ import annotations

from typing import Final

from ondevice_sdk.privacy.evidence import Seal, Witness
from ondevice_sdk.types import Isolation, Mechanism, MechanismState, PrivacyLevel, PrivacyReport

_LIMITS_ALWAYS: Final = (
    "the app itself has the text and may use the network; nothing here watches it",
    "the administrator of this machine, or a debugger in the app, can read the text",
    "text in memory may reach swap space",
    "a model on a network file system is read through the kernel's own network",
)
_LIMIT_FILES: Final = "the worker can read and write the files that the user can: there is no filesystem sandbox yet"
_LIMIT_PROCESSES: Final = "the worker can start copies of itself (never other programs) and signal the user's processes"
_LIMIT_OPEN: Final = "nothing but good manners keeps the engine's libraries from the network"
_LIMIT_THREAD: Final = "the engine runs inside the app: it can do whatever the app can, and its crash ends the app"


def build(
    level: PrivacyLevel,
    isolation: Isolation,
    seal: Seal | None = None,
    witness: Witness | None = None,
    *,
    environment: frozenset[str] = frozenset(),
    offline: bool = False,
) -> PrivacyReport:
    """Say what is in force.

    Args:
        level: what was asked for.
        isolation: where the engine runs.
        seal: the worker's own account; None without a worker.
        witness: the kernel's account, read from outside.
        environment: names of the variables that the worker was given.
        offline: whether those ask libraries to stay offline.
    """
    if isolation == "thread" or seal is None or witness is None:
        names = ("seccomp network refusal", "own process", "filesystem sandbox")
        return PrivacyReport(
            level,
            isolation,
            enforced=False,
            mechanisms=tuple(Mechanism(name, "absent", "the engine runs inside the app") for name in names),
            limits=(_LIMIT_OPEN, _LIMIT_THREAD, *_LIMITS_ALWAYS),
        )
    refused = network_refused(seal, witness)
    asked = "asked for by strict privacy only"
    mechanisms = (
        _mechanism(
            "seccomp network refusal",
            refused,
            f"{len(seal.attempts)} attempts refused, filter on {len(witness.threads)} threads, "
            f"sha256 {seal.filter_sha256[:16]}",
            _why_not_refused(seal, witness) if level == "strict" else asked,
        ),
        _mechanism(
            "no new privileges",
            seal.no_new_privileges and witness.without_new_privileges,
            "set on every thread",
            "not set on every thread" if level == "strict" else asked,
        ),
        _mechanism("not dumpable", not seal.dumpable, "other processes of the user cannot read its memory", "not set"),
        _mechanism("core dumps off", seal.core_limit == 0, "core size limit 0", "core size limit above 0"),
        _mechanism("own process", True, f"process {seal.pid}", ""),
        _mechanism(
            "no inherited descriptors",
            witness.descriptors_clean,
            "pipes and the null device only",
            "others were open, or the kernel would not say",
        ),
        _mechanism(
            "scrubbed environment",
            set(seal.environment) <= environment | {"LC_CTYPE"},  # Python itself sets this one under the C locale
            f"{len(seal.environment)} variables, none inherited from the app",
            "the worker has other variables than it was given",
        ),
        _mechanism("offline variables", offline, "libraries are asked to stay offline", "not set"),
        _mechanism("filesystem sandbox", False, "", "not built yet"),
    )
    limits = (_LIMIT_FILES, _LIMIT_PROCESSES if refused else _LIMIT_OPEN, *_LIMITS_ALWAYS)
    return PrivacyReport(level, isolation, enforced=refused, mechanisms=mechanisms, limits=limits)


def network_refused(seal: Seal, witness: Witness) -> bool:
    """Whether both accounts agree that no thread of the worker can open a connection."""
    return (bool(seal.attempts) and all(refused for _, refused in seal.attempts) and bool(seal.filter_sha256)) and (
        witness.filtered and witness.descriptors_clean
    )


def shortcomings(seal: Seal, witness: Witness, pid: int) -> tuple[str, ...]:
    """What a strict worker lacks, in words; empty if it may be trusted with text.

    Args:
        seal: its account.
        witness: the kernel's account of process `pid`.
        pid: the process that was started.
    """
    reasons = [seal.error] if seal.error else []
    if seal.pid != pid:
        reasons.append("the worker is not the process that was started")
    if not network_refused(seal, witness):
        reasons.append(_why_not_refused(seal, witness))
    if not (seal.no_new_privileges and witness.without_new_privileges):
        reasons.append("the worker could gain privileges")
    if seal.dumpable:
        reasons.append("the worker's memory could be read by other processes")
    if seal.core_limit != 0:
        reasons.append("the worker could write a core file")
    return tuple(reasons)


def _why_not_refused(seal: Seal, witness: Witness) -> str:
    if not witness.descriptors_clean:
        return "the worker's descriptors could not be seen, or were not pipes only"
    if not witness.filtered:
        return "the kernel does not report a filter on every thread"
    open_ways = [name for name, refused in seal.attempts if not refused]
    return f"not refused: {', '.join(open_ways)}" if open_ways else "the worker did not prove its filter"


def _mechanism(name: str, active: bool, proof: str, lack: str) -> Mechanism:
    state: MechanismState = "active" if active else "absent"
    return Mechanism(name, state, proof if active else lack)
