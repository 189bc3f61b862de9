"""Answers every look-up of a name with an address of its own, so that whoever asked goes on and can be followed."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import socketserver
import struct
import threading
from collections.abc import Callable
from typing import Final, cast

from .packets import question

_FIRST: Final = ipaddress.IPv4Address("198.18.0.1")  # of the range for benchmarks (RFC 2544)
_ADDRESS_OF: Final = 1  # the type A; other types exist, and have no data
_PORT: Final = 53


class Answerer:
    """A DNS server on UDP and TCP, at every address of the namespace."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}  # address -> name
        self._lock = threading.Lock()
        _serve(_Datagrams(("", _PORT), _handler(self._answer, _by_datagram)))
        _serve(_Streams(("", _PORT), _handler(self._answer, _by_stream)))

    def _answer(self, query: bytes) -> bytes:
        name, kind, asked = question(query)
        records = b""
        if kind == _ADDRESS_OF:
            address = self._address(name)
            records = struct.pack("!HHHIH", 0xC00C, _ADDRESS_OF, 1, 60, 4) + address.packed
        return query[:2] + struct.pack("!5H", 0x8180, 1, bool(records), 0, 0) + asked + records

    def _address(self, name: str) -> ipaddress.IPv4Address:
        with self._lock:
            for address, known in self.names.items():
                if known == name:
                    return ipaddress.IPv4Address(address)
            new = _FIRST + len(self.names)
            self.names[str(new)] = name
            return new


Answer = Callable[[bytes], bytes]
Conversation = Callable[[Answer, socketserver.BaseRequestHandler], None]


class _Datagrams(socketserver.ThreadingUDPServer):
    daemon_threads = True


class _Streams(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


def _serve(server: socketserver.BaseServer) -> None:
    threading.Thread(target=server.serve_forever, daemon=True).start()


def _handler(answer: Answer, conversation: Conversation) -> type[socketserver.BaseRequestHandler]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(IndexError, struct.error, ValueError, OSError):  # not a query, or nobody waits
                conversation(answer, self)

    return Handler


def _by_datagram(answer: Answer, handler: socketserver.BaseRequestHandler) -> None:
    query, server = cast("tuple[bytes, socket.socket]", handler.request)
    server.sendto(answer(query), handler.client_address)


def _by_stream(answer: Answer, handler: socketserver.BaseRequestHandler) -> None:
    with cast("socket.socket", handler.request).makefile("rwb") as stream:
        while length := stream.read(2):
            reply = answer(stream.read(int.from_bytes(length, "big")))
            stream.write(len(reply).to_bytes(2, "big") + reply)
            stream.flush()
