"""Other processes of the user, above all the app (a victim of our own stands in for it), and what they share."""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import socket
import struct
import termios
from collections.abc import Callable

from ondevice_sdk.privacy.attempts import raw
from ondevice_sdk.privacy.attempts.attempt import Group, Outcome, Reach, Untestable

GROUP = Group("process")
_SET_OWNER_EX, _SET_SIGNAL = 15, 10  # F_SETOWN_EX, F_SETSIG
_PEEK, _POKE, _ATTACH, _DETACH, _SEIZE, _INTERRUPT = 2, 5, 16, 17, 0x4206, 0x4207


def _trace(reach: Reach, request: int) -> None:
    """Stop the victim, write a word of the token into it, let it go."""
    pid = reach.victim.pid
    raw.call("ptrace", request, pid, 0, 0)
    try:
        if request == _SEIZE:
            raw.call("ptrace", _INTERRUPT, pid, 0, 0)
        os.waitpid(pid, 0)
        (word,) = struct.unpack("=q", reach.message[-9:-1])
        raw.call("ptrace", _POKE, pid, reach.victim.canary_address, word)
    finally:
        raw.call("ptrace", _DETACH, pid, 0, 0)


@GROUP("victim")
def ptrace_host(reach: Reach) -> Outcome:
    """Debug the app: stop it and change its memory."""
    _trace(reach, _ATTACH)
    return None


@GROUP("victim")
def ptrace_seize(reach: Reach) -> Outcome:
    """The same by the other way to attach."""
    _trace(reach, _SEIZE)
    return None


@GROUP("victim")
def vm_write_host(reach: Reach) -> Outcome:
    """Write into the app's memory."""
    text = ctypes.create_string_buffer(reach.token.encode()[: reach.victim.size], reach.victim.size)
    here = raw.iovec([(ctypes.addressof(text), 16)])
    there = raw.iovec([(reach.victim.canary_address, 16)])
    raw.call("process_vm_writev", reach.victim.pid, here, 1, there, 1, 0)
    return None


@GROUP("content")
def vm_read_host(reach: Reach) -> Outcome:
    """Read the app's memory."""
    size = reach.victim.size
    text = ctypes.create_string_buffer(size)
    here, there = raw.iovec([(ctypes.addressof(text), size)]), raw.iovec([(reach.victim.secret_address, size)])
    raw.call("process_vm_readv", reach.victim.pid, here, 1, there, 1, 0)
    return text.raw


@GROUP("victim", layer="landlock")
def proc_mem_host(reach: Reach) -> Outcome:
    """Write into the app's memory through /proc."""
    descriptor = os.open(f"/proc/{reach.victim.pid}/mem", os.O_RDWR)
    os.pwrite(descriptor, reach.token.encode()[:16], reach.victim.canary_address)
    os.close(descriptor)
    return None


@GROUP("content", layer="landlock")
def proc_environ_host(reach: Reach) -> Outcome:
    """The app's environment variables, where keys lie."""
    return raw.read(f"/proc/{reach.victim.pid}/environ")


@GROUP("content", layer="landlock")
def proc_cmdline_host(reach: Reach) -> Outcome:
    """The command line of another process."""
    return raw.read(f"/proc/{reach.victim.pid}/cmdline")


@GROUP("content", layer="landlock")
def proc_climb(reach: Reach) -> Outcome:
    """The app's environment, on a path that begins in this process's own directory."""
    return raw.read(f"/proc/self/../{reach.victim.pid}/environ")


@GROUP("content", layer="landlock")
def proc_fd_host(reach: Reach) -> Outcome:
    """A file that the app has open, through /proc."""
    return raw.read(f"/proc/{reach.victim.pid}/fd/{reach.victim.file}")


@GROUP("victim", layer="landlock")
def oom_score_host(reach: Reach) -> Outcome:
    """Have the kernel rather kill the app than this worker."""
    with open(f"/proc/{reach.victim.pid}/oom_score_adj", "w", encoding="ascii") as file:
        file.write("777")
    return None


@GROUP("contact")
def pidfd_getfd(reach: Reach) -> Outcome:
    """Take over a connection of the app."""
    process = raw.call("pidfd_open", reach.victim.pid, 0)
    descriptor = raw.call("pidfd_getfd", process, reach.victim.socket, 0)
    os.write(descriptor, reach.message)
    return None


