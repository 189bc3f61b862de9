"""A network namespace in which every address is this machine's own, so that whatever is sent arrives and is seen.

Routes of the type `local` for all addresses lead to the loopback interface: packets to anywhere go through it, and none
can leave. Sources: network_namespaces(7), netdevice(7), rtnetlink(7).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import tempfile
from pathlib import Path
from typing import Final

RESOLVER: Final = "192.0.2.53"  # an address for documentation (RFC 5737); here our answerer listens on it
_NEW_NS, _NEW_USER, _NEW_NET = 0x00020000, 0x10000000, 0x40000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_SIOCSIFFLAGS, _UP = 0x8914, 0x49  # up, loopback, running
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_CREATE = 0x1, 0x4, 0x400
_RTM_NEWROUTE, _RTA_OIF = 24, 4
_TABLE_LOCAL, _BY_ADMINISTRATOR, _SCOPE_HOST, _TYPE_LOCAL = 255, 4, 254, 2
_LOOKED_UP: Final = {  # who else could answer for a name: other files, and sockets of the machine's own resolvers
    "/etc/resolv.conf": f"nameserver {RESOLVER}\noptions timeout:30 attempts:2\n",
    "/etc/nsswitch.conf": "hosts: files dns\n",
    "/run/nscd/socket": "",
    "/run/systemd/resolve/io.systemd.Resolve": "",
    "/run/avahi-daemon/socket": "",
}


class Unavailable(Exception):
    """This system does not give us a network namespace; the message says why."""


def enter() -> bool:
    """Take this process and its later children into the namespace; whether it has IPv6. Needs to have one thread.

    Raises:
        Unavailable: the system refuses.
    """
    user, group = os.getuid(), os.getgid()
    try:
        _unshare(_NEW_NS | _NEW_NET)
    except OSError:
        try:
            _unshare(_NEW_USER | _NEW_NS | _NEW_NET)
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")  # the same user, with no privilege after an exec
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        except OSError as error:
            raise Unavailable(f"no network namespace, neither directly nor with user namespaces: {error}") from error
    try:
        _raise_loopback()
        _route_everything(socket.AF_INET)
        _own_names()
        try:
            _route_everything(socket.AF_INET6)
        except OSError:  # switched off in this system
            return False
        return True
    except OSError as error:
        raise Unavailable(f"the network namespace cannot be set up: {error}") from error


def _unshare(flags: int) -> None:
    _check(ctypes.CDLL(None, use_errno=True).unshare(flags))


def _check(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _UP))


def _route_everything(family: int) -> None:
    """As `ip route add local default dev lo`."""
    route = struct.pack("=8BI", family, 0, 0, 0, _TABLE_LOCAL, _BY_ADMINISTRATOR, _SCOPE_HOST, _TYPE_LOCAL, 0)
    attribute = struct.pack("=HHI", 8, _RTA_OIF, socket.if_nametoindex("lo"))
    body = route + attribute
    flags = _NLM_F_REQUEST | _NLM_F_ACK | _NLM_F_CREATE
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.send(struct.pack("=IHHII", 16 + len(body), _RTM_NEWROUTE, flags, 1, 0) + body)
        (code,) = struct.unpack_from("=i", sock.recv(4096), 16)  # NLMSG_ERROR; 0 is its way to say yes
    if code:
        raise OSError(-code, os.strerror(-code))


def _own_names() -> None:
    """Have names looked up with our answerer only: a mount over each file and socket that says otherwise."""
    _mount(None, "/", _MS_REC | _MS_PRIVATE)
    with tempfile.TemporaryDirectory() as folder:
        for number, (path, text) in enumerate(_LOOKED_UP.items()):
            if os.path.exists(path):  # noqa: PTH110 - pathlib raises where a folder cannot be read
                source = Path(folder, str(number))
                source.write_text(text)
                source.chmod(0o644)
                _mount(str(source), os.path.realpath(path), _MS_BIND)


def _mount(source: str | None, target: str, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.mount(os.fsencode(source) if source else None, os.fsencode(target), None, ctypes.c_ulong(flags), None))
