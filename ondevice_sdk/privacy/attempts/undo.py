"""Taking the seal off again, or answering in the app's place."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct

from ondevice_sdk.privacy.attempts import raw
from ondevice_sdk.privacy.attempts.attempt import Group, Outcome, Reach

GROUP = Group("undo")
_GET_DUMPABLE, _SET_DUMPABLE, _SET_SECCOMP, _SET_NO_NEW_PRIVILEGES, _SET_PTRACER = 3, 4, 22, 38, 0x59616D61
_FILTER_MODE = 2
_ALLOW_ALL = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
_ID_VALID = 0x40082102  # SECCOMP_IOCTL_NOTIF_ID_VALID


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _prctl(option: int, *words: int | ctypes.Structure) -> int:
    return raw.call("prctl", option, *words, *[0] * (4 - len(words)))


@GROUP()
def undo_dumpable(reach: Reach) -> Outcome:
    """Let other processes read its memory again, and core files be written."""
    _prctl(_SET_DUMPABLE, 1)
    return _prctl(_GET_DUMPABLE) == 1


@GROUP()
def dumpable_high_bits(reach: Reach) -> Outcome:
    """The same, with a bit in the request that the kernel does not look at."""
    _prctl(_SET_DUMPABLE | raw.HIGH, 1)
    return _prctl(_GET_DUMPABLE) == 1


@GROUP()
def change_user(reach: Reach) -> Outcome:
    """Become another user, past whom the limits of this one do not reach."""
    os.setresuid(-1, 65534, -1)
    return os.geteuid() == 65534 != os.getuid()


@GROUP()
def undo_nnp(reach: Reach) -> Outcome:
    """Let programs with more privileges be started again."""
    _prctl(_SET_NO_NEW_PRIVILEGES, 0)
    return True


@GROUP()
def stack_filter(reach: Reach) -> Outcome:
    """Another filter on top, which could answer calls in the place of the kernel."""
    _prctl(_SET_NO_NEW_PRIVILEGES, 1)
    return raw.call("seccomp", 1, 0, _Program(1, _ALLOW_ALL)) == 0


@GROUP()
def stack_filter_prctl(reach: Reach) -> Outcome:
    """The same by the older call."""
    _prctl(_SET_NO_NEW_PRIVILEGES, 1)
    return _prctl(_SET_SECCOMP, _FILTER_MODE, _Program(1, _ALLOW_ALL)) == 0


@GROUP()
def allow_tracer(reach: Reach) -> Outcome:
    """Invite a process to debug this one."""
    try:
        return _prctl(_SET_PTRACER, reach.victim.pid) == 0
    except OSError as error:
        if error.errno == errno.EINVAL:  # a kernel without Yama has no such door
            return False
        raise


@GROUP()
def own_listener_left(reach: Reach) -> Outcome:
    """A descriptor left over with which the worker could answer its own refused calls."""
    library = raw.libc()
    for descriptor in range(1024):
        if library.ioctl(descriptor, ctypes.c_ulong(_ID_VALID), ctypes.c_char_p(bytes(8))) == 0:
            return True
        if ctypes.get_errno() == errno.ENOENT:  # it is one, and knows no such call
            return True
    return False


@GROUP()
def regain_caps(reach: Reach) -> Outcome:
    """Privileges of the administrator, taken back."""
    header = struct.pack("=Ii", 0x20080522, 0)
    held = ctypes.create_string_buffer(24)
    raw.call("capget", header, held)
    (inheritable,) = struct.unpack_from("=8xI", held)
    raw.call("capset", header, struct.pack("=6I", 1 << 21, 1 << 21, inheritable, 0, 0, 0))  # CAP_SYS_ADMIN
    return True


@GROUP()
def raise_core_limit(reach: Reach) -> Outcome:
    """Core files, which would hold the text."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, max(most, 1 << 20) if most >= 0 else most))
    return True