@GROUP("victim")
def kill_host(reach: Reach) -> Outcome:
    """A signal to the app."""
    os.kill(reach.victim.pid, signal.SIGUSR1)
    return None


@GROUP("victim")
def pidfd_signal(reach: Reach) -> Outcome:
    """A signal by process descriptor."""
    signal.pidfd_send_signal(raw.call("pidfd_open", reach.victim.pid, 0), signal.SIGUSR1)
    return None


@GROUP("victim")
def queue_signal(reach: Reach) -> Outcome:
    """A signal that carries a word of data."""
    info = struct.pack("=iii4xiiQ", signal.SIGUSR1, 0, -1, os.getpid(), os.getuid(), 7).ljust(128, b"\0")
    raw.call("rt_sigqueueinfo", reach.victim.pid, signal.SIGUSR1, info)
    return None


@GROUP("victim")
def owner_signal(reach: Reach) -> Outcome:
    """A signal that the kernel sends on behalf of a pipe, made the app's by fcntl."""
    owner = struct.pack("=ii", 1, reach.victim.pid)  # F_OWNER_PID
    _signal_by_pipe(lambda reader: fcntl.fcntl(reader, _SET_OWNER_EX, owner))
    return None


def _signal_by_pipe(own: Callable[[int], object]) -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    try:
        own(reader)
        fcntl.fcntl(reader, _SET_SIGNAL, signal.SIGUSR1)
        fcntl.fcntl(reader, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
        os.write(writer, b"x")
    finally:
        os.close(reader)
        os.close(writer)


@GROUP("victim")
def owner_signal_old(reach: Reach) -> Outcome:
    """The same by the older of the two requests."""
    _signal_by_pipe(lambda reader: fcntl.fcntl(reader, fcntl.F_SETOWN, reach.victim.pid))
    return None


@GROUP("victim")
def owner_signal_high_bits(reach: Reach) -> Outcome:
    """The same, with a bit in the request that the kernel does not look at."""
    owner = struct.pack("=ii", 1, reach.victim.pid)
    _signal_by_pipe(lambda reader: raw.call("fcntl", reader, _SET_OWNER_EX | raw.HIGH, owner))
    return None


@GROUP("victim")
def kill_group(reach: Reach) -> Outcome:
    """A signal to the app's whole group of processes."""
    os.killpg(reach.victim.pid, signal.SIGUSR1)
    return None


@GROUP("victim")
def kill_high_bits(reach: Reach) -> Outcome:
    """A signal, with a bit in the number of the process that the kernel does not look at."""
    raw.call("kill", reach.victim.pid | raw.HIGH, signal.SIGUSR1)
    return None


@GROUP("victim")
def thread_signal(reach: Reach) -> Outcome:
    """A signal to one thread of the app."""
    raw.call("tgkill", reach.victim.pid, reach.victim.pid, signal.SIGUSR1)
    return None


@GROUP("victim")
def prlimit_high_bits(reach: Reach) -> Outcome:
    """The limits of another process, with a bit in its number that the kernel does not look at."""
    limit = struct.pack("=2Q", 65, resource.prlimit(0, resource.RLIMIT_NOFILE)[1])
    raw.call("prlimit64", reach.victim.pid | raw.HIGH, resource.RLIMIT_NOFILE, limit, None)
    return None


@GROUP()
def process_lookup(reach: Reach) -> Outcome:
    """Whether a process exists, and in which group it is."""
    return os.getpgid(reach.victim.pid) > 0


@GROUP("victim")
def prlimit_host(reach: Reach) -> Outcome:
    """The limits of another process."""
    _, most = resource.prlimit(reach.victim.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(reach.victim.pid, resource.RLIMIT_NOFILE, (63, most))
    return None


@GROUP("victim")
def priority_host(reach: Reach) -> Outcome:
    """The priority of another process."""
    os.setpriority(os.PRIO_PROCESS, reach.victim.pid, 19)
    return None


@GROUP("victim")
def affinity_host(reach: Reach) -> Outcome:
    """The cores of another process."""
    if len(os.sched_getaffinity(0)) < 2:
        raise Untestable("one core only")
    os.sched_setaffinity(reach.victim.pid, {min(os.sched_getaffinity(0))})
    return None


@GROUP("victim")
def scheduler_host(reach: Reach) -> Outcome:
    """The scheduling class of another process."""
    os.sched_setscheduler(reach.victim.pid, os.SCHED_IDLE, os.sched_param(0))
    return None


@GROUP()
def kcmp_host(reach: Reach) -> Outcome:
    """Compare kernel objects with those of another process, which tells where they lie."""
    return raw.call("kcmp", os.getpid(), reach.victim.pid, 0, 0, 0) >= 0


@GROUP()
def move_pages_host(reach: Reach) -> Outcome:
    """Look at, and move, the memory pages of another process."""
    status = ctypes.create_string_buffer(4)
    pages = struct.pack("=Q", reach.victim.canary_address & ~4095)
    return raw.call("move_pages", reach.victim.pid, 1, pages, None, status, 0) >= 0


@GROUP("object")
def sysv_shm(reach: Reach) -> Outcome:
    """A shared memory segment with the token in it."""
    segment = raw.call("shmget", reach.key, 4096, 0o1600)
    attach = raw.libc().shmat
    attach.restype = ctypes.c_void_p
    address = attach(segment, None, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "shmat")
    ctypes.memmove(address, reach.message, len(reach.message))
    return None


@GROUP("object")
def sysv_message(reach: Reach) -> Outcome:
    """A message queue of System V."""
    queue = raw.call("msgget", reach.key, 0o1600)
    raw.call("msgsnd", queue, struct.pack("=q", 1) + reach.message, len(reach.message), 0)
    return None


@GROUP("object")
def sysv_semaphore(reach: Reach) -> Outcome:
    """A set of semaphores, whose values others read."""
    raw.call("semget", reach.key, 1, 0o1600)
    return None


@GROUP("object")
def posix_mq(reach: Reach) -> Outcome:
    """A POSIX message queue."""
    create = os.O_CREAT | os.O_RDWR | os.O_NONBLOCK
    attributes = struct.pack("=8q", 0, 1, 128, 0, 0, 0, 0, 0)
    queue = raw.call("mq_open", f"ondevice-{reach.token}".encode(), create, 0o600, attributes)
    raw.call("mq_timedsend", queue, reach.message, len(reach.message), 0, None)
    return None


@GROUP("object", layer="landlock")
def dev_shm_file(reach: Reach) -> Outcome:
    """A file in shared memory."""
    with open(f"/dev/shm/ondevice-{reach.token}", "xb") as file:  # noqa: S108
        file.write(reach.message)
    return None


def _type(reach: Reach, request: int) -> None:
    if not reach.terminal:
        raise Untestable("no pseudo terminal")
    descriptor = os.open(reach.terminal, os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)
    library = ctypes.CDLL(None, use_errno=True)
    if library.ioctl(ctypes.c_int(descriptor), ctypes.c_ulong(request), ctypes.c_char_p(b"!")) != 0:
        raise OSError(ctypes.get_errno(), "TIOCSTI")


@GROUP("terminal", layer="landlock")
def tty_TIOCSTI(reach: Reach) -> Outcome:  # noqa: N802 - the name of the request
    """Type into the user's terminal, as if the user did."""
    _type(reach, termios.TIOCSTI)
    return None


@GROUP("terminal", layer="landlock")
def tty_TIOCSTI_highbits(reach: Reach) -> Outcome:  # noqa: N802 - see above
    """The same, with a bit in the request that the kernel does not look at."""
    _type(reach, termios.TIOCSTI | raw.HIGH)
    return None


@GROUP()
def own_terminal(reach: Reach) -> Outcome:
    """A terminal of its own, through which another process could read along."""
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
    os.close(master)
    return True


@GROUP()
def descriptor_passing(reach: Reach) -> Outcome:
    """Pass a descriptor on over a pair of sockets."""
    one, other = socket.socketpair()
    with one, other:
        socket.send_fds(one, [b"x"], [one.fileno()])
        _, received, _, _ = socket.recv_fds(other, 1, 1)
        for descriptor in received:
            os.close(descriptor)
        return bool(received)
