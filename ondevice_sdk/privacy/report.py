"""The privacy report: what is proved of one worker, and in plain words what is not protected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ondevice_sdk.privacy.evidence import Seal, Witness
from ondevice_sdk.types import Isolation, JsonValue, Mechanism, MechanismState, PrivacyLevel, PrivacyReport

_LIMITS_ALWAYS: Final = (
    "the app itself has the text and may use the network; nothing here watches it",
    "the administrator of this machine, a debugger in the app, and a fault of the kernel are not kept out",
    "text in memory may reach swap space",
    "a model on a network file system is read through the kernel's own network",
    "drivers and firmware of a graphics processor are not covered",
    "timing and the use of shared caches can tell something to processes that cooperate with the worker",
)
_LIMIT_LOOKUPS: Final = (
    "the worker can learn whether a file or process exists, how large and how old a file is, where a link leads and "
    "how full a disk is, but read none of it"
)
_LIMIT_FILES: Final = "the worker can read and write the files that the user can"
_LIMIT_OPEN: Final = "nothing but good manners keeps the engine's libraries from the network"
_LIMIT_THREAD: Final = "the engine runs inside the app: it can do whatever the app can, and its crash ends the app"
_IN_THE_APP: Final = (
    "seccomp network refusal",
    "filesystem sandbox",
    "own namespaces",
    "no capabilities",
    "app out of reach",
    "no new privileges",
    "not dumpable",
    "ledger of attempts",
    "own process",
)
_ASKED: Final = "asked for by strict privacy only"


def joined(first: PrivacyReport, second: PrivacyReport) -> PrivacyReport:
    """What holds in both of two workers of one client: of each protection the weaker account."""
    others = {mechanism.name: mechanism for mechanism in second.mechanisms}
    weaker = tuple(
        other if mechanism.state == "active" and (other := others.get(mechanism.name)) is not None else mechanism
        for mechanism in first.mechanisms
        if mechanism.state != "active" or mechanism.name in others
    )
    limits = tuple(dict.fromkeys((*first.limits, *second.limits)))
    attempts = (*first.attempts, *second.attempts)
    enforced = first.enforced and second.enforced
    return PrivacyReport(first.level, first.isolation, enforced, weaker, limits, attempts)


def build(
    level: PrivacyLevel,
    isolation: Isolation,
    seal: Seal | None = None,
    witness: Witness | None = None,
    *,
    environment: frozenset[str] = frozenset(),
    offline: bool = False,
    attempts: tuple[Mapping[str, JsonValue], ...] = (),
    libraries: Mapping[str, tuple[str, ...]] | None = None,
) -> PrivacyReport:
    """Say what is in force.

    Args:
        level: what was asked for.
        isolation: where the engine runs.
        seal: the worker's own account; None without a worker.
        witness: the kernel's account, read from outside.
        environment: names of the variables that the worker was given.
        offline: whether those ask libraries to stay offline.
        attempts: the rows of the ledger.
        libraries: the engine's native libraries, with what they import of sockets and programs; None where they could
            not be seen.
    """
    if isolation == "thread" or seal is None or witness is None:
        return PrivacyReport(
            level,
            isolation,
            enforced=False,
            mechanisms=tuple(Mechanism(name, "absent", "the engine runs inside the app") for name in _IN_THE_APP),
            limits=(_LIMIT_OPEN, _LIMIT_THREAD, *_LIMITS_ALWAYS),
        )
    refused = network_refused(seal, witness)
    mechanisms = (
        *(_layers(seal, witness) if level == "strict" else _no_layers()),
        _mechanism("not dumpable", not seal.dumpable, "other processes of the user cannot read its memory", "not set"),
        _mechanism("core dumps off", seal.core_limit == 0, "core size limit 0", "core size limit above 0"),
        _mechanism("own process", True, f"process {seal.pid}", ""),
        _mechanism(
            "no inherited descriptors",
            witness.descriptors_clean,
            "pipes and the null device only, no socket",
            "others were open, or the kernel would not say",
        ),
        _mechanism(
            "scrubbed environment",
            set(seal.environment) <= environment | {"LC_CTYPE"},  # Python itself sets this one under the C locale
            f"{len(seal.environment)} variables, none inherited from the app but names of devices",
            "the worker has other variables than it was given",
        ),
        _mechanism("offline variables", offline, "libraries are asked to stay offline", "not set"),
        _of_libraries(libraries),
    )
    files = _LIMIT_LOOKUPS if files_refused(seal) else _LIMIT_FILES
    limits = (files, *(() if refused else (_LIMIT_OPEN,)), *_LIMITS_ALWAYS)
    return PrivacyReport(level, isolation, refused, mechanisms, limits, tuple(attempts))


def _layers(seal: Seal, witness: Witness) -> tuple[Mechanism, ...]:
    reach = _what_keeps_apart(seal, witness)
    return (
        _mechanism(
            "seccomp network refusal",
            network_refused(seal, witness),
            f"{len(seal.attempts)} attempts refused, filter on {len(witness.threads)} threads, "
            f"sha256 {witness.filter_sha256[:16]}",
            _why_not_refused(seal, witness),
        ),
        _optional(
            "filter read back",
            witness.read_back,
            "the kernel shows exactly the filters of this package",
            "the kernel shows other filters",
            "the kernel shows filters only to the administrator, outside of containers",
        ),
        _optional(
            "ledger of attempts",
            seal.told or None,
            "the kernel reports every refused call",
            "",
            seal.told_lack,
        ),
        _optional(
            "filesystem sandbox",
            files_refused(seal) if seal.landlock else None,
            f"Landlock version {seal.landlock}: reads Python, modules and the model, writes its own directory",
            "Landlock let through what it should refuse",
            f"no Landlock: {seal.landlock_lack}",
        ),
        _optional(
            "own namespaces",
            {"user", "net", "ipc"} <= set(witness.namespaces) or None,
            "user, net, ipc",
            "",
            seal.namespaces_lack or "the kernel would not say",
        ),
        _mechanism(
            "no capabilities",
            witness.without_capabilities,
            "none on any thread" + (", and none to be had" if witness.bounding_empty else ""),
            "some thread has a capability",
        ),
        _mechanism("app out of reach", seal.app_out_of_reach and bool(reach), ", ".join(reach), _NOT_APART),
        _mechanism(
            "no new privileges",
            seal.no_new_privileges and witness.without_new_privileges,
            "set on every thread",
            "not set on every thread",
        ),
    )


def _no_layers() -> tuple[Mechanism, ...]:
    names = (name for name in _IN_THE_APP if name not in ("not dumpable", "own process"))
    return tuple(Mechanism(name, "absent", _ASKED) for name in names)


_NOT_APART: Final = (
    "nothing keeps the worker from the memory of the app: there is no Landlock, no user namespace, no Yama; "
    "enable one (lsm=landlock, kernel.unprivileged_userns_clone=1 or kernel.yama.ptrace_scope=1)"
)


def _what_keeps_apart(seal: Seal, witness: Witness) -> tuple[str, ...]:
    layers = {
        "Landlock": files_refused(seal),
        "user namespace": "user" in witness.namespaces,
        "Yama": witness.yama >= 1,
        "no capabilities under a privileged app": witness.app_privileged and witness.without_capabilities,
    }
    return tuple(name for name, there in layers.items() if there)


def files_refused(seal: Seal) -> bool:
    """Whether files outside of the allowed ones were refused."""
    return seal.landlock >= 1 and bool(seal.files) and all(refused for _, refused in seal.files)


def network_refused(seal: Seal, witness: Witness) -> bool:
    """Whether both accounts agree that no thread of the worker can open a connection."""
    return (
        bool(seal.attempts)
        and all(refused for _, refused in seal.attempts)
        and witness.filtered
        and witness.descriptors_clean
        and witness.read_back is not False
    )


def shortcomings(seal: Seal, witness: Witness, pid: int) -> tuple[str, ...]:
    """What a strict worker lacks, in words; empty if it may be trusted with text.

    Args:
        seal: its account.
        witness: the kernel's account of process `pid`.
        pid: the process that was started.
    """
    reasons = [error for error in (seal.error, seal.hiding_error) if error]
    if seal.pid != pid:
        reasons.append("the worker is not the process that was started")
    if not network_refused(seal, witness):
        reasons.append(_why_not_refused(seal, witness))
    if not (seal.app_out_of_reach and _what_keeps_apart(seal, witness)):
        reasons.append(_NOT_APART)
    if seal.landlock and not files_refused(seal):
        reasons.append("Landlock let through what it should refuse")
    if not witness.without_capabilities:
        reasons.append("the worker has capabilities")
    if not (seal.no_new_privileges and witness.without_new_privileges):
        reasons.append("the worker could gain privileges")
    if seal.dumpable:
        reasons.append("the worker's memory could be read by other processes")
    if seal.core_limit != 0:
        reasons.append("the worker could write a core file")
    return tuple(reasons)


def _why_not_refused(seal: Seal, witness: Witness) -> str:
    if not witness.filtered:
        return "the kernel does not report a filter on every thread"
    if not witness.descriptors_clean:
        return "the worker's descriptors could not be seen, or were not pipes only"
    if witness.read_back is False:
        return "the kernel shows other filters than those of this package"
    open_ways = [name for name, refused in seal.attempts if not refused]
    return f"not refused: {', '.join(open_ways)}" if open_ways else "the worker did not prove its filter"


def _of_libraries(libraries: Mapping[str, tuple[str, ...]] | None) -> Mechanism:
    name = "engine libraries without sockets"
    if libraries is None:
        return Mechanism(name, "not_available", "the kernel hides the worker's libraries from other processes")
    if not libraries:
        return Mechanism(name, "not_available", "no native library is loaded yet")
    able = {library: symbols for library, symbols in libraries.items() if symbols}
    words = "; ".join(f"{library} imports {', '.join(symbols)}" for library, symbols in sorted(able.items()))
    return _mechanism(name, not able, f"{len(libraries)} libraries import no call for sockets or programs", words)


def _mechanism(name: str, active: bool, proof: str, lack: str) -> Mechanism:
    state: MechanismState = "active" if active else "absent"
    return Mechanism(name, state, proof if active else lack)


def _optional(name: str, active: bool | None, proof: str, lack: str, reason: str) -> Mechanism:
    return Mechanism(name, "not_available", reason) if active is None else _mechanism(name, active, proof, lack)
