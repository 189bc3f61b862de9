"""Doors into the kernel: what is behind them can do anything, and new faults are found there every month."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct

from ondevice_sdk.privacy.attempts import raw
from ondevice_sdk.privacy.attempts.attempt import Group, Outcome, Reach, Untestable

GROUP = Group("kernel")
_NEW_NS, _NEW_USER, _NEW_NET = 0x20000, 0x10000000, 0x40000000
_HERE = -100 & 0xFFFFFFFF  # AT_FDCWD


def _own_namespace(kinds: int) -> bool:
    """Make namespaces that end with this process; whether that worked."""
    for flags in (kinds, kinds | _NEW_USER):
        with contextlib.suppress(OSError):
            raw.call("unshare", flags)
            return True
    return False


@GROUP()
def bpf(reach: Reach) -> Outcome:
    """A map, then a program, for the kernel's own machine."""
    descriptor = raw.call("bpf", 0, struct.pack("=5I", 2, 4, 8, 1, 0).ljust(72, b"\0"), 72)  # BPF_MAP_CREATE, array
    os.close(descriptor)
    return True


@GROUP()
def perf_event(reach: Reach) -> Outcome:
    """Counters of the processor, by which other processes can be watched."""
    attributes = struct.pack("=IIQQQQQ", 1, 112, 1, 0, 0, 0, 0x61).ljust(112, b"\0")  # task clock, user mode only
    descriptor = raw.call("perf_event_open", attributes, 0, -1, -1, 0)
    os.close(descriptor)
    return True


@GROUP()
def userfaultfd(reach: Reach) -> Outcome:
    """Stop the kernel at a chosen moment: the tool of most kernel exploits."""
    os.close(raw.call("userfaultfd", 0x80000 | 1))  # UFFD_USER_MODE_ONLY
    return True


@GROUP()
def keyctl(reach: Reach) -> Outcome:
    """The kernel's key store, which outlives processes."""
    return raw.call("add_key", b"user", b"ondevice", reach.message, len(reach.message), -2) > 0  # process keyring


@GROUP()
def mount_nfs_like(reach: Reach) -> Outcome:
    """A file system of its own; unsandboxed in a mount namespace that ends with the process."""
    place = os.path.join(os.environ["HOME"], "mounted")
    os.mkdir(place)
    try:
        own = _own_namespace(_NEW_NS)
        if reach.control and not own:
            raise Untestable("no mount namespace of our own to try it in")
        if own:
            raw.call("mount", b"none", b"/", None, 0x4000 | 0x40000, None)  # MS_REC | MS_PRIVATE
        raw.call("mount", b"none", place.encode(), b"tmpfs", 0, None)
        raw.call("umount2", place.encode(), 2)
    finally:
        os.rmdir(place)
    return True


@GROUP("content")
def open_by_handle(reach: Reach) -> Outcome:
    """Open a file by its number, past every path."""
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0), 136)
    mount = ctypes.create_string_buffer(4)
    raw.call("name_to_handle_at", _HERE, reach.secret.encode(), handle, mount, 0)
    directory = os.open(os.environ["HOME"], os.O_RDONLY)
    descriptor = raw.call("open_by_handle_at", directory, handle, os.O_RDONLY)
    with open(descriptor, "rb") as file:
        return file.read()


@GROUP()
def name_to_handle(reach: Reach) -> Outcome:
    """The number of a file outside, good for the day when it may be opened."""
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0), 136)
    mount = ctypes.create_string_buffer(4)
    return raw.call("name_to_handle_at", _HERE, reach.secret.encode(), handle, mount, 0) == 0


@GROUP(full=True, layer="landlock")
def tun_device(reach: Reach) -> Outcome:
    """A network interface of its own; unsandboxed in a network namespace."""
    if not _own_namespace(_NEW_NET) and reach.control:
        raise Untestable("no network namespace of our own to try it in")
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(descriptor, 0x400454CA, struct.pack("16sH22x", b"", 0x1001))  # TUNSETIFF: tun, no packet information
    os.close(descriptor)
    return True


@GROUP(layer="landlock")
def core_pattern(reach: Reach) -> Outcome:
    """The program that the kernel starts at a crash; opened for writing, nothing written."""
    os.close(os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY))
    return True


@GROUP(layer="landlock")
def kernel_log(reach: Reach) -> Outcome:
    """A line in the kernel's log, which is often sent on; opened for writing, nothing written."""
    os.close(os.open("/dev/kmsg", os.O_WRONLY))
    return True


@GROUP()
def read_kernel_log(reach: Reach) -> Outcome:
    """The kernel's log, by system call."""
    return raw.call("syslog", 3, ctypes.create_string_buffer(4096), 4096) >= 0


@GROUP(layer="landlock")
def raw_disk(reach: Reach) -> Outcome:
    """The disk itself, past every file permission; opened, nothing read."""
    names = sorted(name for name in os.listdir("/sys/block") if not name.startswith(("loop", "ram", "zram")))
    if not names:
        raise Untestable("no disk here")
    os.close(os.open(f"/dev/{names[0]}", os.O_RDONLY | os.O_NONBLOCK))
    return True


@GROUP()
def load_module(reach: Reach) -> Outcome:
    """Code for the kernel itself; an empty file, which it refuses only after asking who we are."""
    try:
        raw.call("init_module", b"", 0, b"")
    except OSError as error:
        return error.errno in (errno.ENOEXEC, errno.EINVAL, errno.EFAULT)
    return True


@GROUP()
def watch_files(reach: Reach) -> Outcome:
    """Be told whenever something happens to files outside (inotify)."""
    descriptor = raw.call("inotify_init1", 0)
    raw.call("inotify_add_watch", descriptor, reach.outside.encode(), 0xFFF)
    os.close(descriptor)
    return True


@GROUP()
def watch_everything(reach: Reach) -> Outcome:
    """Be told of every file that anybody opens (fanotify)."""
    os.close(raw.call("fanotify_init", 0x200, os.O_RDONLY))  # FAN_REPORT_FID, which needs no privilege
    return True


@GROUP()
def change_root(reach: Reach) -> Outcome:
    """Another root directory, in which paths mean something else."""
    os.chroot(os.environ["HOME"])
    return True


@GROUP(layer="landlock")
def control_group(reach: Reach) -> Outcome:
    """A control group of its own, out of the limits of the app's."""
    place = f"/sys/fs/cgroup/ondevice-{reach.token}"
    os.mkdir(place)
    os.rmdir(place)
    return True


@GROUP()
def host_name(reach: Reach) -> Outcome:
    """The machine's name, by which text could be told to others; set to what it is."""
    name = os.uname().nodename
    socket.sethostname(name)
    return True
