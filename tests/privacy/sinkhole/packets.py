"""What a packet says about where it goes. Sources: RFC 791, 8200, 768, 9293, 1035; packet(7) for the frames."""

from __future__ import annotations

import socket
import struct
from typing import Final, NamedTuple

_IPV4, _IPV6 = 0x0800, 0x86DD
_TCP, _UDP = 6, 17
_PROTOCOLS: Final = {1: "icmp", _TCP: "tcp", _UDP: "udp", 58: "icmp6"}
_ASKED: Final = (53, 5353, 5355)  # DNS, and its two ways without a server
_COMPLAINTS: Final = {1: (3, 4, 11, 12), 58: (1, 2, 3, 4)}  # what ICMP answers to a packet that nobody took
_OPTIONS: Final = (0, 43, 60)  # headers that may come before the one of TCP or UDP


class Packet(NamedTuple):
    """One packet that was sent. `name`: that it asks for, if it is a query. `opens`: it is no answer to another."""

    protocol: str
    source: str = ""
    source_port: int = 0
    destination: str = ""
    port: int = 0
    name: str = ""
    opens: bool = False


def parse(ethertype: int, data: bytes) -> Packet:
    """Read as much of a packet as there is; whatever it is, it counts as one."""
    try:
        if ethertype == _IPV4:
            length = 4 * (data[0] & 0xF)
            source, destination = (socket.inet_ntop(socket.AF_INET, data[at : at + 4]) for at in (12, 16))
            return _inner(data[9], source, destination, data[length:])
        if ethertype == _IPV6:
            source, destination = (socket.inet_ntop(socket.AF_INET6, data[at : at + 16]) for at in (8, 24))
            kind, rest = data[6], data[40:]
            while kind in _OPTIONS:
                kind, rest = rest[0], rest[8 * (rest[1] + 1) :]
            return _inner(kind, source, destination, rest)
    except (IndexError, ValueError, struct.error):
        pass
    return Packet(f"ethertype {ethertype:#06x}", opens=True)


def _inner(kind: int, source: str, destination: str, data: bytes) -> Packet:
    protocol = _PROTOCOLS.get(kind, f"ip {kind}")
    if kind not in (_TCP, _UDP):
        complaint = data[0] in _COMPLAINTS.get(kind, ())
        return Packet(protocol, source, 0, destination, opens=not complaint)
    source_port, port = struct.unpack_from("!HH", data)
    if kind == _UDP:
        name = _question(data[8:]) if port in _ASKED else ""
        return Packet(protocol, source, source_port, destination, port, name, opens=True)
    payload = data[4 * (data[12] >> 4) :]
    name = _question(payload[2:]) if port in _ASKED else ""
    return Packet(protocol, source, source_port, destination, port, name, opens=data[13] & 0x12 == 0x02)


def _question(message: bytes) -> str:
    if len(message) < 12 or message[2] & 0x80:  # an answer
        return ""
    return question(message)[0]


def question(message: bytes) -> tuple[str, int, bytes]:
    """The name and the type that a DNS message asks for, and the question as it stands there.

    Raises:
        IndexError, struct.error, ValueError: it is cut, or none.
    """
    labels, at = [], 12
    while length := message[at]:
        labels.append(message[at + 1 : at + 1 + length].decode("ascii"))
        at += 1 + length
    (kind,) = struct.unpack_from("!H", message, at + 1)
    return ".".join(labels).lower(), kind, message[12 : at + 5]
