"""An app that lives under restrictions of its own: another user, a container's filter, a supervisor.

Its argument is JSON: `uid` to become, `refuse` names of calls -> errno, `listener`: to have a supervisor above it,
`path`: where modules lie. Prints what became of a strict worker.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys


def main() -> None:
    wanted = json.loads(sys.argv[1])
    sys.path += wanted["path"]
    if wanted.get("uid"):
        os.setgroups([])
        os.setgid(wanted["uid"])
        os.setuid(wanted["uid"])

    from ondevice_sdk.errors import OnDeviceError, PrivacyUnavailable
    from ondevice_sdk.privacy.sandbox import calls, kernel
    from ondevice_sdk.privacy.sandbox.filter import ALLOW, Instruction, assemble
    from ondevice_sdk.runtime.probe_worker import run_in_worker

    machine = kernel.MACHINES[os.uname().machine]
    landlock = dict(zip(("landlock_create_ruleset", "landlock_add_rule"), calls.LANDLOCK, strict=False))
    program = [Instruction(0x20, 0, 0, 0)]
    for name, error in wanted.get("refuse", {}).items():
        number = landlock[name] if name in landlock else calls.number(name, machine.column)
        program += [Instruction(0x15, 0, 1, number), Instruction(0x06, 0, 0, 0x00050000 | error)]
    program.append(Instruction(0x06, 0, 0, ALLOW))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    request = Program(len(program), assemble(program))
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    flags = 8 if wanted.get("listener") else 0  # SECCOMP_FILTER_FLAG_NEW_LISTENER
    kernel.call(calls.number("seccomp", machine.column), 1, flags, ctypes.addressof(request))
    try:
        returned = run_in_worker("worker_functions:attempts", privacy="strict")
    except PrivacyUnavailable as error:
        print(json.dumps({"reasons": error.reasons, "hint": error.hint}))
    except OnDeviceError as error:
        print(json.dumps({"error": str(error)}))
    else:
        report = returned.report
        print(
            json.dumps(
                {
                    "value": returned.value,
                    "enforced": report.enforced,
                    "states": {m.name: m.state for m in report.mechanisms},
                    "details": {m.name: m.detail for m in report.mechanisms},
                    "limits": report.limits,
                    "rows": len(report.attempts),
                }
            )
        )


if __name__ == "__main__":
    main()
