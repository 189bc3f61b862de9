"""Sockets by Python: every family that carries data to another process or machine."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import socket
import struct
import sys

from ondevice_sdk.privacy.attempts.attempt import Group, Outcome, Reach, Untestable

GROUP = Group("net")
_FAST_OPEN = 0x20000000  # MSG_FASTOPEN


def _send(reach: Reach, sock: socket.socket, address: tuple[str, int]) -> None:
    with sock:
        sock.settimeout(2)
        if sock.type == socket.SOCK_STREAM:
            sock.connect(address)
            sock.sendall(reach.message)
        else:
            sock.sendto(reach.message, address)


def _port6(port: int) -> int:
    if not port:
        raise Untestable("no IPv6 here")
    return port


def _assert_linux() -> None:
    if sys.platform != "linux":
        raise Untestable("this family exists on Linux")


@GROUP("contact")
def py_tcp4(reach: Reach) -> Outcome:
    """TCP over IPv4."""
    _send(reach, socket.socket(socket.AF_INET, socket.SOCK_STREAM), ("127.0.0.1", reach.tcp4))
    return None


@GROUP("contact")
def py_tcp6(reach: Reach) -> Outcome:
    """TCP over IPv6."""
    _send(reach, socket.socket(socket.AF_INET6, socket.SOCK_STREAM), ("::1", _port6(reach.tcp6)))
    return None


@GROUP("contact")
def py_udp4(reach: Reach) -> Outcome:
    """UDP over IPv4."""
    _send(reach, socket.socket(socket.AF_INET, socket.SOCK_DGRAM), ("127.0.0.1", reach.udp4))
    return None


@GROUP("contact")
def py_udp6(reach: Reach) -> Outcome:
    """UDP over IPv6."""
    _send(reach, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM), ("::1", _port6(reach.udp6)))
    return None


@GROUP("contact")
def tcp_fast_open(reach: Reach) -> Outcome:
    """TCP without connect: the data ride on the first packet (MSG_FASTOPEN)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.sendto(reach.message, _FAST_OPEN, ("127.0.0.1", reach.tcp4))
    return None


@GROUP("contact")
def mapped_tcp(reach: Reach) -> Outcome:
    """IPv4 inside an IPv6 socket."""
    _port6(reach.tcp6)
    _send(reach, socket.socket(socket.AF_INET6, socket.SOCK_STREAM), ("::ffff:127.0.0.1", reach.tcp4))
    return None


@GROUP()
def py_listen(reach: Reach) -> Outcome:
    """A server of its own that others could connect to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return bool(server.getsockname()[1])


@GROUP()
def py_raw_icmp(reach: Reach) -> Outcome:
    """A raw ICMP packet to the loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        return sock.sendto(struct.pack("!BBHHH", 8, 0, 0xF7FF, 0, 0), ("127.0.0.1", 0)) > 0


@GROUP("contact")
def raw_udp(reach: Reach) -> Outcome:
    """A UDP packet put together by hand on a raw socket."""
    header = struct.pack("!HHHH", 40000, reach.udp4, 8 + len(reach.message), 0)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as sock:
        sock.sendto(header + reach.message, ("127.0.0.1", 0))
    return None


@GROUP()
def py_ping_socket(reach: Reach) -> Outcome:
    """An unprivileged ping socket."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as sock:
        return sock.sendto(struct.pack("!BBHHH", 8, 0, 0, 0, 0), ("127.0.0.1", 0)) > 0


@GROUP()
def py_packet(reach: Reach) -> Outcome:
    """A frame of its own making on the loopback interface (AF_PACKET)."""
    _assert_linux()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind(("lo", 0x0800))
        return sock.send(bytes(12) + struct.pack("!H", 0x0800) + reach.message) > 0


@GROUP()
def py_netlink(reach: Reach) -> Outcome:
    """Ask the kernel for the network interfaces (AF_NETLINK)."""
    _assert_linux()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.settimeout(2)
        sock.bind((0, 0))
        sock.send(struct.pack("=IHHIIBxxx", 20, 18, 0x301, 1, 0, 0))  # RTM_GETLINK, dump
        return len(sock.recv(4096)) > 0


@GROUP()
def interface_names(reach: Reach) -> Outcome:
    """The names of the network interfaces, by the C library."""
    return len(socket.if_nameindex()) > 0


@GROUP()
def py_vsock(reach: Reach) -> Outcome:
    """A socket to the hypervisor (AF_VSOCK, which no network namespace covers); bound, not connected."""
    _assert_linux()
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as sock:
        sock.bind((socket.VMADDR_CID_ANY, 0xFFFFFFFF))
        return True


@GROUP(full=True)
def py_alg(reach: Reach) -> Outcome:
    """The kernel's cryptography (AF_ALG), large and often found broken."""
    _assert_linux()
    with socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET) as sock:
        sock.bind(("hash", "sha256"))
        return True


@GROUP(full=True)
def all_families(reach: Reach) -> Outcome:
    """Any socket of 46 families and 7 types; some make the kernel load a module."""
    made = 0
    for family in range(46):
        for kind in (1, 2, 3, 4, 5, 6, 10):
            with contextlib.suppress(OSError):
                socket.socket(family, kind).close()
                made += 1
    return made > 0


@GROUP(full=True)
def mptcp_sctp_udplite(reach: Reach) -> Outcome:
    """Stream and datagram protocols beside TCP and UDP."""
    made = 0
    for kind, protocol in ((socket.SOCK_STREAM, 262), (socket.SOCK_STREAM, 132), (socket.SOCK_DGRAM, 136)):
        with contextlib.suppress(OSError):
            socket.socket(socket.AF_INET, kind, protocol).close()
            made += 1
    return made > 0


@GROUP("contact")
def http_client(reach: Reach) -> Outcome:
    """A web request by Python's own client."""
    connection = http.client.HTTPConnection("127.0.0.1", reach.tcp4, timeout=2)
    connection.request("POST", "/", body=reach.message)
    connection.close()
    return None


@GROUP("contact")
def asyncio_conn(reach: Reach) -> Outcome:
    """A connection by an event loop."""

    async def send() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", reach.tcp4)
        writer.write(reach.message)
        await writer.drain()
        writer.close()

    asyncio.run(asyncio.wait_for(send(), 5))
    return None


@GROUP("content", layer="landlock")
def proc_net_tcp(reach: Reach) -> Outcome:
    """The connections of this machine, from /proc."""
    with open("/proc/net/tcp", encoding="ascii") as file:
        return file.read()


@GROUP("content", layer="landlock")
def proc_self_net(reach: Reach) -> Outcome:
    """The same, from this process's own directory."""
    with open("/proc/self/net/tcp", encoding="ascii") as file:
        return file.read()


@GROUP("content", layer="landlock")
def hardware_address(reach: Reach) -> Outcome:
    """The address of a network card, which names this machine for ever."""
    base = "/sys/class/net"
    seen = []
    for name in os.listdir(base):
        with open(f"{base}/{name}/address", encoding="ascii") as file:
            seen.append(file.read().strip())
    return " ".join(seen)
