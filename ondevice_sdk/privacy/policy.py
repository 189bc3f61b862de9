"""Whether this system can enforce a privacy level, found out before anything is started."""

from __future__ import annotations

import sys
from pathlib import Path

from ondevice_sdk.errors import PrivacyUnavailable
from ondevice_sdk.types import PrivacyLevel

HINT = 'run on Linux (x86_64 or aarch64), or accept less: privacy="guarded" is not enforced by the system'
_ACTIONS = Path("/proc/sys/kernel/seccomp/actions_avail")


def obstacles(*, system: str, machine: str | None, seccomp: bool, actions: str | None, proc: bool) -> tuple[str, ...]:
    """Why the network cannot be refused by the kernel, in words; empty if it can. Pure.

    Args:
        system: as `sys.platform`.
        machine: the machine if the filter knows it.
        seccomp: whether the kernel has it.
        actions: what the kernel lists as seccomp actions, None where it lists none (before Linux 4.14).
        proc: whether /proc can be read, without which nothing can be verified.
    """
    if system != "linux":
        return (f"the network refusal is written for Linux; this is {system}",)
    reasons = []
    if machine is None:
        reasons.append("no system-call filter for this machine")
    if not seccomp or (actions is not None and "errno" not in actions.split()):
        reasons.append("this kernel has no seccomp filters")
    if not proc:
        reasons.append("/proc cannot be read, so the worker's seal cannot be verified")
    return tuple(reasons)


def check_available(level: PrivacyLevel) -> None:
    """Refuse early what cannot be enforced; takes well under a millisecond.

    Raises:
        PrivacyUnavailable: the level is strict and this system cannot enforce it.
    """
    if level != "strict":
        return
    if sys.platform == "linux":
        from ondevice_sdk.privacy.sandbox import kernel, seccomp  # needs `os.uname`

        try:
            actions = _ACTIONS.read_text()
        except OSError:
            actions = None
        reasons = obstacles(
            system=sys.platform,
            machine=kernel.machine(),
            seccomp=seccomp.available(),
            actions=actions,
            proc=Path("/proc/self/status").exists(),
        )
    else:
        reasons = obstacles(system=sys.platform, machine=None, seccomp=False, actions=None, proc=False)
    if reasons:
        raise PrivacyUnavailable("strict privacy cannot be enforced here", reasons=reasons, hint=HINT)
