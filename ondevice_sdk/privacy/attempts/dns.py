"""Names: a look-up carries text out, even where no connection is ever made. No name here can leave the machine."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import socket
import struct
import threading

from ondevice_sdk.privacy.attempts import raw
from ondevice_sdk.privacy.attempts.attempt import Group, Outcome, Reach, Untestable

GROUP = Group("dns")
_NEW_USER = 0x10000000  # CLONE_NEWUSER
_NEW_NET = 0x40000000  # CLONE_NEWNET


def question(name: str) -> bytes:
    """A DNS query for the address of `name`."""
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    return struct.pack("!6H", 0x1D1D, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)


def _raise_loopback() -> None:
    """Bring up the loopback interface of a network namespace of our own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, 0x8914, struct.pack("16sH14x", b"lo", 0x49))  # SIOCSIFFLAGS: up, loopback, running


def _ask_only(port: int) -> None:
    """Make the C library's resolver ask one server, on the loopback address."""
    library = raw.libc()
    library["__res_init"]()
    locate = library["__res_state"]
    locate.restype = ctypes.POINTER(ctypes.c_char)
    state = locate()
    # struct __res_state: retrans, retry, options (long), nscount, then nsaddr_list from byte 20
    ctypes.memmove(ctypes.addressof(state.contents), struct.pack("=ii", 1, 1), 8)
    ctypes.memmove(ctypes.addressof(state.contents) + 16, struct.pack("=i", 1), 4)
    ctypes.memmove(ctypes.addressof(state.contents) + 20, raw.loopback4(port), 16)


@GROUP()
def dns_getaddrinfo(reach: Reach) -> Outcome:
    """A name looked up as every program does it; unsandboxed in a network namespace with a resolver of its own."""
    name = f"{reach.token}.invalid"  # no resolver may ask anybody for this ending (RFC 6761)
    try:
        raw.call("unshare", _NEW_NET)
    except OSError:
        try:
            raw.call("unshare", _NEW_USER | _NEW_NET)
        except OSError as error:
            if reach.control:
                raise Untestable("no network namespace of our own to try it in") from error
            _ask_only(reach.udp4)
            socket.getaddrinfo(name, 80)
            return True
    _raise_loopback()
    seen = threading.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(4)

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    query, asker = server.recvfrom(512)
                    if reach.token.encode() in query:
                        seen.set()
                    server.sendto(query[:2] + b"\x81\x83" + query[4:], asker)  # there is no such name

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        _ask_only(server.getsockname()[1])
        with contextlib.suppress(socket.gaierror):
            socket.getaddrinfo(name, 80)
        return seen.wait(2)


@GROUP("contact")
def dns_raw_udp53(reach: Reach) -> Outcome:
    """A query put together by hand."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(question(f"{reach.token}.invalid"), ("127.0.0.1", reach.udp4))
    return None


@GROUP("contact")
def dns_resolved_varlink(reach: Reach) -> Outcome:
    """A look-up asked of the system's resolver over its UNIX socket (ours stands in for it)."""
    call = {"method": "io.systemd.Resolve.ResolveHostname", "parameters": {"name": f"{reach.token}.invalid"}}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(reach.unix_stream)
        sock.sendall(json.dumps(call).encode() + b"\0")
    return None


@GROUP()
def dns_kernel_keyring(reach: Reach) -> Outcome:
    """A look-up by the kernel's key service; without the call-out that would start a helper program."""
    try:
        raw.call("request_key", b"dns_resolver", f"{reach.token}.invalid".encode(), None, 0)
    except OSError as error:
        return error.errno in (errno.ENOKEY, errno.ENODEV)  # the service looked
    return True
