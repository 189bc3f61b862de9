"""Other programs and processes, which might not be watched."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from ondevice_sdk.privacy.attempts import raw
from ondevice_sdk.privacy.attempts.attempt import Group, Outcome, Reach

GROUP = Group("execute")
_NEW_USER = 0x10000000  # CLONE_NEWUSER
_NEW_NET = 0x40000000  # CLONE_NEWNET
_CHILD_ENDED = 17  # SIGCHLD
_SHELL = "/bin/sh"


def _connect(reach: Reach) -> None:
    with socket.create_connection(("127.0.0.1", reach.tcp4), 2) as sock:
        sock.sendall(reach.message)


def _program(reach: Reach) -> list[str]:
    """A Python program that delivers the token."""
    code = f"import socket; s = socket.create_connection(('127.0.0.1', {reach.tcp4}), 2); s.sendall({reach.message!r})"
    return [sys.executable, "-I", "-S", "-c", code]


def _in_child(reach: Reach, child: int) -> Outcome:
    if child == 0:
        try:
            _connect(reach)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return True  # a second process is an escape by itself


@GROUP("contact")
def subprocess_curl(reach: Reach) -> Outcome:
    """A request by a program made for it."""
    curl = next((path for path in ("/usr/bin/curl", "/usr/local/bin/curl") if os.path.exists(path)), None)
    url = f"http://127.0.0.1:{reach.tcp4}/{reach.token}"
    subprocess.run(
        [curl, "-s", "-m", "1", url] if curl else _program(reach), check=False, timeout=8, stdout=subprocess.DEVNULL
    )
    return None


@GROUP()
def os_system(reach: Reach) -> Outcome:
    """A command of the shell."""
    return os.waitstatus_to_exitcode(os.system("exit 7")) == 7  # noqa: S605 - fixed text


@GROUP("contact")
def fork_socket(reach: Reach) -> Outcome:
    """A copy of this process that connects."""
    return _in_child(reach, os.fork())


@GROUP("contact")
def raw_clone_socket(reach: Reach) -> Outcome:
    """A copy made by the bare system call, past the C library's hooks."""
    return _in_child(reach, raw.call("clone", _CHILD_ENDED, 0, 0, 0, 0))


@GROUP("contact")
def clone_high_bits(reach: Reach) -> Outcome:
    """The same, with a bit in the flags that the kernel does not look at."""
    return _in_child(reach, raw.call("clone", _CHILD_ENDED | raw.HIGH << 8, 0, 0, 0, 0))


@GROUP("contact")
def clone3_socket(reach: Reach) -> Outcome:
    """A copy made by the call whose flags no filter can read."""
    arguments = bytearray(88)
    arguments[32:40] = _CHILD_ENDED.to_bytes(8, sys.byteorder)  # exit_signal
    return _in_child(reach, raw.call("clone3", bytes(arguments), len(arguments)))


@GROUP()
def posix_spawn(reach: Reach) -> Outcome:
    """A program by posix_spawn."""
    child = os.posix_spawn(_SHELL, [_SHELL, "-c", "exit 7"], {})
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@GROUP("contact")
def become_program(reach: Reach) -> Outcome:
    """This process becomes another program, which connects."""
    command = _program(reach)
    os.execv(command[0], command)  # noqa: S606 - the attempt


@GROUP("file")
def memfd_exec(reach: Reach) -> Outcome:
    """This process becomes a program that lies in memory only."""
    descriptor = os.memfd_create("program", 0)
    with open(os.path.realpath(_SHELL), "rb") as file:
        os.write(descriptor, file.read())
    os.execve(descriptor, [_SHELL, "-c", f"echo out > '{reach.outside}/executed'"], {})  # noqa: S606 - the attempt


@GROUP()
def clone_newnet_user(reach: Reach) -> Outcome:
    """Namespaces of its own, in which it has every capability and the whole kernel to attack."""
    raw.call("unshare", _NEW_USER | _NEW_NET)
    return True


@GROUP()
def setns_parent_net(reach: Reach) -> Outcome:
    """Back into the app's network namespace."""
    try:
        descriptor = raw.call("pidfd_open", reach.victim.pid, 0)
    except OSError:
        descriptor = os.open(f"/proc/{reach.victim.pid}/ns/net", os.O_RDONLY)
    raw.call("setns", descriptor, _NEW_NET)
    return True
