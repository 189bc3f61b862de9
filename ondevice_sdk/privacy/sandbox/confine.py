"""What a process can give up by itself: namespaces, capabilities, core files, the right to gain rights.

Sources: user_namespaces(7), capabilities(7), prctl(2), core(5).
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from typing import Final, NamedTuple

from . import calls, kernel

_NEW_USER, _NEW_NET, _NEW_IPC = 0x10000000, 0x40000000, 0x08000000
_CAPABILITY_VERSION: Final = 0x20080522
_AMBIENT_CLEAR: Final = 4
_MOST_CAPABILITIES: Final = 64


def no_core_file() -> None:
    """Leave no trace of memory on the disk.

    Raises:
        OSError, ValueError: the kernel refused.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def own_namespaces() -> None:
    """A network without interfaces, and no user and no shared memory of the host. Needs a single thread.

    Raises:
        OSError: this kernel, container or distribution does not allow it.
    """
    user, group = os.getuid(), os.getgid()
    kernel.unshare(_NEW_USER | _NEW_NET | _NEW_IPC)
    try:  # keep the names of user and group; without, files look as if they were nobody's
        for name, line in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)
    except OSError:
        pass


def no_capabilities() -> None:
    """Drop all, also those that a program could gain, as far as this process may.

    Raises:
        OSError: the kernel refused to drop those it has.
    """
    machine = kernel.machine()
    assert machine is not None
    for capability in range(_MOST_CAPABILITIES):
        try:
            kernel.prctl(kernel.PR_CAPBSET_DROP, capability)
        except OSError:  # no such capability, or not privileged: then none can be gained without a program
            break
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION, 0), 8)
    nothing = ctypes.create_string_buffer(24)
    number = calls.number("capset", kernel.MACHINES[machine].column)
    kernel.call(number, ctypes.addressof(header), ctypes.addressof(nothing))  # ambient ones go with the inheritable


def no_new_privileges() -> None:
    """For good, and inherited.

    Raises:
        OSError: the kernel refused.
    """
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)


def not_dumpable() -> None:
    """No other process of the user may read this one's memory.

    Raises:
        OSError: the kernel refused.
    """
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)


class State(NamedTuple):
    """What the kernel says of this process."""

    no_new_privileges: bool
    dumpable: bool
    core_limit: int  # bytes; -1: none


def state() -> State:
    """Ask the kernel what is in force now; nothing is where it cannot be asked."""
    core = max(resource.getrlimit(resource.RLIMIT_CORE))
    try:
        return State(kernel.prctl(kernel.PR_GET_NO_NEW_PRIVS) == 1, kernel.prctl(kernel.PR_GET_DUMPABLE) != 0, core)
    except OSError:
        return State(no_new_privileges=False, dumpable=True, core_limit=core)
