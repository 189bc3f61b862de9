"""UNIX sockets: no network of their own, but proxies, agents and resolvers listen on them."""

from __future__ import annotations

import array
import os
import socket
import stat

from ondevice_sdk.privacy.attempts.attempt import Group, Outcome, Reach

GROUP = Group("unix")


def _deliver(reach: Reach, kind: socket.SocketKind, address: str) -> None:
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.settimeout(2)
        sock.connect(address)
        sock.sendall(reach.message)


@GROUP("contact")
def unix_path(reach: Reach) -> Outcome:
    """A server at a path, as docker.sock or an agent."""
    _deliver(reach, socket.SOCK_STREAM, reach.unix_stream)
    return None


@GROUP("contact")
def unix_abstract(reach: Reach) -> Outcome:
    """A server without a path, as of the desktop."""
    _deliver(reach, socket.SOCK_STREAM, "\0" + reach.unix_abstract)
    return None


@GROUP("contact")
def unix_dgram_syslog(reach: Reach) -> Outcome:
    """A line to the system log (ours stands in for it), which may be sent on to anywhere."""
    _deliver(reach, socket.SOCK_DGRAM, reach.unix_datagram)
    return None


@GROUP()
def unix_server(reach: Reach) -> Outcome:
    """A server of its own in its private directory, where others could fetch text."""
    path = os.path.join(os.environ["HOME"], "server")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(path)
        sock.listen()
    os.unlink(path)
    return True


@GROUP()
def unix_pair(reach: Reach) -> Outcome:
    """A pair of connected sockets, over which descriptors can be passed on."""
    for end in socket.socketpair():
        end.close()
    return True


@GROUP()
def socketpair_inet(reach: Reach) -> Outcome:
    """A connected pair of the internet family."""
    for end in socket.socketpair(socket.AF_INET, socket.SOCK_STREAM):
        end.close()
    return True


@GROUP("content")
def scm_rights_recv(reach: Reach) -> Outcome:
    """An open file received from another process."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(2)
        sock.connect(reach.unix_giver)
        _, extra, _, _ = sock.recvmsg(1, socket.CMSG_SPACE(4))
    descriptors = array.array("i")
    descriptors.frombytes(extra[0][2][:4])
    with open(descriptors[0], "rb") as file:
        return file.read()


@GROUP()
def inherited_socket_fd(reach: Reach) -> Outcome:
    """A socket that the app left open."""
    found = 0
    for descriptor in range(1024):
        try:
            found += stat.S_ISSOCK(os.fstat(descriptor).st_mode)
        except OSError:
            continue
    return found > 0
