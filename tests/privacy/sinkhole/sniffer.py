"""Sees every packet that is sent in this network namespace, by a ring that the kernel fills.

The kernel puts a packet into the ring before the call that sends it returns: what was sent before a moment is there at
that moment, and nothing has to be waited for. Source: packet(7), packet_mmap in the kernel's documentation.
"""

from __future__ import annotations

import mmap
import socket
import struct
from typing import Final

from .packets import Packet, parse

_SOL_PACKET: Final = 263
_VERSION, _RX_RING, _STATISTICS = 10, 5, 6
_TPACKET_V2: Final = 1
_ALL: Final = 0x0003  # ETH_P_ALL
_FRAME: Final = 512  # bytes kept of a packet, with the kernel's header
_FRAMES: Final = 1 << 15
_BLOCK: Final = 1 << 16
_TO_USER: Final = 1  # in tp_status: it is ours to read
_HEADER: Final = struct.Struct("=IIIHH")  # tp_status, tp_len, tp_snaplen, tp_mac, tp_net of struct tpacket2_hdr
_ADDRESS: Final = struct.Struct("=HHiHB")  # struct sockaddr_ll, as far as the kind of packet
_ADDRESS_AT: Final = 32
_OUTGOING: Final = 4  # the loopback interface shows each packet twice: sent, and arrived


class Sniffer:
    """Begins at once, on all interfaces; needs the right to open packet sockets here."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL))
        self._socket.setsockopt(_SOL_PACKET, _VERSION, _TPACKET_V2)
        size = _FRAME * _FRAMES
        self._socket.setsockopt(_SOL_PACKET, _RX_RING, struct.pack("4I", _BLOCK, size // _BLOCK, _FRAME, _FRAMES))
        self._ring = mmap.mmap(self._socket.fileno(), size)
        self._next = 0

    def take(self) -> list[Packet]:
        """What was sent since the last call.

        Raises:
            RuntimeError: the ring was full and packets were missed; what is known would be no proof.
        """
        packets = []
        while True:
            at = self._next * _FRAME
            status, _, kept, _, net = _HEADER.unpack_from(self._ring, at)
            if not status & _TO_USER:
                break
            _, protocol, _, _, kind = _ADDRESS.unpack_from(self._ring, at + _ADDRESS_AT)
            if kind == _OUTGOING:
                packets.append(parse(socket.ntohs(protocol), self._ring[at + net : at + net + kept]))
            struct.pack_into("=I", self._ring, at, 0)  # the kernel's again
            self._next = (self._next + 1) % _FRAMES
        _, dropped = struct.unpack("=II", self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 8))
        if dropped:
            raise RuntimeError(f"{dropped} packets were missed")
        return packets
